"""The fusion gate against hand arithmetic and its invariants; metadata dropout: whole facts, in training only."""

import math

import pytest
import torch

from skinlesion.model.fusion import FiLM, FusionGate, MetaBlock, MetadataDropout


@pytest.fixture
def gate():
    torch.manual_seed(0)
    return FusionGate(8, 5, hidden=16, noise=0.05, alpha=1.0)


X = torch.randn(3, 8, 4, 6, generator=torch.Generator().manual_seed(1))
METADATA = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("training", [True, False])
def test_alpha_zero_is_the_identity(training):
    gate = FusionGate(8, 5, hidden=16, noise=0.05, alpha=0.0).train(training)
    assert torch.equal(gate(X, METADATA), X)


def test_film_begins_as_the_identity_and_is_affine():
    film = FiLM(8, 5, hidden=16)
    assert torch.equal(film(X, METADATA), X)
    torch.nn.init.normal_(film.output.weight)
    zero, one, two = (film(torch.full_like(X, value), METADATA) for value in (0.0, 1.0, 2.0))
    torch.testing.assert_close(two - one, one - zero)  # linear in the map
    assert not torch.allclose(zero, torch.zeros_like(zero))  # and shifted
    assert (one - zero).std(dim=(2, 3)).max() < 1e-6  # alike at all positions


def test_metablock_by_hand():
    block = MetaBlock(1, 1).eval()
    with torch.no_grad():
        for linear, weight, bias in ((block.scale[0], 2.0, 1.0), (block.shift[0], -0.5, 0.2)):
            linear.weight.fill_(weight)
            linear.bias.fill_(bias)
    norm = 1 / math.sqrt(1 + 1e-5)  # batch norm of mean 0 and variance 1
    scale, shift = (2 * 0.7 + 1) * norm, (-0.5 * 0.7 + 0.2) * norm
    expected = 1 / (1 + math.exp(-(math.tanh(0.3 * scale) + shift)))
    assert block(torch.full((1, 1, 1, 1), 0.3), torch.tensor([[0.7]])).item() == pytest.approx(expected, rel=1e-5)


def test_one_channel_by_hand():
    gate = FusionGate(1, 1, hidden=1, noise=0.0, alpha=0.5)
    with torch.no_grad():
        for parameter, value in ((gate.hidden.weight, 2.0), (gate.hidden.bias, 1.0)):
            parameter.fill_(value)
        for parameter, value in ((gate.output.weight, -0.3), (gate.output.bias, 0.1)):
            parameter.fill_(value)
    hidden = 2 * 1.5 + 1
    swish = hidden / (1 + math.exp(-hidden))
    m = math.tanh(-0.3 * swish + 0.1)
    found = gate(torch.full((1, 1, 1, 1), 10.0), torch.tensor([[1.5]]))
    assert found.item() == pytest.approx(10 * (1 + 0.5 * m))


def test_each_channel_is_scaled_alike_everywhere(gate):
    gate.eval()
    scale = 1 + gate.gates(METADATA)  # (B, C)
    torch.testing.assert_close(gate(X, METADATA), torch.einsum("bchw,bc->bchw", X, scale))
    assert gate.gates(METADATA).abs().max() < 1
    assert gate.gates(METADATA).shape == (3, 8)


def test_noise_is_there_in_training_only(gate):
    gate.train()
    assert not torch.equal(gate(X, METADATA), gate(X, METADATA))
    gate.eval()
    assert torch.equal(gate(X, METADATA), gate(X, METADATA))


def test_noise_has_the_given_standard_deviation():
    gate = FusionGate(4, 1, hidden=4, noise=0.05, alpha=1.0)
    with torch.no_grad():  # hidden layer 0, output layer the identity: the gates are tanh(noise)
        gate.hidden.weight.zero_()
        gate.hidden.bias.zero_()
        gate.output.weight.copy_(torch.eye(4))
        gate.output.bias.zero_()
    torch.manual_seed(0)
    noise = torch.atanh(gate.gates(torch.zeros(5000, 1)))
    assert noise.std().item() == pytest.approx(0.05, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)


def test_alpha_is_one_learned_scalar(gate):
    assert gate.alpha.shape == ()
    gate(X, METADATA).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gate.parameters())
    assert "alpha" in gate.state_dict()


# Metadata dropout

MISSING = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
FACT_OF_COLUMN = torch.tensor([0, 0, 1, 1, 2, 2, 2])
KNOWN = torch.tensor([1.3, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0])


def dropped(probability: float, rows: int) -> torch.Tensor:
    """Which fact of each row was dropped (rows, 3); fails where a fact was neither kept nor dropped whole."""
    torch.manual_seed(0)
    found = MetadataDropout(MISSING, FACT_OF_COLUMN, probability=probability)(KNOWN.expand(rows, -1))
    facts = []
    for fact in range(3):
        columns = fact == FACT_OF_COLUMN
        gone = (found[:, columns] == MISSING[columns]).all(1)
        kept = (found[:, columns] == KNOWN[columns]).all(1)
        assert torch.equal(gone, ~kept)
        facts.append(gone)
    return torch.stack(facts, 1)


def test_evaluation_changes_nothing():
    module = MetadataDropout(MISSING, FACT_OF_COLUMN, probability=1.0).eval()
    metadata = KNOWN.expand(4, -1)
    assert module(metadata) is metadata


def test_probability_zero_changes_nothing_and_one_leaves_nothing():
    assert not dropped(0.0, rows=50).any()
    assert dropped(1.0, rows=50).all()


def test_facts_are_dropped_whole_at_the_given_rate_and_independently():
    gone = dropped(0.2, rows=20_000).double()
    torch.testing.assert_close(gone.mean(0), torch.full((3,), 0.2).double(), atol=0.012, rtol=0)  # 4 sigma
    off_diagonal = torch.corrcoef(gone.T) - torch.eye(3)
    assert off_diagonal.abs().max() < 0.03


def test_argument_stays_as_it_was():
    metadata = KNOWN.repeat(8, 1)
    MetadataDropout(MISSING, FACT_OF_COLUMN, probability=1.0)(metadata)
    assert torch.equal(metadata, KNOWN.repeat(8, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    module = MetadataDropout(MISSING.double(), FACT_OF_COLUMN.int(), probability=0.5)
    assert module(KNOWN.to(dtype).expand(3, -1)).dtype == dtype


def test_encoding_travels_with_the_weights():
    module = MetadataDropout(MISSING, FACT_OF_COLUMN, probability=0.5)
    assert sorted(module.state_dict()) == ["fact_of_column", "missing"]
    assert not list(module.parameters())
    assert repr(module) == "MetadataDropout(facts=3, probability=0.5)"

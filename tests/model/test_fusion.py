"""The fusion gate against hand arithmetic and its invariants."""

import math

import pytest
import torch

from skinlesion.model.fusion import FusionGate


@pytest.fixture
def gate():
    torch.manual_seed(0)
    return FusionGate(5, 8, hidden=16, noise=0.05, alpha=1.0)


X = torch.randn(3, 8, 4, 6, generator=torch.Generator().manual_seed(1))
METADATA = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("training", [True, False])
def test_alpha_zero_is_the_identity(training):
    gate = FusionGate(5, 8, hidden=16, noise=0.05, alpha=0.0).train(training)
    assert torch.equal(gate(X, METADATA), X)


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
    gate = FusionGate(1, 4, hidden=4, noise=0.05, alpha=1.0)
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

"""Fact dropout: whole facts, independently, in training only."""

import pytest
import torch

from skinlesion.model.metadata_dropout import FactDropout

MISSING = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
FACTS = torch.tensor([0, 0, 1, 1, 2, 2, 2])
KNOWN = torch.tensor([1.3, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0])


def dropped(probability: float, rows: int) -> torch.Tensor:
    """Which fact of each row was dropped (rows, 3); fails where a fact was neither kept nor dropped whole."""
    torch.manual_seed(0)
    found = FactDropout(MISSING, FACTS, probability=probability)(KNOWN.expand(rows, -1))
    facts = []
    for fact in range(3):
        columns = fact == FACTS
        gone = (found[:, columns] == MISSING[columns]).all(1)
        kept = (found[:, columns] == KNOWN[columns]).all(1)
        assert torch.equal(gone, ~kept)
        facts.append(gone)
    return torch.stack(facts, 1)


def test_evaluation_changes_nothing():
    module = FactDropout(MISSING, FACTS, probability=1.0).eval()
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
    FactDropout(MISSING, FACTS, probability=1.0)(metadata)
    assert torch.equal(metadata, KNOWN.repeat(8, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    module = FactDropout(MISSING.double(), FACTS.int(), probability=0.5)
    assert module(KNOWN.to(dtype).expand(3, -1)).dtype == dtype


def test_encoding_travels_with_the_weights():
    module = FactDropout(MISSING, FACTS, probability=0.5)
    assert sorted(module.state_dict()) == ["fact_of_column", "missing"]
    assert not list(module.parameters())
    assert repr(module) == "FactDropout(facts=3, probability=0.5)"

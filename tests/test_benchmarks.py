"""The harness of the benchmarks by hand, that its page says what its files say, and that the cheapest ones run."""

import itertools
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks import reliability, scale, subset_search, tables
from benchmarks.__main__ import all_names, cpu_rows
from benchmarks.measuring import Outcome, in_turn, ratios
from skinlesion.config.train import TrainConfig
from skinlesion.inference.predictions import Predictions
from skinlesion.training.checkpoint import AtomicCheckpointIO, read_checkpoint


def outcome() -> Outcome:
    return Outcome("a", "b", 3, [2.0, 8.0, 4.0], [1.0, 1.0, 2.0], [2.0, 8.0, 8.0], "s")


def test_two_ways_are_timed_in_turn_after_one_round_that_is_not_counted() -> None:
    now, order = [0.0], []

    def takes(seconds: float, name: str) -> None:
        now[0] += seconds
        order.append(name)

    first, second = in_turn(
        lambda: takes(1, "ours"), lambda: takes(6, "theirs"), rounds=2, clock=lambda: now[0], repeat=2
    )
    assert order == ["ours", "ours", "theirs"] * 3
    assert first == [1, 1]
    assert second == [6, 6]
    assert ratios(first, second) == [6, 6]


def test_the_middle_ratio_and_its_spread_are_written() -> None:
    plain = outcome().as_plain()
    assert plain["ratio"] == {"median": 4, "lowest": 2, "highest": 8}
    assert plain["machine"]["cores"] >= 1
    assert json.loads(json.dumps(plain)) == plain
    assert tables.line(plain) == "| a | b | 3 | **4** (2 to 8) | 1 / 8 s |"


def test_the_page_says_what_the_files_say() -> None:
    text = tables.PAGE.read_text(encoding="utf-8")
    assert tables.page(all_names(), text) == text
    assert tables.page(all_names(), tables.page(all_names(), text)) == text


def test_what_was_not_measured_lies_on_the_line_through_two_sizes() -> None:
    sizes = ({"rows": 10.0, "processor_s": 3.0, "peak_gb": 1.0}, {"rows": 20.0, "processor_s": 5.0, "peak_gb": 1.5})
    found = scale.extrapolated(*sizes, rows=110)
    assert found == {"rows": 110, "processor_s": 23.0, "peak_gb": 6.0, "extrapolated": True}


def test_a_row_that_was_not_measured_says_so() -> None:
    page = tables.page(["gpu_of_tomorrow"], f"before\n{tables.MARKS[0]}\nold\n{tables.MARKS[1]}\nafter\n")
    assert "| `gpu_of_tomorrow` | | | not measured: no GPU was to be had | |" in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit, match="no benchmark 'sbset'; expected some of input_pipeline"):
        cpu_rows(["sbset"])


def test_the_other_side_of_the_subset_search_votes_as_the_project_does() -> None:
    import pandas as pd
    from conftest import CODES

    actual, values = subset_search.members(np.random.default_rng(3))
    names = [f"I{number:04d}" for number in range(len(actual))]
    loose = [pd.DataFrame(each, columns=list(CODES)).assign(image_id=names, actual=actual) for each in values[:3]]
    codes = [CODES[k] for k in actual]
    strict = [Predictions.build(names, [""] * len(names), probabilities=each, actual=codes) for each in values[:3]]
    for pair in itertools.combinations(range(3), 2):
        vote = Predictions.soft_vote([strict[member] for member in pair])
        assert subset_search.merged_macro_f1(loose, pair) == f1_score(vote.actual, vote.predicted, average="macro")


def test_flipped_bits_are_counted_and_differing_weights_are_told_apart(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliability, "CHECKPOINTS", ("best.ckpt", "phases/0-head.ckpt"))
    run = Path(shutil.copytree(trained.out, tmp_path / "run"))
    before = reliability.fingerprint(run)
    assert len(before) == 5
    row = reliability.flips(run / "phases" / "0-head.ckpt", count=3, draw=random.Random(0))
    assert (row.tried, row.held) == (3, 3)
    assert reliability.fingerprint(run) == before
    content = read_checkpoint(run / "best.ckpt")
    next(each for each in content["state_dict"].values() if each.ndim == 2)[0, 0] += 1e-6
    AtomicCheckpointIO().save_checkpoint(content, run / "phases" / "0-head.ckpt")
    assert {key for key, value in reliability.fingerprint(run).items() if value != before[key]} == {
        "./phases/0-head.ckpt"
    }

"""Ledger of test parts: where it lies, what it holds, and lines of many processes at once."""

import hashlib
import json
import shutil
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import composed

from skinlesion.commands.evaluate import run as evaluate
from skinlesion.commands.train import run as train
from skinlesion.config.inference import EvaluateConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import DataError
from skinlesion.inference.ledger import LEDGER, Examined, beside_split, read_ledger
from skinlesion.training.checkpoint import load_model


def write_many(folder: Path, number: int) -> None:
    examined = Examined(folder / "best.ckpt", {"a" * 3000: folder / "best.ckpt"}, str(number % 2), [folder])
    for _ in range(40):
        examined.record("evaluate")


def test_lines_of_processes_that_write_at_once_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    workers = [get_context("fork").Process(target=write_many, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line) for line in (tmp_path / LEDGER).read_text().splitlines()]
    assert len(lines) == 160
    assert {line["sha256"] for line in lines} == {hashlib.sha256(b"weights").hexdigest()}
    assert {each.split for each in read_ledger([tmp_path], split="1")} == {"1"}


def test_it_lies_beside_what_makes_the_split(tmp_path: Path) -> None:
    data = {"root": "runs/data"}
    assert beside_split({"data": data, "split": {"policy": "published", "file": None}}) == Path("runs/data")
    assert beside_split({"data": data, "split": {"policy": "grouped", "file": None}}, "moved") == Path("moved")
    assert beside_split({"data": data, "split": {"policy": "file", "file": "protocols/folds.csv"}}) == Path("protocols")
    assert beside_split({}) is None


def test_training_reads_no_test_part_unless_asked(trained: TrainConfig, synthetic_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(synthetic_root, tmp_path / "data", ignore=shutil.ignore_patterns(LEDGER)))
    by_default = composed("train", TrainConfig).judge
    assert by_default == ["val"]
    config = replace(trained, out=str(tmp_path / "run"), data=replace(trained.data, root=str(root)), judge=by_default)
    train(config)
    assert not (tmp_path / "run" / "predictions_test.csv").exists()
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())) == {"val", "checkpoint_sha256"}
    assert not (root / LEDGER).exists()

    places = (f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path / 'out'}", "resamples=100")
    evaluate(composed("evaluate", EvaluateConfig, f"checkpoint={config.out}", "split=test", *places))
    model = load_model(Path(config.out))
    for folder in (root, Path(config.out)):
        (entry,) = read_ledger([folder], split=model.fingerprint)
        assert (entry.command, entry.kind, entry.protocol) == ("evaluate", "reading", None)
        assert entry.sha256 == hashlib.sha256((Path(config.out) / "best.ckpt").read_bytes()).hexdigest()
        assert entry.members == {"run": entry.sha256}
    assert len(read_ledger([root, Path(config.out)], split=model.fingerprint)) == 1, "one reading, written twice"
    train(replace(config, out=str(tmp_path / "other"), judge=["val", "test"]))
    assert [each.command for each in read_ledger([root], split=model.fingerprint)] == ["evaluate", "train"]
    assert read_ledger([root], split="of another split") == []


def test_what_cannot_be_recorded_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    (tmp_path / "full" / LEDGER).mkdir(parents=True)
    examined = Examined(tmp_path / "best.ckpt", {}, "f", [tmp_path / "full", tmp_path / "gone"])
    with pytest.raises(DataError, match=r"cannot be recorded in .*full.*gone.*make one of them writable"):
        examined.record("evaluate")
    replace(examined, folders=[tmp_path / "full", tmp_path]).record("evaluate")
    assert len(read_ledger([tmp_path], split="f")) == 1


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text('{"when": 1}\n')
    with pytest.raises(DataError, match=r"test_readings.jsonl, line 1: .*restore the file"):
        read_ledger([tmp_path], split="f")

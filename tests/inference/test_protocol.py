"""A protocol is fixed on validation, and checked when the test part is read."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import composed

from skinlesion.commands.ensemble import run as ensemble
from skinlesion.commands.evaluate import run as evaluate
from skinlesion.config.inference import EnsembleConfig, EvaluateConfig
from skinlesion.errors import ConfigError
from skinlesion.inference.ensemble import read_ensemble
from skinlesion.inference.ledger import Examined, read_ledger
from skinlesion.inference.members import PostHoc
from skinlesion.inference.protocol import open_protocol, read_protocol


@pytest.fixture
def sweep(sweep_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep_folder, tmp_path / "sweep", ignore=shutil.ignore_patterns("cache", "ensemble")))


def vote(sweep: Path, *overrides: str) -> None:
    words = (
        "resamples=100",
        "data.cache_dir=/dev/null",
        "id_pass_rate=null",
        "sensitivities=[0.5]",
        "calibration=temperature",
    )
    ensemble(composed("ensemble", EnsembleConfig, f"members={sweep}", *words, *overrides))


def contents(sweep: Path) -> dict[str, Any]:
    """A protocol that fits the ensemble."""
    about = json.loads((sweep / "ensemble" / "ensemble.json").read_text())
    points = [{key: each[key] for key in ("target", "sensitivity", "threshold")} for each in about["operating_points"]]
    return {
        "hypothesis": "The vote is better than its best member.",
        "members": [about["members"][k]["name"] for k in about["chosen"]],
        "recipe": {"loss.gamma": 2.0, "model.image_size": [32, 32]},
        "vote": {"tta": "none", "calibration": "temperature"},
        "thresholds": points,
    }


def test_it_is_fixed_first_and_checked_at_the_reading(sweep: Path, tmp_path: Path) -> None:
    path = tmp_path / "protocol.yaml"
    vote(sweep)
    path.write_text(yaml.safe_dump(contents(sweep)))
    assert not (sweep / "ensemble" / "predictions_test.csv").exists()
    with pytest.raises(ConfigError, match=r"it has changed, or was never fixed.*split=val"):
        vote(sweep, f"protocol={path}", "split=test")
    assert not (sweep / "ensemble" / "predictions_test.csv").exists()
    vote(sweep, f"protocol={path}")
    vote(sweep, f"protocol={path}", "split=test")
    file = read_ensemble(sweep / "ensemble")
    entries = read_ledger([sweep / "ensemble"], split=str(file.fingerprint))
    assert [(each.kind, each.command) for each in entries] == [("protocol", "ensemble"), ("reading", "ensemble")]
    assert {each.protocol for each in entries} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert entries[1].sha256 == hashlib.sha256((sweep / "ensemble" / "ensemble.json").read_bytes()).hexdigest()
    assert sorted(entries[1].members) == sorted(contents(sweep)["members"])

    path.write_text(yaml.safe_dump({**contents(sweep), "hypothesis": "The vote is worse."}))
    with pytest.raises(ConfigError, match=r"is not that of a protocol fixed for this test part"):
        vote(sweep, f"protocol={path}", "split=test")


def test_a_fixed_member_cannot_be_another(sweep: Path, tmp_path: Path) -> None:
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump({"hypothesis": "It learns.", "members": ["first"]}))
    first = sweep / "first"
    words = (f"checkpoint={first}", f"protocol={path}", "resamples=100", f"out={tmp_path / 'out'}")
    (first / "metrics.json").unlink()  # which notes the digest of its checkpoint
    evaluate(composed("evaluate", EvaluateConfig, *words, "split=val"))
    shutil.copy(sweep / "third" / "best.ckpt", first / "best.ckpt")
    with pytest.raises(ConfigError, match="member first is another checkpoint than when it was fixed"):
        evaluate(composed("evaluate", EvaluateConfig, *words, "split=test"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"members": ["first", "fourth"]}, r"members: first, fourth, but .* vote"),
        ({"vote": {"tta": "flips"}}, "vote.tta: flips, but it is none"),
        ({"vote": {"calibration": "vector"}}, "vote.calibration: vector, but it is temperature"),
        ({"vote": {"decision": "balanced"}}, "vote.decision: balanced, but it is likeliest"),
        ({"recipe": {"loss.gamma": 1.0}}, "recipe.loss.gamma: 1.0, but .* has 2.0"),
        ({"recipe": {"loss.nothing": 1}}, "recipe.loss.nothing: 1, but .* has None"),
        ({"thresholds": [{"target": "mel", "sensitivity": 0.5, "threshold": 1.0}]}, "thresholds: mel at 0.5 1.0, but"),
        ({"hypothesis": ""}, "hypothesis: string should have at least 1 character"),
        ({"hypotesis": "?"}, "hypotesis: unknown key"),
    ],
)
def test_another_model_is_one_clear_error(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    members = {name: tmp_path / name for name in ("first", "second")}
    for path in (tmp_path / "ensemble.json", *members.values()):
        path.write_text("weights")
    point = {"target": "mel", "sensitivity": 0.5, "threshold": 0.25}
    model: dict[str, Any] = {
        "configs": [{"loss": {"gamma": 2.0}}] * 2,
        "tta": "none",
        "posthoc": PostHoc({"method": "temperature"}, [{**point, "reached": 0.6}]),
    }
    examined = Examined(tmp_path / "ensemble.json", members, "f", [tmp_path])
    fits = {
        "hypothesis": "The vote is better than its best member.",
        "members": ["second", "first"],
        "recipe": {"loss.gamma": 2.0},
        "vote": {"tta": "none", "calibration": "temperature"},
        "thresholds": [point],
    }
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(fits))
    assert open_protocol(str(path), "val", examined, **model) == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(yaml.safe_dump({**fits, **changed}))
    with pytest.raises(ConfigError, match=said) as caught:
        open_protocol(str(path), "val", examined, **model)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.yaml: cannot be read .*expected a YAML file"):
        read_protocol(tmp_path / "gone.yaml")
    (tmp_path / "p.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"p\.yaml: no YAML"):
        read_protocol(tmp_path / "p.yaml")
    words = ("submission=a.csv", "external.labels=b.csv", "protocol=p.yaml")
    with pytest.raises(ConfigError, match=r"protocol=p.yaml: expected null"):
        composed("evaluate", EvaluateConfig, *words)

"""Ablations: the sweep has one job for each, and each takes one thing away and nothing else."""

from dataclasses import asdict
from typing import Any

from conftest import composed
from hydra import compose, initialize_config_dir

from skinlesion.config.train import TrainConfig
from skinlesion.files import config_dir


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, part in node.items() for key, value in flat(part, f"{prefix}.{name}").items()}


def test_each_ablation_changes_one_key_and_is_in_the_sweep() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        swept = compose("train", ["sweep=ablation"], return_hydra_config=True).hydra.sweeper.params.ablation.split(",")
    assert {*swept, "none"} == {path.stem for path in (config_dir() / "ablation").glob("*.yaml")}
    runs = {
        name: flat(asdict(composed("train", TrainConfig, "experiment=ham10000_head", f"ablation={name}")))
        for name in swept
    }
    full = runs.pop("full")
    changed = {name: [key for key in full if run[key] != full[key]] for name, run in runs.items()}
    assert all(set(run) == set(full) for run in runs.values())
    names = {".member", ".loss.name", ".out"}  # these follow what is changed
    assert {name: len(set(keys) - names) for name, keys in changed.items()} == dict.fromkeys(runs, 1)
    assert all(run[".member"] == name for name, run in runs.items())
    last = {[key for key in keys if key not in names][-1] for keys in changed.values()}
    assert len(last) >= 5  # gate and metadata are one key with two values

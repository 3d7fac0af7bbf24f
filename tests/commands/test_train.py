"""A run: what it leaves, that seeds fix it, that it can be killed, continued, skipped and refused."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import CODES, SHORT, SMALL

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.files import disk_faults
from skinlesion.taxonomy import HAM10000
from skinlesion.training.phases import last_epoch

Config = Callable[..., TrainConfig]

LEFT = {
    "config.yaml",
    "best.ckpt",
    "last.ckpt",
    "metrics.csv",
    "metrics.json",
    "history.png",
    "layer_state.json",
    "split.csv",
    "predictions_val.csv",
    "predictions_test.csv",
    "test_readings.jsonl",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)]
)
def test_a_stopped_run_says_what_it_kept_and_where_it_goes_on(
    synthetic_root: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    places = [f"data.root={synthetic_root}", f"data.cache_dir={tmp_path / 'cache'}", f"out={tmp_path / 'my run'}"]
    words = [*SMALL, *places, "schedule=head_only", "schedule.phases.head.patience=9999"]
    command = [sys.executable, "-m", "skinlesion", "train", *words, "schedule.phases.head.epochs=5000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:  # a line an epoch, where there is no terminal
            if "phase head, epoch 3/5000" in line:
                break
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == status
    assert "my run: stopped; kept up to phase head, epoch " in said
    kept = int(said.partition("kept up to phase head, epoch ")[2].partition(";")[0])
    assert "Traceback" not in said
    assert kept >= 2
    assert last_epoch(tmp_path / "my run") == f"phase head, epoch {kept}"


def test_the_end_names_what_is_kept_and_what_is_next(trained: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(trained)
    history = pd.read_csv(Path(trained.out) / "metrics.csv")["val/macro_f1"]
    wanted = (
        f"best.ckpt holds phase head, epoch {history.argmax() + 1} of {len(history)}: val macro-F1 {history.max():.3f}"
    )
    assert wanted in caplog.text
    assert f"Next: skinlesion evaluate checkpoint={trained.out}/best.ckpt split=val" in caplog.text


def test_networks_and_image_sizes_are_checked_before_data_are_read(small_config: Config) -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            run(small_config("data.root=/nowhere", "model.high=1", "model.middle=2", *overrides))
        return str(caught.value)

    swin = "model.backbone=swin_tiny_patch4_window7_224"
    assert "such as [48, 48] or [52, 52]" in refused(swin, "model.image_size=[50,50]")
    assert "give model.backbone=resnet18.a1_in1k" in refused("model.backbone=timm/resnet18.a1_in1k")
    assert "resnet18 has the tags a1_in1k" in refused("model.backbone=resnet18.no_such_tag")
    with pytest.raises(DataError, match="nowhere"):  # timm's own, by the hub's name
        run(small_config("data.root=/nowhere", "model.high=1", "model.middle=2", "model.backbone=hf_hub:timm/resnet18"))
    fitting = (swin, "model.image_size=[64,64]", "++model.backbone_kwargs={img_size: 64, window_size: 2}")
    with pytest.raises(DataError, match="nowhere"):
        run(small_config("data.root=/nowhere", "model.high=1", "model.middle=2", *fitting))


def test_what_a_run_leaves(trained: TrainConfig) -> None:
    folder = Path(trained.out)
    assert {path.name for path in folder.iterdir() if path.is_file()} - {".lock"} == LEFT
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert set(metrics[part]) == {"accuracy", "macro_f1", "balanced_accuracy"}
        table = pd.read_csv(folder / f"predictions_{part}.csv")
        assert list(table.columns) == ["image_id", "lesion_id", *CODES, "actual", "predicted"]
        assert metrics[part]["accuracy"] == (table["actual"] == table["predicted"]).mean()
    split = pd.read_csv(folder / "split.csv")
    assert list(split.columns) == ["image_id", "lesion_id", "split"]
    tested = split.loc[split["split"] == "test", "image_id"]
    assert set(pd.read_csv(folder / "predictions_test.csv")["image_id"]) == set(tested)


def test_a_checkpoint_is_plain_data(trained: TrainConfig) -> None:
    checkpoint = torch.load(Path(trained.out) / "best.ckpt", weights_only=True)
    about = checkpoint["skinlesion"]
    assert about["classes"] == list(CODES)
    assert about["config"]["model"]["backbone"] == "test_resnet"
    assert len(about["fingerprint"]) == 64
    assert set(about["split"]) == {"train", "val", "test"}
    assert sum(about["class_counts"]) == len(about["split"]["train"])
    assert {"torch", "timm", "lightning"} <= set(about["versions"])
    assert about["taxonomy"] == HAM10000.to_dict()
    assert json.loads(json.dumps(about)) == about


def test_checkpoints_without_hyper_parameters_and_taxonomy_can_be_read(trained: TrainConfig, tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    from skinlesion.training.checkpoint import load_model

    path = Path(trained.out) / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["hyper_parameters"], checkpoint["skinlesion"]["taxonomy"]
    torch.save(checkpoint, tmp_path / "best.ckpt")
    now, before = load_model(path), load_model(tmp_path)
    assert (before.spec, before.encoder, before.taxonomy) == (now.spec, now.encoder, now.taxonomy)
    weights, expected = (model.network.state_dict() for model in (before, now))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_the_best_checkpoint_is_the_best_epoch(trained: TrainConfig) -> None:
    from skinlesion.inference.predictions import Predictions
    from skinlesion.metrics.classification import headline

    folder = Path(trained.out)
    history = pd.read_csv(folder / "metrics.csv")
    judged = headline(Predictions.read(folder / "predictions_val.csv"))
    assert judged["macro_f1"] == pytest.approx(history["val/macro_f1"].max(), abs=1e-6)
    assert (history["lr-AdamW/head"] == 1e-3).all()


def metrics_of(folder: Path) -> tuple[str, dict[str, object]]:
    about = json.loads((folder / "metrics.json").read_text())
    about.pop("checkpoint_sha256")
    return (folder / "metrics.csv").read_text(), about


def test_seeds_fix_everything(small_config: Config, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("one", "two")]
    for out in outs:
        run(replace(small_config(*SHORT), out=str(out), data=small_config().data))
    assert metrics_of(outs[0]) == metrics_of(outs[1])
    assert (outs[0] / "predictions_test.csv").read_bytes() == (outs[1] / "predictions_test.csv").read_bytes()
    run(replace(small_config(*SHORT, "seed=2"), out=str(tmp_path / "three")))
    assert metrics_of(tmp_path / "three") != metrics_of(outs[0])


def test_phases_unfreeze_from_the_top(small_config: Config, tmp_path: Path) -> None:
    config = small_config(*SHORT, "model.high=layer4", "model.middle=layer3.0.conv2")
    run(config)
    state = json.loads((Path(config.out) / "layer_state.json").read_text())
    assert list(state) == ["head", "high", "middle"]
    assert [name for name, trained in state["head"].items() if trained] == ["head"]
    high = {name for name, trained in state["high"].items() if trained}
    assert high == {name for name in state["high"] if name == "head" or name.startswith("layer4")}
    middle = {name for name, trained in state["middle"].items() if trained}
    assert high < middle
    assert "layer3.0.conv2" in middle
    assert "layer3.0.conv1" not in middle
    history = pd.read_csv(Path(config.out) / "metrics.csv")
    assert history["phase"].tolist() == ["head"] * 2 + ["high"] * 2 + ["middle"] * 2
    assert history["epoch"].tolist() == list(range(6))


KILLED = """
import os, signal, sys
from skinlesion.cli import main
from skinlesion.training.callbacks import History

rows = int(sys.argv.pop(1))

def kill(self, *_):
    if len(self.rows) >= rows:
        os.kill(os.getpid(), signal.SIGKILL)

History.on_train_batch_end = kill
main()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_killed_run_continues_as_if_nothing_had_happened(
    small_config: Config, synthetic_root: Path, tmp_path: Path
) -> None:
    """Killed in the first and the last phase (SIGKILL: nothing is tidied up) and moved, it ends as if never killed."""
    overrides = [
        *SMALL,
        "loader.workers=2",
        "schedule.phases.high.ema_decay=0.9",
        *(f"schedule.phases.{name}.epochs=4" for name in ("head", "high", "middle")),
    ]
    places = [f"data.root={synthetic_root}", f"data.cache_dir={tmp_path / 'cache'}"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for rows in (2, 10):  # in the third epoch of head and of middle: the first one's checkpoint is there
        process = subprocess.run(
            [sys.executable, "-c", KILLED, str(rows), "train", *overrides, *places, f"out={killed}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
        )
        assert process.returncode == -signal.SIGKILL
        killed = killed.rename(tmp_path / f"moved-{rows}")  # a folder may be moved between two sittings
    for out in (killed, whole):
        run(replace(small_config(*overrides[len(SMALL) :]), out=str(out)))
    assert metrics_of(killed) == metrics_of(whole)
    assert (killed / "predictions_test.csv").read_bytes() == (whole / "predictions_test.csv").read_bytes()
    assert (killed / "layer_state.json").read_bytes() == (whole / "layer_state.json").read_bytes()


def wait_for_rows(path: Path, rows: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) > rows:
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    pytest.fail("no epoch in 180 seconds")


def test_a_finished_run_is_not_trained_again(trained: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(trained.out).glob("*.ckpt")}
    monkeypatch.setattr("skinlesion.commands.train._train", lambda *_: pytest.fail("trained again"))
    run(trained)
    assert {path: path.stat().st_mtime_ns for path in Path(trained.out).glob("*.ckpt")} == before


def test_another_configuration_is_refused(trained: TrainConfig) -> None:
    other = replace(trained, loss=replace(trained.loss, gamma=1.5))
    with pytest.raises(ConfigError, match=r"loss\.gamma=2\.0, this one has 1\.5") as caught:
        run(other)
    assert "resume=restart" in str(caught.value)


def test_the_number_of_workers_and_the_logger_may_change(
    trained: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(replace(trained, loader=replace(trained.loader, workers=3), logger="tensorboard"))
    assert "already finished" in caplog.text


def test_a_run_that_is_at_work_is_left_alone(trained: TrainConfig) -> None:
    from skinlesion.training.run_folder import claimed

    with claimed(Path(trained.out), trained), pytest.raises(ConfigError, match="another process"):
        run(trained)


def test_restart_begins_anew(small_config: Config) -> None:
    config = small_config("schedule=head_only", "schedule.phases.head.epochs=1")
    run(config)
    first = (Path(config.out) / "best.ckpt").stat().st_mtime_ns
    (Path(config.out) / "leftover.txt").write_text("old")
    run(replace(config, resume="restart", seed=5))
    assert (Path(config.out) / "best.ckpt").stat().st_mtime_ns != first
    assert (Path(config.out) / "leftover.txt").exists(), "what no run made is not deleted"


def test_bad_data_is_refused_before_training(small_config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(small_config(f"data.root={tmp_path / 'nowhere'}"))


@pytest.mark.parametrize(
    ("ablation", "without"),
    [
        ("model.fusion=none", "head.gate"),
        ("model.fusion=concatenate", "head.gate"),
        ("model.attention=none", "attention"),
    ],
)
def test_ablations_train_without_what_they_take_away(
    ablation: str, without: str, small_config: Config, trained: TrainConfig
) -> None:
    config = small_config("schedule=head_only", "schedule.phases.head.epochs=1", ablation)
    run(config)
    full, ablated = (
        torch.load(Path(each.out) / "best.ckpt", weights_only=True)["state_dict"] for each in (trained, config)
    )
    assert any(without in name for name in full)
    assert not any(without in name for name in ablated)
    assert pd.read_csv(Path(config.out) / "metrics.csv")["train/loss"].gt(0).all()


def test_the_learning_rates_are_logged_under_lightnings_names(small_config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_config("schedule=two_phase", "schedule.phases.high.epochs=2", "logger=tensorboard")
    run(config)
    events = EventAccumulator(str(Path(config.out) / "tensorboard")).Reload()
    rates = {tag for tag in events.Tags()["scalars"] if tag.startswith("lr-")}
    assert rates == {f"lr-AdamW/{part}{rest}" for part in ("head", "backbone") for rest in ("", "_without_decay")}
    assert {"train/loss", "val/loss", "val/accuracy", "val/macro_f1"} <= {*events.Tags()["scalars"]}


def test_without_a_terminal_an_epoch_is_a_line(small_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config("schedule=head_only", "trainer.enable_progress_bar=true")
    with caplog.at_level(logging.INFO):
        run(config)
    lines = [line for line in caplog.messages if "epoch" in line and "val/macro_f1" in line]
    assert [line.split("epoch ")[1][:3] for line in lines] == ["1/2", "2/2"]


def test_a_stage_that_is_not_there_is_named_before_anything_is_trained(small_config: Config) -> None:
    config = small_config("model.middle=blocks.3")
    with pytest.raises(ConfigError, match=r"blocks\.3"):
        run(config)
    assert not (Path(config.out) / "last.ckpt").exists()
    run(small_config("schedule=head_only", "schedule.phases.head.epochs=1"))  # mended: the folder is not taken


def test_what_lightning_refuses_is_said_in_a_line(small_config: Config) -> None:
    with pytest.raises(ConfigError, match="trainer: Lightning refuses it") as caught:
        run(small_config("trainer.accelerator=abacus"))
    assert len(str(caught.value).splitlines()) <= 3


def test_divergence_is_said(small_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"phase head diverged in epoch \d+.*schedule\.phases\.head\.lr"):
        run(small_config("schedule.phases.head.lr=1e30", "trainer.gradient_clip_val=null"))


def test_changed_data_are_noticed(small_config: Config) -> None:
    from skinlesion.errors import CheckpointError

    config = small_config("schedule=head_only", "schedule.phases.head.epochs=1")
    run(config)
    folder = Path(config.out)
    (folder / "metrics.json").unlink()
    last = torch.load(folder / "last.ckpt", weights_only=True)
    last["skinlesion"]["fingerprint"] = "0" * 64
    torch.save(last, folder / "last.ckpt")
    with pytest.raises(CheckpointError, match="have changed since this run began"):
        run(config)


def touch_images(root: Path, config: TrainConfig) -> None:
    path = sorted(root.glob("*/*.jpg"))[3]
    shutil.copy(sorted(root.glob("*/*.jpg"))[4], path)


def touch_labels(root: Path, config: TrainConfig) -> None:
    """Two lesions of the training part exchange their diagnoses: no count changes."""
    table, split = pd.read_csv(root / "HAM10000_metadata"), pd.read_csv(Path(config.out) / "split.csv")
    trained_on = table["image_id"].isin(split.loc[split["split"] == "train", "image_id"])
    once = ~table["lesion_id"].duplicated(keep=False) & trained_on
    mel, nv = (table.index[once & (table["dx"] == code)][0] for code in ("mel", "nv"))
    table.loc[[mel, nv], "dx"] = ["nv", "mel"]
    table.to_csv(root / "HAM10000_metadata", index=False)


def touch_weights(root: Path, config: TrainConfig) -> None:
    path = Path(str(config.model.pretrained))
    torch.save({name: value * 1.01 for name, value in torch.load(path).items()}, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (touch_images, "the images have changed"),
        (touch_labels, "the diagnoses have changed"),
        (touch_weights, "the weights that model.pretrained gives have changed"),
    ],
)
def test_inputs_that_changed_are_named(
    change: Callable[[Path, TrainConfig], None],
    said: str,
    small_config: Config,
    synthetic_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both of a run that was killed and of a finished one; copies with other times are the same images."""
    import timm

    from skinlesion.errors import CheckpointError

    root, weights = tmp_path / "data", tmp_path / "weights.pt"
    shutil.copytree(synthetic_root, root)
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    places = (f"data.root={root}", f"model.pretrained={weights}")
    config = small_config("schedule=head_only", "schedule.phases.head.epochs=1", *places)
    run(config)
    with caplog.at_level(logging.INFO):
        run(config)
    assert "already finished" in caplog.text
    change(root, config)
    caplog.clear()
    with pytest.raises(CheckpointError, match=said) as caught:
        run(config)
    assert "already finished" not in caplog.text
    assert len(str(caught.value).splitlines()) == 1
    (Path(config.out) / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match=said):
        run(config)


def test_a_finished_run_whose_data_are_gone_says_so(
    small_config: Config, synthetic_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    config = small_config("schedule=head_only", "schedule.phases.head.epochs=1", f"data.root={root}")
    run(config)
    shutil.rmtree(root)
    with caplog.at_level(logging.INFO):
        run(config)
    assert "not compared with its data and weights" in caplog.text
    assert "already finished; best.ckpt holds" in caplog.text


def test_unfrozen_stages_are_trained_in_training_mode(small_config: Config) -> None:
    """Also in the process that has just computed feature maps, which puts the backbone to rest."""
    config = small_config(*SHORT)
    run(config)
    before, after = (
        torch.load(Path(config.out) / "phases" / name, weights_only=True)["state_dict"]
        for name in ("0-head.ckpt", "2-middle.ckpt")
    )
    key = "network.backbone.net.layer4.0.bn1.num_batches_tracked"
    assert int(before[key]) == 0
    assert int(after[key]) > 0


def test_high_stages_from_cached_maps_are_as_from_images(small_config: Config, tmp_path: Path) -> None:
    """The same phases over the same, unchanged images: with maps cached below the trained stages, and without."""
    still = [f"augment.{key}=0" for key in ("flip", "rotation", "shift", "zoom", "brightness", "contrast")]
    folders = [tmp_path / name for name in ("cached", "plain")]
    for folder, views in zip(folders, (1, 0), strict=True):
        cached = [f"schedule.phases.{name}.cached_views={views}" for name in ("head", "high")]
        phases = ["schedule=three_phase", "~schedule.phases.middle", "schedule.phases.high.epochs=2", *cached]
        run(replace(small_config("model.high=layer3", *still, *phases), out=str(folder)))
    histories = [pd.read_csv(folder / "metrics.csv") for folder in folders]
    for column in ("train/loss", "val/loss"):  # training maps are kept as float16
        assert histories[0][column].tolist() == pytest.approx(histories[1][column].tolist(), rel=5e-3)
    tables = [pd.read_csv(folder / "predictions_test.csv")[list(CODES)] for folder in folders]
    assert abs(tables[0] - tables[1]).max().max() < 0.01
    names = sorted(path.name.split("-")[2] for path in (tmp_path / "cache").glob("features-*"))
    assert names == ["view0", "view0"]  # of the whole table: frozen throughout, and below layer3


def test_a_network_that_cannot_be_split_is_refused_at_once(small_config: Config) -> None:
    cached = ("model.high=layer3.0.conv2", "schedule.phases.high.cached_views=1")
    with pytest.raises(ConfigError, match=r"no single feature map"):
        run(small_config("schedule=three_phase", *cached))


@pytest.mark.parametrize("bad", ["out", "data.cache_dir", "data.root"])
def test_places_are_tried_before_weights_are_looked_for(
    bad: str, small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skinlesion.training.module.build_backbone", lambda *_: pytest.fail("looked for a network"))
    (tmp_path / "file").touch()
    with pytest.raises((ConfigError, DataError), match=rf"{bad}=\S+file") as caught:
        run(small_config(f"{bad}={tmp_path / 'file' / 'x'}"))
    assert bad == "data.root" or "\n" not in str(caught.value)


def test_a_disk_that_fills_up_is_one_line_and_keeps_what_was_there(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may grow to 50 kB: a checkpoint does not fit, everything before it does."""
    resource = pytest.importorskip("resource")
    config = small_config("schedule=head_only")
    run(replace(config, out=f"{config.out}-before"))  # caches are larger
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match=r"\.ckpt: File too large; ") as caught, disk_faults():
            run(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(Path(config.out).rglob("*.ckpt"))
    run(config)
    for name in ("metrics.csv", "predictions_test.csv"):
        assert (Path(config.out) / name).read_bytes() == Path(f"{config.out}-before", name).read_bytes()


def test_what_a_killed_run_left_is_swept(small_config: Config) -> None:
    config = small_config("schedule=head_only")
    code = (
        "import os, sys; from pathlib import Path; from skinlesion.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as beside: beside.touch(); os._exit(9)"
    )
    for name in ("last.ckpt", "phases/0-head.ckpt"):
        subprocess.run([sys.executable, "-c", code, Path(config.out) / name], check=False)
    assert len(list(Path(config.out).rglob(".*.ckpt"))) == 2
    run(config)
    assert not list(Path(config.out).rglob(".*.ckpt"))

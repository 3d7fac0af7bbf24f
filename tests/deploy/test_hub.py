"""Models on the hub: what is sent comes back to the bit, without image ids; without a network only a copy serves."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import numpy as np
import pytest
import yaml
from conftest import composed
from hub_double import Hub

import skinlesion
from skinlesion.commands.ensemble import run as vote
from skinlesion.commands.push import run as push
from skinlesion.config.data import SourceConfig
from skinlesion.config.deploy import PushConfig
from skinlesion.config.inference import EnsembleConfig, EvaluateConfig
from skinlesion.config.train import TrainConfig
from skinlesion.deploy.export import _licence
from skinlesion.errors import CheckpointError, ConfigError, DataError
from skinlesion.inference.hub import local_path, localize
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part, with_split
from skinlesion.training.checkpoint import AtomicCheckpointIO, load_model, read_checkpoint

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "data" / "bundle"
QUICK = ("resamples=200",)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub's client talks to a stand-in here, with an empty cache."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (huggingface_hub.constants, huggingface_hub.file_download):  # the second in early versions
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def ensemble(sweep_folder: Path, nevus_specialist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three members, whose vote a specialist corrects."""
    out = tmp_path_factory.mktemp("ensemble")
    places = (f"members={sweep_folder}", f"out={out}", "split=test", "smallest=2", "largest=2", "resamples=100")
    vote(composed("ensemble", EnsembleConfig, *places, f"specialist={nevus_specialist}"))
    return out


def pushed(*words: str) -> None:
    push(composed("push", PushConfig, *QUICK, *words))


def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["checkpoint", "ensemble", "bundle"])
def test_what_comes_back_predicts_the_same_to_the_bit(
    hub: Hub, kind: str, trained: TrainConfig, ensemble: Path
) -> None:
    path = {"checkpoint": Path(trained.out) / "best.ckpt", "ensemble": ensemble, "bundle": BUNDLE}[kind]
    pushed(f"{kind}={path}", "repo=me/model")
    before, after = Predictor.load(path, accelerator="cpu"), skinlesion.load("hf://me/model", accelerator="cpu")
    first, second = before.predict(photograph(), age=50), after.predict(photograph(), age=50)
    for name in ("probabilities", "members", "uncalibrated", "ood_score"):
        mine, other = getattr(first, name), getattr(second, name)
        assert (mine is None and other is None) or np.array_equal(mine, other), name
    assert before.members.names == after.members.names
    assert hub.private == {"me/model": True}
    if kind != "bundle":
        old, new = before.networks.models[0].network.state_dict(), after.networks.models[0].network.state_dict()
        assert old.keys() == new.keys()
        assert all(value.numpy().tobytes() == new[key].numpy().tobytes() for key, value in old.items())


def test_no_image_is_named_and_no_place(hub: Hub, trained: TrainConfig, ensemble: Path) -> None:
    pushed(f"ensemble={ensemble}", "repo=me/model")
    files = hub.commits["me/model"][-1]
    assert sorted({Path(path).suffix for path in files}) == [".json", ".md", ".npz", ".safetensors"]
    ids = {image for part in load_model(Path(trained.out)).split.values() for image in part}
    assert len(ids) > 100
    for path, content in files.items():
        assert not [each for each in ids if each.encode() in content], path
        assert str(Path(trained.out).parent).encode() not in content, path
        assert str(trained.data.root).encode() not in content, path
    (about,) = (json.loads(files[path]) for path in files if path.startswith("members/0") and path.endswith("json"))
    split = load_model(Path(trained.out)).split
    assert about["skinlesion"]["images"] == {part: len(images) for part, images in split.items()}


def test_the_card_gives_the_judged_metrics(hub: Hub, ensemble: Path) -> None:
    pushed(f"ensemble={ensemble}", "repo=me/model", "datasets=[mine]")
    _, header, text = hub.commits["me/model"][-1]["README.md"].decode().split("---\n", 2)
    about = yaml.safe_load(header)
    assert (about["license"], about["library_name"], about["datasets"]) == ("cc-by-nc-4.0", "skinlesion", ["mine"])
    (results,) = about["model-index"][0]["results"]
    found = {each["name"]: each for each in results["metrics"]}
    table = Predictions.read(ensemble / "predictions_test.csv")
    right = float((table.predicted == table.actual).mean())
    assert found["accuracy"]["value"] == pytest.approx(right)
    low, high = (found["accuracy"]["args"][end] for end in ("low", "high"))
    assert low <= right <= high
    assert low < high
    assert (results["dataset"]["name"], results["dataset"]["split"]) == ("mine", "test part")
    assert f"| accuracy | {right:.3f} [{low:.3f}, {high:.3f}]" in text
    assert "hf://me/model" in text
    assert "\n\nThe specialist nevus corrects the vote on melanocytic nevus: its log-odds against akiec, bcc" in text


def test_weights_of_other_data_do_not_get_the_licence_of_ham10000(
    hub: Hub, trained: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the table has another name, or the images of a table of that name have other ids."""
    model = load_model(Path(trained.out))
    own = {part: [f"clinic_{image}" for image in images] for part, images in model.split.items()}
    assert model.is_of_ham10000
    assert not replace(model, split=own).is_of_ham10000
    content = read_checkpoint(Path(trained.out) / "best.ckpt")
    content["skinlesion"]["config"]["data"]["table"] = "clinic.csv"
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "own.ckpt")
    assert _licence([load_model(tmp_path / "own.ckpt")]).endswith("(clinic.csv)")
    pushed(f"checkpoint={tmp_path / 'own.ckpt'}", "repo=me/model")
    card = hub.commits["me/model"][-1]["README.md"].decode()
    about = yaml.safe_load(card.split("---\n", 2)[1])
    assert (about["license"], about.get("datasets")) == ("other", None)
    assert "HAM10000" not in card
    assert "The card says licence: other" in caplog.text
    pushed(f"checkpoint={trained.out}", "repo=me/model")
    about = yaml.safe_load(hub.commits["me/model"][-1]["README.md"].decode().split("---\n", 2)[1])
    assert (about["license"], about["datasets"]) == ("cc-by-nc-4.0", ["HAM10000"])


def test_a_dry_run_writes_what_would_be_sent(hub: Hub, ensemble: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    pushed(f"ensemble={ensemble}", "repo=me/model", f"out={out}", "dry_run=true")
    assert hub.commits == {}
    pushed(f"ensemble={ensemble}", "repo=me/model")
    sent = hub.commits["me/model"][-1]
    assert {path: (out / path).read_bytes() for path in sent} == sent
    assert len(sent) == len([path for path in out.rglob("*") if path.is_file()])


def test_another_model_takes_the_place_of_the_first_and_a_revision_is_kept(
    hub: Hub, trained: TrainConfig, ensemble: Path
) -> None:
    pushed(f"ensemble={ensemble}", "repo=me/model")
    first = hub.revision("me/model", "main")
    assert first is not None
    pushed(f"checkpoint={trained.out}", "repo=me/model")
    assert sorted(hub.commits["me/model"][-1]) == ["README.md", "config.json", "model.safetensors"]
    assert len(skinlesion.load("hf://me/model").members.names) == 1
    assert len(skinlesion.load(f"hf://me/model@{first[0]}").members.names) == 2


def test_the_parts_of_the_split_are_found_again_from_the_same_data(
    hub: Hub, trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(f"checkpoint={trained.out}", "repo=me/model")
    model = load_model(local_path("hf://me/model"))
    assert model.hides_images
    found = with_split(model, SourceConfig(trained.data.root, None)).split
    own = load_model(Path(trained.out))
    assert found == own.split
    here = SourceConfig(trained.data.root, str(tmp_path))
    assert read_part(model, "val", here).frame.equals(read_part(own, "val", here).frame)
    other = tmp_path / "other"
    shutil.copytree(trained.data.root, other)
    rows = (other / "HAM10000_metadata").read_text().splitlines()
    single = next(row for row in rows[1:] if sum(row.split(",")[0] in each for each in rows) == 1)
    (other / "HAM10000_metadata").write_text("\n".join(row for row in rows if row != single) + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="names no images, and the split that its settings make"):
        with_split(replace(model, config=without_extra(model.config)), SourceConfig(str(other), None))
    with pytest.raises(DataError, match=r"data\.root=FOLDER"):
        with_split(model, SourceConfig(None, None))


def without_extra(config: dict) -> dict:
    """A configuration that passes over images without a row."""
    return {**config, "data": {**config["data"], "extra_images": "ignore"}}


def test_commands_get_files_and_know_what_they_are(hub: Hub, ensemble: Path) -> None:
    pushed(f"ensemble={ensemble}", "repo=me/model")
    config = composed("evaluate", EvaluateConfig, "checkpoint=hf://me/model", "split=val")
    localize(config)
    assert config.checkpoint is None
    assert (Path(str(config.ensemble)) / "ensemble.json").is_file()


def test_without_a_network_a_copy_serves_and_else_one_line_says_so(
    hub: Hub, trained: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(f"checkpoint={trained.out}", "repo=me/model")
    first = skinlesion.load("hf://me/model")
    hub.shutdown()
    hub.server_close()
    again = skinlesion.load("hf://me/model")
    assert np.array_equal(first.predict(photograph()).probabilities, again.predict(photograph()).probabilities)
    refusals: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: skinlesion.load("hf://me/other"), r"^hf://me/other: not in the hub's cache, and the hub cannot be"),
        (lambda: pushed(f"checkpoint={trained.out}", "repo=me/model"), r"^repo=me/model: the hub cannot be written to"),
    )
    for call, words in refusals:
        with pytest.raises((CheckpointError, ConfigError), match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_wrong_token_is_one_line(hub: Hub, trained: TrainConfig) -> None:
    hub.token = "another"
    with pytest.raises(
        CheckpointError, match=r"^hf://me/model: the hub refuses it .*token of `hf auth login` is"
    ) as read:
        skinlesion.load("hf://me/model")
    with pytest.raises(
        ConfigError, match=r"^repo=me/model: .*401.*; log in by `hf auth login` or set HF_TOKEN"
    ) as sent:
        pushed(f"checkpoint={trained.out}", "repo=me/model")
    assert "\n" not in f"{read.value}{sent.value}"
    assert hub.commits == {}


def test_what_is_not_on_the_hub_is_named(hub: Hub, trained: TrainConfig) -> None:
    with pytest.raises(CheckpointError, match=r"hf://me/none: the hub has no such model, or it is private"):
        skinlesion.load("hf://me/none")
    with pytest.raises(CheckpointError, match="expected hf://user/name or hf://user/name@revision"):
        skinlesion.load("hf://model")
    pushed(f"checkpoint={trained.out}", "repo=me/model")
    with pytest.raises(CheckpointError, match="no revision v9 of me/model"):
        skinlesion.load("hf://me/model@v9")


def test_damaged_weights_are_refused(hub: Hub, trained: TrainConfig, tmp_path: Path) -> None:
    pushed(f"checkpoint={trained.out}", "repo=me/model", f"out={tmp_path / 'copy'}", "dry_run=true")
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: missing or damaged"):
        skinlesion.load(tmp_path / "copy")


def test_a_folder_with_something_else_is_left_alone(trained: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(ConfigError, match="there is something else"):
        pushed(f"checkpoint={trained.out}", "repo=me/model", f"out={tmp_path}", "dry_run=true")
    assert (tmp_path / "README.md").read_text() == "# mine\n"
    for words, reason in (
        (("repo=model",), "user/name"),
        ((), "expected user/name"),
        (("repo=a/b", "dry_run=true"), "out: expected"),
    ):
        with pytest.raises(ConfigError, match=reason):
            composed("push", PushConfig, f"checkpoint={trained.out}", *words)

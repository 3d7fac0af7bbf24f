"""From models to a bundle: it says what they say, in all precisions, and is written whole or not at all."""

import html
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import composed
from markdown_it import MarkdownIt
from untrained import write_member, write_members

from skinlesion.commands.export import run
from skinlesion.commands.predict import run as predict
from skinlesion.config.data import SourceConfig
from skinlesion.config.deploy import ExportConfig
from skinlesion.config.inference import PredictConfig
from skinlesion.data.image_io import decode
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.deploy import export as building
from skinlesion.deploy.export import Recipe, build, model_card, replacing_bundle, require_one_encoder
from skinlesion.deploy.graph import VotingModule, quantize_int8, store_narrow, write_graph
from skinlesion.deploy.manifest import Graph, Manifest
from skinlesion.deploy.runtime import load_bundle
from skinlesion.errors import BundleError, CheckpointError, ConfigError
from skinlesion.files import file_digest, write_json
from skinlesion.inference import conformal, ood
from skinlesion.inference.calibration import tempered
from skinlesion.inference.ensemble import check_together, describe
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part
from skinlesion.inference.torch_members import TorchMembers
from skinlesion.studies.explain.explanation import explain
from skinlesion.training.checkpoint import TrainedModel, load_model

SOURCE = SourceConfig(None, None)
RESNET, OTHER_SIZE = (
    ("model=tiny_resnet",),
    ("model=tiny_resnet", "model.image_size=[24,40]", "model.fusion=concatenate"),
)
LIMITS = {
    "method": "aps",
    "by_class": True,
    "penalty": 0.0,
    "free_ranks": 0,
    "thresholds": dict.fromkeys(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"), 0.4),
    "images": {},
    "always": [],
}


class Made(NamedTuple):
    models: list[TrainedModel]
    folder: Path
    val: pd.DataFrame
    train: pd.DataFrame
    statistics: ood.OodStatistics


@pytest.fixture(scope="module")
def made(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of three members: two on one frozen backbone, one of another size; with all that can be fitted."""
    place = tmp_path_factory.mktemp("export")
    models = [load_model(path) for path in write_members(place, [RESNET, RESNET, OTHER_SIZE], root=synthetic_root)]
    val, train = (read_part(models[0], part, SOURCE, images=12, seed=1).frame for part in ("val", "train"))
    parts = [[ood.Embedded(*forward(model, frame)) for model in models] for frame in (train, val)]
    statistics = ood.fit(parts[0], np.arange(12) % 3, parts[1], id_pass_rate=0.7)
    posthoc = PostHoc(
        calibration={"method": "temperature", "temperature": 2.0},
        conformal=[
            {**LIMITS, "alpha": 0.1},
            {**LIMITS, "alpha": 0.2, "thresholds": dict.fromkeys(LIMITS["thresholds"], 0.1)},
        ],
        ood=statistics,
    )
    folder = place / "bundle"
    folder.mkdir()
    build(Recipe(models, "flips", "fp32", posthoc), folder, val=val, train=None)
    return Made(models, folder, val, train, statistics)


def forward(
    model: TrainedModel, frame: pd.DataFrame, *dims: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits and pooled features of the images of a frame, each flipped along `dims`, by plain PyTorch."""
    pixels = np.stack([decode(Path(path), model.spec.size) for path in frame["path"]])
    mean, std = torch.tensor(model.spec.mean), torch.tensor(model.spec.std)
    image = ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2).flip(dims)
    with torch.inference_mode():
        logits, pooled = model.network.eval().embed(image, torch.from_numpy(model.encoder.encode(frame)))
    return logits.numpy(), pooled.numpy()


def pixels_at(frame: pd.DataFrame) -> dict[str, npt.NDArray[np.uint8]]:
    sizes = ((32, 32), (24, 40))
    return {f"image_{h}x{w}": np.stack([decode(Path(path), (h, w)) for path in frame["path"]]) for h, w in sizes}


def patients(frame: pd.DataFrame) -> list[dict[str, float | str | None]]:
    facts = ["age", "sex", "localization"]
    return [dict(zip(facts, row, strict=True)) for row in frame[facts].itertuples(index=False)]


def one_by_one(made: Made, count: int) -> npt.NDArray[np.float32]:
    """The mean over the four flips of each image alone, in PyTorch: (M, N, K)."""
    flips = ((), (2,), (3,), (2, 3))
    rows = [made.val.iloc[[place]] for place in range(count)]
    votes = [[[forward(m, row, *dims)[0][0] for dims in flips] for row in rows] for m in made.models]
    return np.asarray(torch.tensor(np.array(votes)).softmax(dim=-1).mean(dim=2))


def predicted(made: Made, count: int) -> Predictions:
    """Predictions of the bundle."""
    paths = list(made.val["path"][:count])
    return Predictor.load(made.folder, threads=1).predict(paths, patients(made.val)[:count])


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_bundle_predicts_what_the_models_predict(made: Made, count: int) -> None:
    found, expected = predicted(made, count), one_by_one(made, count)
    assert found.members is not None
    assert found.uncalibrated is not None
    assert found.prediction_set is not None
    np.testing.assert_allclose(found.members, expected, atol=1e-5)
    np.testing.assert_allclose(found.uncalibrated, expected.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.probabilities, tempered(expected.mean(axis=0), 2.0), atol=1e-4)
    np.testing.assert_array_equal(found.prediction_set, conformal.prediction_sets(found.probabilities, {**LIMITS}))


def test_the_taxonomy_travels(made: Made) -> None:
    about = Predictor.load(made.folder, threads=1).about
    assert about.taxonomy == made.models[0].taxonomy.to_dict()
    assert [entry.code for entry in about.classes] == list(about.diagnoses.codes)
    assert Predictor.of(made.models).taxonomy == about.diagnoses


def test_ood_scores_are_those_of_pytorch(made: Made) -> None:
    found = predicted(made, 12)
    logits, pooled = zip(*(forward(model, made.val) for model in made.models), strict=True)
    expected = ood.score(made.statistics, logits, pooled)
    assert found.ood_score is not None
    np.testing.assert_allclose(found.ood_score, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.ood, expected > made.statistics["threshold"])
    assert 0 < np.count_nonzero(found.ood) < 12


def test_the_vote_is_inside_the_graph(made: Made) -> None:
    """The graph alone, in plain onnxruntime: one row a patient, the mean over the members."""
    session = onnxruntime.InferenceSession(made.folder / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = made.models[0].encoder.encode(made.val)
    inputs = {"metadata": metadata, **pixels_at(made.val)}
    voted, members = session.run(["probabilities", "members"], inputs)
    np.testing.assert_allclose(voted, members.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(members, one_by_one(made, 12), atol=1e-5)


def test_a_shared_backbone_is_stored_and_computed_once(made: Made) -> None:
    """Three members, two backbones: each convolution of a backbone is there twice, each head's three times."""
    graph = onnx.load(made.folder / "model.onnx").graph
    found = sum(node.op_type == "Conv" for node in graph.node)
    model = made.models[0].network
    in_backbone = sum(isinstance(module, torch.nn.Conv2d) for module in model.backbone.modules())
    in_head = sum(isinstance(module, torch.nn.Conv2d) for module in model.head.modules())
    assert in_head == 1
    assert found == 2 * in_backbone + 3 * in_head
    weights = sum(
        sum(p.numel() for p in module.parameters())
        for module in (model.backbone, *(m.network.head for m in made.models))
    )
    stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    second = sum(p.numel() for p in made.models[2].network.backbone.parameters())
    assert stored <= 1.05 * (weights + second)


def test_what_the_manifest_states(made: Made) -> None:
    about = Manifest.read(made.folder)
    assert about.tta == "flips"
    assert about.sizes == [(32, 32), (24, 40)]
    assert about.graph.opset == max(entry.version for entry in onnx.load(made.folder / "model.onnx").opset_import)
    assert [entry.code for entry in about.classes] == list(made.models[0].classes)
    assert about.encoder == made.models[0].encoder
    assert about.parity["fp32"]["largest_difference"] < 1e-5
    assert about.parity["fp32"]["taken_for_novel"] == pytest.approx(0.3, abs=0.1)  # passing was 0.7, of 12 images
    assert set(about.files) == {"model.onnx", "novelty.npz", "MODEL_CARD.md"}
    assert "not a medical device" in (made.folder / "MODEL_CARD.md").read_text()
    assert "non-commercial" in about.licence


def answers_of(graph: Path, made: Made) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    metadata = made.models[0].encoder.encode(made.val)
    return np.asarray(session.run(["members"], {"metadata": metadata, **pixels_at(made.val)})[0])


def test_half_precision_halves_the_file(made: Made, tmp_path: Path) -> None:
    whole, graph = made.folder / "model.onnx", tmp_path / "half.onnx"
    shutil.copy(whole, graph)
    store_narrow(graph)
    assert graph.stat().st_size < 0.65 * whole.stat().st_size  # the nodes, of which a tiny net has many, stay
    difference = np.abs(answers_of(graph, made) - answers_of(whole, made)).max()
    assert 0 < difference < 0.01


def test_integers_compute_the_convolutions(made: Made, tmp_path: Path) -> None:
    whole, graph = made.folder / "model.onnx", tmp_path / "int8.onnx"
    shutil.copy(whole, graph)
    quantize_int8(graph, made.models, made.train)
    model = onnx.load(graph)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    scaled = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(weights) >= len(convolutions)
    assert all(node.input[0] in scaled and node.input[1] in scaled for node in convolutions)
    assert 0 < np.abs(answers_of(graph, made) - answers_of(whole, made)).mean() < 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"], "nothing is left beside it"


@pytest.fixture
def ensemble(made: Made, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ensemble.json of the members, whose translation is not done again."""
    folder = made.folder.parent / "ensemble"
    write_json(folder / "ensemble.json", describe(made.models, [0, 1, 2], folder, tta="flips"))
    graph = Manifest.read(made.folder).graph

    def translated(voting: object, beside: Path) -> Graph:
        shutil.copy(made.folder / graph.file, beside)
        return graph

    monkeypatch.setattr(building, "write_graph", translated)
    return folder / "ensemble.json"


def test_an_ensemble_is_exported(made: Made, ensemble: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "deep" / "bundle"
    with caplog.at_level("INFO"):
        run(composed("export", ExportConfig, f"ensemble={ensemble}", f"out={out}", "images=5", "precision=fp16"))
    _, about, _ = load_bundle(out)
    assert [member.name for member in about.members] == ["member0", "member1", "member2"]
    assert set(about.parity) == {"fp32", "fp16"}
    assert about.parity["fp16"]["images"] == 5
    assert about.parity["fp32"]["largest_difference"] < about.parity["fp16"]["largest_difference"] < 0.01
    assert "fp16: the same likeliest diagnosis for" in caplog.text
    assert f"bundle {about.version}, 3 members" in caplog.text


def test_a_bundle_that_differs_is_not_written(ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict_frame = Predictor.predict_frame

    def shifted(predictor: Predictor, frame: pd.DataFrame, **others: Any) -> Predictions:
        found = predict_frame(predictor, frame, **others)
        assert found.members is not None
        return replace(found, members=found.members + (2e-4 if isinstance(predictor.members, TorchMembers) else 0))

    monkeypatch.setattr(Predictor, "predict_frame", shifted)
    config = composed("export", ExportConfig, f"ensemble={ensemble}", f"out={tmp_path / 'bundle'}", "images=2")
    with pytest.raises(BundleError, match=r"differs from PyTorch by 0\.0002 in a probability"):
        run(config)
    assert not any(tmp_path.iterdir())


def test_members_must_encode_metadata_alike(made: Made) -> None:
    first = made.models[0]
    other = TrainedModel(
        **{
            **vars(first),
            "encoder": MetadataEncoder.from_state(
                {
                    "age_mean": 1.0,
                    "age_std": 1.0,
                    "sexes": ["unknown"],
                    "localizations": ["unknown"],
                }
            ),
        }
    )
    with pytest.raises(CheckpointError, match="learned other facts, or other values of them"):
        require_one_encoder([first, other])


def test_the_card_shows_names_as_they_are(made: Made) -> None:
    about = Manifest.read(made.folder)
    name = "<img src=x onerror=alert(1)>|*a*[b](c)`d`"
    card = model_card(about.model_copy(update={"members": [about.members[0].model_copy(update={"name": name})]}))
    page = MarkdownIt("commonmark").enable("table").render(card)
    (row,) = (line for line in page.splitlines() if "onerror" in line)
    assert row == f"<td>{html.escape(name)}</td>"


def test_an_earlier_bundle_is_replaced_and_nothing_else(made: Made, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(made.folder, place)
    with replacing_bundle(place) as beside:
        (beside / "bundle.json").write_text("{}")
    assert [path.name for path in place.iterdir()] == ["bundle.json"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("")
    with pytest.raises(ConfigError, match="there is something else"), replacing_bundle(other):
        pass
    with pytest.raises(KeyboardInterrupt), replacing_bundle(place):
        raise KeyboardInterrupt
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "thesis"]
    assert (place / "bundle.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("precision=int4", "precision=int4: expected one of fp32, fp16, int8"),
        ("images=0", "images=0: expected 1 or more"),
        ("+colour=1", "colour: unknown key"),
    ],
)
def test_typos_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        composed("export", ExportConfig, "checkpoint=a.ckpt", "out=bundle", override)
    with pytest.raises(ConfigError, match="tta=flips: expected null with an ensemble"):
        composed("export", ExportConfig, "ensemble=a.json", "out=bundle", "tta=flips")


WITHOUT_TORCH = """
import sys
blocked = {"torch", "torchvision", "timm", "lightning", "pandas", "albumentations", "sklearn", "onnx"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "skinlesion"
from skinlesion.cli import main
main()
"""


def test_predict_gives_what_the_ensemble_gives_without_torch(
    made: Made, ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads(ensemble.read_text())
    fitted = {"calibration": Manifest.read(made.folder).calibration, "conformal": Manifest.read(made.folder).conformal}
    beside = ensemble.parent / "novelty.npz"
    ood.write(made.statistics, beside)
    seen = {"file": beside.name, "sha256": file_digest(beside)}
    write_json(ensemble, {**about, **fitted, "novelty": seen})
    image = Path(made.val["path"].iloc[0])
    asked = (f"image={image}", "age=40", "sex=female", "format=json")
    predict(composed("predict", PredictConfig, f"ensemble={ensemble}", "accelerator=cpu", *asked))
    expected = json.loads(capsys.readouterr().out)
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "predict", f"bundle={made.folder}", *asked],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    expected_scores = Predictor.load(made.folder).predict(image, age=40, sex="female").ood_score
    assert expected_scores is not None
    for row, other in zip(found["predictions"], expected["predictions"], strict=True):
        for key in ("probabilities", "uncalibrated"):
            assert row.pop(key) == pytest.approx(other.pop(key), abs=1e-4)
        score = expected_scores[0]
        assert row["out_of_distribution"].pop("score") == pytest.approx(score, rel=1e-3, abs=1e-3)
        assert other["out_of_distribution"].pop("score") == pytest.approx(score, abs=1e-4)
        assert row["out_of_distribution"]["flag"] == (score > made.statistics["threshold"])
    assert found == expected


def test_a_bundle_has_its_own_turns(made: Made) -> None:
    for others, said in (("tta=flips", "tta=flips: expected null"), ("checkpoint=a.ckpt", "expected no checkpoint")):
        with pytest.raises(ConfigError, match=said):
            composed("predict", PredictConfig, f"bundle={made.folder}", "image=a.jpg", others)


@pytest.mark.exhaustive
def test_transposed_weights_are_translated(synthetic_root: Path, tmp_path: Path) -> None:
    """The linear layers of a ConvNeXt store their weights transposed; batches of several sizes."""
    given = ("model=convnext_tiny", "model.pretrained=false", "model.image_size=[64,64]")
    path, _ = write_member(tmp_path / "run", *given, root=synthetic_root, seed=1)
    model = load_model(path)
    voting = VotingModule([model], tta="dihedral").eval()
    graph = write_graph(voting, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / graph.file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for count in (1, 3):
        images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        metadata = np.stack([model.encoder.encode_patient({"age": 10.0 * row}) for row in range(count)])
        with torch.inference_mode():
            members, *_ = voting(torch.from_numpy(metadata), [torch.from_numpy(images)])
        (found,) = session.run(["members"], {"metadata": metadata, "image_64x64": images})
        np.testing.assert_allclose(found, members.numpy(), atol=1e-4)


def test_images_of_any_aspect_are_predicted_without_padding(synthetic_root: Path, tmp_path: Path) -> None:
    """TensorFlow's padding depends on the side: odd and even ones, alone and mixed, against PyTorch by hand."""
    given = ("model=tiny_efficientnet", "model.image_size=[64,96]", "model.padding=false")
    same = "+model.backbone_kwargs={pad_type: same}"
    path, _ = write_member(tmp_path / "run", *given, same, root=synthetic_root, seed=1)
    models = [load_model(path)]
    val = read_part(models[0], "val", SOURCE, images=8, seed=1).frame
    (tmp_path / "bundle").mkdir()
    build(Recipe(models, "none", "fp32", PostHoc()), tmp_path / "bundle", val=val, train=None)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((64, 96), (78, 78), (96, 64), (51, 121))]
    expected = []
    for image in images:  # each has the 6144 pixels of 64 x 96, or nearly, and stays as it is
        mean, std = torch.tensor(models[0].spec.mean), torch.tensor(models[0].spec.std)
        pixels = ((torch.from_numpy(image).float() / 255 - mean) / std).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected.append(models[0].network(pixels, torch.from_numpy(models[0].encoder.missing())[None]).softmax(1))
    for place in (path, tmp_path / "bundle"):
        found = Predictor.load(place).predict([*images, images[0]])
        np.testing.assert_allclose(found.probabilities, torch.cat([*expected, expected[0]]).numpy(), atol=1e-5)
    (tmp_path / "scaled").mkdir()
    build(Recipe(models, "scales", "fp32", PostHoc()), tmp_path / "scaled", val=val, train=None)
    voted = Predictor.of(models, tta="scales").predict(images).probabilities
    assert np.abs(voted - torch.cat(expected).numpy()).max() > 1e-4
    np.testing.assert_allclose(Predictor.load(tmp_path / "scaled").predict(images).probabilities, voted, atol=1e-5)


@pytest.mark.parametrize(
    ("treatment", "refused"),
    [
        ("hair=remove", r"data\.hair=keep, but .* with remove"),
        ("colour_constancy=shades_of_gray", r"data\.colour_constancy=none, but .* with shades_of_gray"),
    ],
)
def test_images_are_treated_wherever_the_member_is_used(
    synthetic_root: Path, tmp_path: Path, treatment: str, refused: str
) -> None:
    """From the data module through the checkpoint to the bundle: as the network sees an image cleaned beforehand."""
    small = ("model=tiny_resnet", "model.image_size=[64,96]")
    path, _ = write_member(tmp_path / "run", *small, f"data.{treatment}", root=synthetic_root, seed=1)
    plain, _ = write_member(tmp_path / "plain", *small, root=synthetic_root, seed=1)
    model, other = load_model(path), load_model(plain)
    with pytest.raises(CheckpointError, match=refused):
        check_together([model, other])
    part = read_part(model, "val", SourceConfig(None, str(tmp_path / "cache")), images=8, seed=1)
    (tmp_path / "bundle").mkdir()
    build(Recipe([model], "none", "fp32", PostHoc()), tmp_path / "bundle", val=part.frame, train=None)
    image = np.full((64, 96, 3), (220, 170, 150), np.uint8)
    image[:, 40:42] = image[20, :] = 20
    cleaned = model.spec.treatment(image)
    colour = (220, 170, 150) if treatment == "hair=remove" else (182, 182, 182)
    assert np.abs(cleaned[30, 10].astype(int) - colour).max() < 5
    expected = Predictor.of([other]).predict([cleaned]).probabilities
    assert np.abs(Predictor.of([other]).predict([image]).probabilities - expected).max() > 1e-3
    for place in (path, tmp_path / "bundle"):
        predictor = Predictor.load(place)
        np.testing.assert_allclose(predictor.predict([image]).probabilities, expected, atol=1e-5)
        found = [
            predictor.predict_frame(part.frame, caches=caches) for caches in (None, part.caches(predictor.members))
        ]
        np.testing.assert_allclose(found[0].probabilities, found[1].probabilities, atol=1e-6)
    explained = explain(Predictor.of([model]), image, {}, name="hairy", target="nv")
    np.testing.assert_allclose(explained.probabilities, expected[0], atol=1e-5)
    np.testing.assert_allclose(
        explained.maps["nv"], explain(Predictor.of([other]), cleaned, {}, name="", target="nv").maps["nv"], atol=1e-3
    )

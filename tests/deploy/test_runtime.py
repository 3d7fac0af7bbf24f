"""A bundle read back: what it answers and what is refused; its graph is made by hand, so its answers are known."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import DIAGNOSES
from onnx import TensorProto, helper, numpy_helper

from skinlesion.data.metadata import MetadataEncoder
from skinlesion.deploy.manifest import Manifest, check_files
from skinlesion.deploy.runtime import CHUNK, load_bundle
from skinlesion.errors import BundleError, CheckpointError
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictor import Predictor
from skinlesion.taxonomy import HAM10000

SIZE = (4, 6)
POINT = {"target": "benignant", "sensitivity": 0.9, "images": 3, "threshold": 0.5, "reached": 1.0}
SETS = {"method": "aps", "alpha": 0.1, "by_class": True, "penalty": 0.0, "free_ranks": 0, "images": {}, "always": []}
ENCODER = MetadataEncoder.from_state(
    {
        "age_mean": 50.0,
        "age_std": 10.0,
        "sexes": ["female", "male", "unknown"],
        "localizations": ["back", "unknown"],
    }
)


def write_graph(path: Path) -> None:
    """Two members: one says the one-hot of (mean pixel of the first row) // 37, the other is even over all."""
    seven = numpy_helper.from_array(np.arange(7, dtype=np.int64)[None], "seven")
    nodes = [
        helper.make_node("Cast", [f"image_{SIZE[0]}x{SIZE[1]}"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["brightness"], keepdims=0),
        helper.make_node("Div", ["brightness", "step"], ["ratio"]),
        helper.make_node("Floor", ["ratio"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["index"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["index", "one"], ["column"]),
        helper.make_node("Equal", ["column", "seven"], ["hot"]),
        helper.make_node("Cast", ["hot"], ["first"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["first", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "seventh"], ["second"]),
        helper.make_node("Unsqueeze", ["first", "front"], ["first3"]),
        helper.make_node("Unsqueeze", ["second", "front"], ["second3"]),
        helper.make_node("Concat", ["first3", "second3"], ["members"], axis=0),
    ]
    constants = [
        seven,
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array(37, np.float32), "step"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([0], np.int64), "front"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.full((1, 7), 1 / 7, np.float32), "seventh"),
    ]
    image = helper.make_tensor_value_info(f"image_{SIZE[0]}x{SIZE[1]}", TensorProto.UINT8, ["batch", *SIZE, 3])
    metadata = helper.make_tensor_value_info("metadata", TensorProto.FLOAT, ["batch", ENCODER.width])
    members = helper.make_tensor_value_info("members", TensorProto.FLOAT, [2, "batch", 7])
    graph = helper.make_graph(nodes, "two", [metadata, image], [members], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def values(folder: Path, **others: Any) -> dict[str, Any]:
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    member = {"backbone": "none", "size": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3, "sha256": "0" * 64}
    return {
        "precision": "fp32",
        "classes": [{"code": each.code, "name": each.name, "category": each.category} for each in DIAGNOSES],
        "metadata": ENCODER.state(),
        "preprocessing": {},
        "members": [{"name": "a", **member}, {"name": "b", **member}],
        "tta": "none",
        "graph": {"file": "model.onnx", "opset": 20, "inputs": {}, "outputs": {}},
        "calibration": None,
        "operating_points": None,
        "conformal": None,
        "novelty": None,
        "parity": {},
        "versions": {"skinlesion": "0.0.9"},
        "files": {"model.onnx": digest},
        "licence": "none",
        "note": "none",
        **others,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_graph(tmp_path / "model.onnx")
    (tmp_path / "bundle.json").write_text(Manifest.sealed(**values(tmp_path)).text())
    return tmp_path


def grey(level: int, *, shape: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*shape, 3), level, np.uint8)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 40])
def test_answers_come_in_the_order_of_the_images(folder: Path, count: int) -> None:
    levels = [37 * (k % 7) for k in range(count)]
    found = Predictor.load(folder, threads=1).predict([grey(level) for level in levels])
    one_hot = np.eye(7)[[level // 37 for level in levels]]
    assert found.members is not None
    assert found.members.shape == (2, count, 7)
    np.testing.assert_allclose(found.members[0], one_hot)
    np.testing.assert_allclose(found.members[1], np.full((count, 7), 1 / 7), atol=1e-7)
    np.testing.assert_allclose(found.probabilities, (one_hot + 1 / 7) / 2, atol=1e-7)


def test_a_graph_without_embedding_outputs_runs_where_none_are_wanted(folder: Path) -> None:
    members, about, posthoc = load_bundle(folder, threads=1)
    assert (members.names, members.sizes, members.tta) == (["a", "b"], [SIZE], "none")
    assert members.encoder == about.encoder == ENCODER
    assert posthoc == PostHoc()
    outputs = members.run([(grey(0),)] * 3, np.zeros((3, ENCODER.width), np.float32), embed=False)
    assert outputs.probabilities.shape == (2, 3, 7)
    assert not outputs.logits
    assert not outputs.pooled


def test_images_are_fitted_as_in_training(folder: Path) -> None:
    """A white square on 4x6 pixels is padded with two black columns of six: its mean is 255 * 4 / 6."""
    bundle = Predictor.load(folder, threads=1)
    square = grey(255, shape=(40, 40))
    (found,) = bundle.predict([square]).probabilities
    assert found.argmax() == int(255 * 4 / 6) // 37
    np.testing.assert_array_equal(bundle.predict_prepared([bundle.prepare(square)], [{}]).probabilities, [found])


def change(folder: Path, edit: Callable[[dict[str, Any]], object], *, seal: bool = False) -> None:
    path = folder / "bundle.json"
    about = json.loads(path.read_text())
    edit(about)
    if seal:
        keep = {key: value for key, value in about.items() if key not in ("format", "version")}
        path.write_text(Manifest.sealed(**keep).text())
    else:
        path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda about: about.update(format="3.0"), "Use a newer skinlesion, or export the ensemble again"),
        (lambda about: about.update(format="0.3"), "Use skinlesion 0.0.9, or export the ensemble again"),
        (lambda about: about.update(format="new"), "format is new; expected 1.5: not a bundle"),
        (lambda about: about.pop("format"), "format is None"),
        (lambda about: about.update(colour=1), "colour: unknown key"),
        (lambda about: about["graph"].update(colour=1), "graph.colour: unknown key"),
        (lambda about: about.pop("tta"), "tta: field required"),
        (lambda about: about.update(tta=3), "tta: input should be a valid string"),
        (lambda about: about.update(tta="spins"), "tta: 'spins': expected one of none, flips, dihedral, scales"),
        (lambda about: about.update(precision="fp8"), "precision: 'fp8': expected one of fp32"),
        (lambda about: about["members"][0].update(std=[0.5, 0, 0.5]), "members.0.std.1: 0.0: expected more than 0"),
        (lambda about: about["members"][0].update(size=["4", 6]), "members.0.size.0: input should be a valid integer"),
        (lambda about: about.update(members=[]), "members: tuple should have at least 1 item"),
        (lambda about: about["graph"].update(file="../model.onnx"), "graph.file: '../model.onnx': expected the name"),
        (lambda about: about["files"].update({"a/b": "0" * 64}), "files.a/b.[key]: 'a/b': expected the name"),
        (lambda about: about["files"].update({"b": "0"}), "files.b: '0': expected 64 hexadecimal digits"),
        (
            lambda about: about.update(calibration={"method": "temperature", "temperature": -1}),
            "temperature: -1.0",
        ),
        (lambda about: about.update(conformal=[{"alpha": 2}]), "conformal.0.method: field required"),
        (lambda about: about.update(novelty={"file": "..", "passing": 0.9, "threshold": 1}), "novelty.file: '..'"),
        (lambda about: about["members"][0].update(size=[3]), "members.0.size"),
        (lambda about: about.update(tta="flips"), "has been changed since it was exported"),
    ],
)
def test_a_strange_manifest_is_refused(folder: Path, edit: Callable[[dict[str, Any]], object], said: str) -> None:
    change(folder, edit)
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert said in str(caught.value)
    assert "bundle.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_other_classes_and_vocabularies_are_refused(folder: Path) -> None:
    change(folder, lambda about: about["classes"].reverse(), seal=True)
    with pytest.raises(BundleError, match="its diagnoses are not vasc, nv"):
        load_bundle(folder)
    change(folder, lambda about: (about["classes"].reverse(), about["metadata"].pop("facts")), seal=True)
    with pytest.raises(BundleError, match="metadata encoder"):
        load_bundle(folder)


def test_what_a_newer_minor_format_adds_is_passed_over(folder: Path) -> None:
    about = json.loads((folder / "bundle.json").read_text())
    newer = {**about, "format": "1.7", "colour": 1}
    sealed = {key: value for key, value in newer.items() if key != "version"}
    newer["version"] = hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()[:12]
    (folder / "bundle.json").write_text(json.dumps(newer))
    assert load_bundle(folder)[1].format == "1.7"


def test_damaged_and_missing_files_are_refused(folder: Path, tmp_path: Path) -> None:
    graph = folder / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model\.onnx: damaged"):
        load_bundle(folder)
    graph.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        load_bundle(folder)
    with pytest.raises(BundleError, match="no bundle there"):
        load_bundle(tmp_path / "nowhere")
    members = tmp_path / "six"
    members.mkdir()
    (members / "ensemble.json").touch()
    with pytest.raises(BundleError, match=rf"export ensemble={members} out={members}/bundle"):
        load_bundle(members)
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not readable as JSON"):
        load_bundle(folder)


def test_files_outside_the_folder_are_not_read(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    with pytest.raises(BundleError, match="missing"):
        check_files(folder, {"../outside": hashlib.sha256(b"x").hexdigest()})


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"novelty": {"file": "novelty.npz", "passing": 0.9, "threshold": 1.0}}, "files: lists no hash of novelty.npz"),
        ({"files": {}}, "files: lists no hash of model.onnx"),
        ({"calibration": {"method": "temperature"}}, "calibration: does not fit this model (KeyError: 'temperature')"),
        ({"calibration": {"method": "none", "vector": {"weight": [1.0], "bias": [0.0]}}}, "calibration.vector: exp"),
        ({"operating_points": [POINT]}, "operating_points.0.target: does not fit"),
        ({"conformal": [{**SETS, "thresholds": {"nv": 0.5}}]}, "conformal.0.thresholds: expected one for each of"),
        ({"taxonomy": {**HAM10000.to_dict(), "diagnoses": 3}}, "taxonomy: AttributeError"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, others: dict[str, Any], said: str) -> None:
    (folder / "bundle.json").write_text(Manifest.sealed(**values(folder, **others)).text())
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert said in str(caught.value)
    assert "bundle.json: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_answers_that_are_no_numbers_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Predictor.load(folder, threads=1)
    outputs = bundle.members.run([(grey(0),)], np.zeros((1, ENCODER.width), np.float32), embed=False)
    outputs.probabilities[1, 0, 3] = np.nan
    monkeypatch.setattr(type(bundle.members), "run", lambda *_, **__: outputs)
    with pytest.raises(CheckpointError, match="probabilities that are no numbers"):
        bundle.predict([grey(0)])


def test_a_graph_that_is_none_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a graph")
    (folder / "bundle.json").write_text(Manifest.sealed(**values(folder)).text())
    with pytest.raises(BundleError, match="onnxruntime cannot read it"):
        load_bundle(folder)


def test_the_version_follows_the_contents(folder: Path) -> None:
    first = Manifest.read(folder).version
    assert Manifest.sealed(**values(folder)).version == first
    assert Manifest.sealed(**values(folder, tta="flips")).version != first


def test_the_shipped_bundle_predicts_and_says_its_licence() -> None:
    """It lies in the repository, small, and takes squares and missing facts."""
    folder = Path(__file__).parents[2] / "data" / "bundle"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000_000
    model = Predictor.load(folder, threads=1)
    assert "CC BY-NC 4.0" in model.about.licence
    assert model.members.takes_any_shape
    rng = np.random.default_rng(1)
    table = model.predict([rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((224, 224), (450, 600))])
    np.testing.assert_allclose(table.probabilities.sum(axis=1), 1, atol=1e-5)
    assert not np.allclose(table.probabilities[0], table.probabilities[1], atol=1e-3)

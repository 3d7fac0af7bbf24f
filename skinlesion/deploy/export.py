"""Export: the files of a bundle, kept only if they predict what the PyTorch models predict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion import __version__
from skinlesion.deploy import manifest
from skinlesion.deploy.graph import VotingModule, quantize_int8, store_narrow, write_graph
from skinlesion.deploy.manifest import LICENCE, NOTE, OTHER_LICENCE, Graph, Manifest, Member
from skinlesion.deploy.runtime import OnnxMembers, load_bundle, open_session
from skinlesion.errors import BundleError, CheckpointError, ConfigError
from skinlesion.files import escape_markdown, file_digest, replacing_folder
from skinlesion.inference import ood
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.specialist import correction_in_words
from skinlesion.inference.torch_members import TorchMembers
from skinlesion.training.checkpoint import TrainedModel

OOD_FILE = "novelty.npz"
CARD = "MODEL_CARD.md"
TOLERANCE = 1e-4  # largest difference of a probability at full precision
PREPROCESSING = {
    "1 decode": "8 bits a channel, RGB, turned as its EXIF orientation says",
    "2 fit": "scaled to fit into (height, width) with its aspect kept, by OpenCV's INTER_AREA where it shrinks and "
    "INTER_LINEAR where it grows, sides rounded to whole pixels; centred on black, an odd pixel to the lower right. "
    "Members that are not padded: scaled to height * width pixels with its aspect kept, without black. "
    "Members with hair=remove: hairs painted over as by skinlesion.data.skin.remove_hair, and with "
    "colour_constancy=shades_of_gray: colours balanced as by skinlesion.data.treatment.shades_of_gray, both before the "
    "black is added",
    "3 normalise": "inside the graph, for each member: (pixel / 255 - mean) / std",
    "metadata": "a row of numbers, fact after fact: of a number (value - mean) / std in its unit, 0 where unknown; 1 "
    "where it is unknown, else 0; of a category one-hot in the order of categories; words in lower case, others than "
    "these count as unknown",
}
_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
_CARD = Path(__file__).with_name("model_card.md")


@dataclass(frozen=True)
class Recipe:
    """The contents of a bundle."""

    models: list[TrainedModel]
    tta: str  # views of an image that vote
    precision: str  # fp32 | fp16 | int8
    posthoc: PostHoc = field(default_factory=PostHoc)
    specialist: TrainedModel | None = None  # that corrects the vote by `posthoc.specialist`

    @property
    def correction(self) -> dict[str, Any]:
        """The specialist, as `TorchMembers` and `VotingModule` take it."""
        if self.specialist is None or self.posthoc.specialist is None:
            return {}
        return {"specialist": self.specialist, "target": self.posthoc.specialist["target"]}


@dataclass(frozen=True)
class Agreement:
    """Differences between two votes on N images."""

    images: int  # N
    largest_difference: float  # of a probability of the vote
    mean_difference: float  # of a probability of the vote
    largest_of_a_member: float  # difference of a probability of one member
    same_diagnosis: float  # share of images with the same likeliest diagnosis
    taken_for_novel: float | None  # share of images flagged as out-of-distribution; None: there are no statistics

    def as_dict(self) -> dict[str, float]:
        """Make the entry of bundle.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def build(recipe: Recipe, folder: Path, *, val: pd.DataFrame, train: pd.DataFrame | None) -> Manifest:
    """Write the files of a bundle.

    Args:
        recipe: The models and what was fitted after their vote.
        folder: Empty.
        val: Checked rows of validation images, on which the graph is compared with the models.
        train: Checked rows of training images, needed for int8.

    Raises:
        BundleError: The graph differs from the models.
    """
    graph = write_graph(VotingModule(recipe.models, tta=recipe.tta, **recipe.correction).eval(), folder)
    models = TorchMembers(recipe.models, tta=recipe.tta, accelerator="cpu", **recipe.correction)
    rule = PostHoc(specialist=recipe.posthoc.specialist)
    expected = Predictor(models, folder, rule, recipe.models[0].taxonomy).predict_frame(
        val, label="predicting in PyTorch"
    )
    parity = {"fp32": _agreement(recipe, folder, graph, val, expected)}
    require_parity(parity["fp32"])
    if recipe.precision == "fp16":
        store_narrow(folder / graph.file)
    elif recipe.precision == "int8" and train is not None:
        everyone = [*recipe.models, *([] if recipe.specialist is None else [recipe.specialist])]
        quantize_int8(folder / graph.file, everyone, train)
    if recipe.precision != "fp32":
        parity[recipe.precision] = _agreement(recipe, folder, graph, val, expected)
    if recipe.posthoc.ood is not None:
        ood.write(recipe.posthoc.ood, folder / OOD_FILE)
    (folder / CARD).write_text(model_card(describe(recipe, folder, graph, parity=parity)), encoding="utf-8")
    about = describe(recipe, folder, graph, parity=parity)  # with the digest of the card
    (folder / manifest.FILE).write_text(about.text(), encoding="utf-8")
    return load_bundle(folder)[1]  # as its users will read it


def describe(recipe: Recipe, folder: Path, graph: Graph, *, parity: Mapping[str, Agreement]) -> Manifest:
    """Make the manifest of a bundle.

    Args:
        recipe: What it was made of.
        folder: Holds all its files but bundle.json.
        graph: The graph there.
        parity: How it compares with PyTorch, for each precision.
    """
    fitted, taxonomy = recipe.posthoc, recipe.models[0].taxonomy
    novelty = None
    if fitted.ood is not None:
        numbers = {name: float(fitted.ood[name]) for name in ("passing", "threshold")}
        novelty = {"file": OOD_FILE, **numbers}
    return Manifest.sealed(
        classes=[asdict(diagnosis) for diagnosis in taxonomy.diagnoses],
        taxonomy=taxonomy.to_dict(),
        metadata=recipe.models[0].encoder.state(),
        preprocessing=PREPROCESSING,
        members=[_member(model) for model in recipe.models],
        specialist_member=None if recipe.specialist is None else _member(recipe.specialist),
        graph=graph,
        parity={precision: found.as_dict() for precision, found in parity.items()},
        versions={"skinlesion": __version__, **{package: version(package) for package in _PACKAGES}},
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
        licence=_licence([*recipe.models, *([] if recipe.specialist is None else [recipe.specialist])]),
        note=NOTE,
        precision=recipe.precision,
        tta=recipe.tta,
        calibration=fitted.calibration,
        decision=fitted.decision,
        operating_points=fitted.operating_points,
        conformal=fitted.conformal,
        novelty=novelty,
        specialist=fitted.specialist,
    )


def _licence(models: Sequence[TrainedModel]) -> str:
    """HAM10000's for models that were trained on it, else that of the data, which is not known."""
    if any(model.is_of_ham10000 for model in models):
        return LICENCE
    return OTHER_LICENCE.format(table=", ".join(sorted({model.table for model in models})))


def _member(model: TrainedModel) -> Member:
    return Member(
        name=model.name,
        backbone=str(model.config["model"]["backbone"]),
        size=model.spec.size,
        mean=model.spec.mean,
        std=model.spec.std,
        sha256=file_digest(model.path),
        padded=model.spec.padded,
        **asdict(model.spec.treatment),
    )


def model_card(about: Manifest) -> str:
    """Fill in the model card of a bundle, Markdown."""
    member, rule = about.specialist_member, about.specialist
    correction = "" if member is None or rule is None else correction_in_words(rule, member.name, about.diagnoses)
    return _CARD.read_text(encoding="utf-8").format(
        note=about.note[0].upper() + about.note[1:],
        count=f"{len(about.members)} members" if len(about.members) > 1 else "one member",
        facts=", ".join(f"{fact.name} ({fact.unit})" if fact.unit else fact.name for fact in about.encoder.facts),
        format=about.format,
        number=about.diagnoses.count,
        precision=about.precision,
        opset=about.graph.opset,
        classes="\n".join(_row(each.code, each.name, each.category) for each in about.classes),
        calibration="none" if about.calibration is None else f"{about.calibration.get('method')} scaling",
        conformal="none" if not about.conformal else ", ".join(f"risk {entry['alpha']}" for entry in about.conformal),
        operating=len(about.operating_points or []) or "none",
        novelty="not flagged" if about.novelty is None else "flagged",
        members="\n".join(_row(each.name, each.backbone, f"{each.size[0]} x {each.size[1]}") for each in about.members),
        tta=about.tta,
        specialist=f" {correction}" if correction else "",
        agreement="\n".join(sentence(precision, found) for precision, found in about.parity.items()),
        graph=about.graph.file,
        licence=about.licence,
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def compare(expected: Predictions, found: Predictions) -> Agreement:
    """Compare the predictions of a bundle with those of the models, for the same images."""
    assert found.members is not None and expected.members is not None  # noqa: PT018
    mine, others = found.members.astype(np.float64), expected.members  # (M, N, K)
    vote, other = found.probabilities.astype(np.float64), expected.probabilities.astype(np.float64)  # (N, K)
    return Agreement(
        images=len(vote),
        largest_difference=float(np.abs(vote - other).max()),
        mean_difference=float(np.abs(vote - other).mean()),
        largest_of_a_member=float(np.abs(mine - others).max()),
        same_diagnosis=float((vote.argmax(axis=1) == other.argmax(axis=1)).mean()),
        taken_for_novel=None if found.ood is None else float(found.ood.mean()),
    )


def require_parity(found: Agreement) -> None:
    """Refuse a graph of full precision that differs from PyTorch.

    Raises:
        BundleError: It says by how much.
    """
    largest = max(found.largest_of_a_member, found.largest_difference, key=lambda each: (math.isnan(each), each))
    if not largest <= TOLERANCE:  # NaN differs too
        raise BundleError(
            f"the graph differs from PyTorch by {largest:.2g} in a probability (allowed: {TOLERANCE:g}), so no bundle "
            "is written; please report it with the backbone and the versions of torch and onnxruntime"
        )


def sentence(precision: str, found: Mapping[str, float]) -> str:
    """Put an agreement, as in bundle.json, into words."""
    flagged = f"; {found['taken_for_novel']:.1%} are flagged as unlike training" if "taken_for_novel" in found else ""
    return (
        f"{precision}: the same likeliest diagnosis for {found['same_diagnosis']:.1%} of {found['images']} "
        f"validation images; probabilities differ by {found['largest_difference']:.2g} at most, by "
        f"{found['mean_difference']:.2g} on average{flagged}."
    )


def require_one_encoder(models: Sequence[TrainedModel]) -> None:
    """Refuse members that encode metadata in different ways: a bundle has one input for them.

    Raises:
        CheckpointError: It names the first that differs.
    """
    for model in models[1:]:
        if model.encoder != models[0].encoder:
            raise CheckpointError(
                f"{model.path}: learned other facts, or other values of them, than {models[0].path}; "
                "export members that were trained on the same table"
            )


@contextmanager
def replacing_bundle(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it to `folder` if the block succeeds, delete it otherwise.

    Raises:
        ConfigError: There is something at `folder` that is not a bundle.
    """
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not (folder / manifest.FILE).is_file() and not is_empty:
        raise ConfigError(f"out={folder}: there is something else; give an empty folder, a bundle's or a new one")
    with replacing_folder(folder) as beside:
        yield beside


def _agreement(recipe: Recipe, folder: Path, graph: Graph, val: pd.DataFrame, expected: Predictions) -> Agreement:
    members = OnnxMembers(describe(recipe, folder, graph, parity={}), open_session(folder / graph.file))
    fitted = PostHoc(ood=recipe.posthoc.ood, specialist=recipe.posthoc.specialist)
    predictor = Predictor(members, folder, fitted, recipe.models[0].taxonomy)
    return compare(expected, predictor.predict_frame(val, label="predicting with the bundle"))

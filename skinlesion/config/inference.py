"""The schemas of `skinlesion ensemble`, `evaluate`, `compare` and `predict`."""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import yaml

from skinlesion.config.data import ColumnsConfig, LoaderConfig, SourceConfig
from skinlesion.config.reference import choices
from skinlesion.config.schema import (
    PATH,
    BootstrapKeys,
    Count,
    OneOf,
    PathText,
    Range,
    Share,
    Tta,
    check_annotations,
    require,
    require_choice,
    require_one_model,
    require_shares,
)
from skinlesion.files import config_dir

Decision = Annotated[str, OneOf(("likeliest", "balanced"))]


@dataclass
class EnsembleConfig(BootstrapKeys):
    """`skinlesion ensemble`."""

    members: Annotated[Any, PATH]  # folder of a sweep, a list of checkpoints, or one model
    expected: Annotated[int, Range(2)] | None  # number of members; null: the number that the sweep announced, or any
    out: PathText | None  # folder of the ensemble; null: `ensemble` in the sweep's folder
    split: Annotated[str, OneOf(("val", "test"))]  # test: the test part is read too, once all is chosen; it is recorded
    protocol: PathText | None  # YAML file of hypothesis, members and vote: split=val fixes it, split=test checks it
    specialist: PathText | None  # checkpoint of two classes that corrects the vote on one diagnosis; null: none
    tta: Tta  # test-time augmentation: which flips and turns of an image are averaged
    smallest: Count  # smallest number of members in the subsets that are searched
    largest: Count  # largest number of members in the subsets that are searched
    calibration: Annotated[
        str, OneOf(("auto", "none", "temperature", "bias", "vector"))
    ]  # scaling of the members' mean; auto: the simplest that is as good as the best on left-out lesions, within noise
    decision: Decision  # predicted diagnosis: the vote's likeliest, or that of the largest probability by prevalence
    sensitivities: list[float]  # sensitivities that the operating points reach on validation, 0 to 1
    alphas: list[float]  # shares of images whose prediction set may miss the diagnosis, 0 to 1; the first is in use
    conformal: Annotated[str, OneOf(("aps", "raps"))]  # score of the prediction sets
    id_pass_rate: Share | None  # share of validation images not flagged out-of-distribution; null: nothing is flagged
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors
    accelerator: str  # device for members without predictions tables: auto, cpu, gpu
    data: SourceConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        listed = isinstance(self.members, list) and all(isinstance(member, str) for member in self.members)
        named = (isinstance(self.members, str) or listed) and len(self.members) > 0
        require(named, "members", self.members, "a sweep's folder, a list of checkpoints, or one model")
        require(self.smallest <= self.largest, "smallest", self.smallest, f"1 to {self.largest} (largest)")
        require(not listed or self.out is not None, "out", self.out, "a folder, where members is a list")
        require_shares("sensitivities", self.sensitivities, "0.9")
        require_shares("alphas", self.alphas, "0.1")


@dataclass
class ExternalConfig:
    """Images of another source, instead of a part of the split."""

    data: Annotated[str, OneOf(choices("data"))] | None  # public data set, as data= of train; also typed so
    root: PathText | None  # folder of the public data set; null: where `download` puts it
    images: Annotated[Any, PATH]  # folder of images, named by image id, or an .npz; null: a part of the split is judged
    labels: PathText | None  # CSV of diagnoses (a column a class, or dx), or an .npz; folders: images lie by diagnosis
    metadata: PathText | None  # CSV of the patients' facts by image id; null: the label file's own, if any
    missing_images: Annotated[str, OneOf(("error", "drop"))]  # what to do with rows that have no image
    extra_images: Annotated[str, OneOf(("error", "ignore"))]  # what to do with images that have no row
    torn: Annotated[str, OneOf(("error", "drop"))]  # what to do with lesions that have more than one diagnosis
    leakage: Annotated[str, OneOf(("drop", "keep"))]  # what to do with images that training or validation had too
    distance: Annotated[int, Range(0, 32)]  # near duplicates: most differing bits of their 64-bit perceptual hashes
    similarity: Annotated[float, Range(0, 1, above=True)]  # near duplicates: least correlation of their fine detail
    groups: PathText | None  # CSV image_id,group of images that are resampled together; null: by patient, else lesion
    columns: ColumnsConfig
    facts: dict[str, str]  # column of each fact of the model, where it has no usual name
    classes: dict[str, str]  # diagnosis code, drop or error for each word of the label file
    target: str | None  # code or malignant: judged against all else; null: malignant where labels say no more, else all
    taxonomy: str  # name of the diagnoses of a submission, such as isic2019; a model has its own
    localizations: dict[str, str]  # localization known to the model for each one of the label file that is not

    def __post_init__(self) -> None:
        if self.data is not None:
            require_choice("external.data", self.data, choices("data"))
            _fill_in(self, yaml.safe_load((config_dir() / "data" / f"{self.data}.yaml").read_text(encoding="utf-8")))

    @property
    def folders(self) -> list[Path]:
        """The folders of the images."""
        return [Path(each).expanduser() for each in (self.images if isinstance(self.images, list) else [self.images])]


def _merged(usual: Any, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {**usual, **given} if isinstance(usual, dict) else replace(usual, **given)


def _fill_in(external: ExternalConfig, preset: dict[str, Any]) -> None:
    """Say where a public data set lies and how its columns are called, as far as that is not given."""
    root = Path(external.root or preset["root"])
    external.images = external.images or [str(root / name) for name in preset["images"]]
    external.labels = external.labels or str(root / preset["table"])
    external.metadata = external.metadata or (str(root / preset["metadata"]) if preset.get("metadata") else None)
    named = {role: column for role, column in vars(external.columns).items() if column is not None}
    external.columns = ColumnsConfig(**{**preset.get("columns", {}), **named})
    columns = {fact: about["column"] for fact, about in preset.get("facts", {}).items() if about.get("column")}
    external.facts = {**columns, **external.facts}
    external.classes = {**(preset.get("classes") or {}), **external.classes}
    if preset.get("missing_images") == "drop":
        external.missing_images = "drop"


@dataclass
class EvaluateConfig(BootstrapKeys):
    """`skinlesion evaluate`."""

    checkpoint: PathText | None  # checkpoint to evaluate, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to evaluate: ensemble.json, or its folder
    submission: PathText | None  # challenge CSV of probabilities to evaluate against external.labels, without a model
    split: str | None  # part of the split to evaluate: val or test; null: external images or a submission
    protocol: PathText | None  # YAML file of hypothesis, members and vote: split=val fixes it, split=test checks it
    out: PathText | None  # folder of the results; null: a folder beside the model
    calibrated: bool  # whether an ensemble's calibrated probabilities are measured too
    decision: Decision | None  # predicted diagnosis: the likeliest or balanced, by prevalence; null: the model's own
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    bins: Annotated[int, Range(2)]  # number of bins of the reliability diagram
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    data: SourceConfig
    external: ExternalConfig
    external_sets: dict[str, Any]  # several sets at once, by name: {images: FOLDER, labels: CSV}, and keys of external
    loader: LoaderConfig

    def __post_init__(self) -> None:
        if self.submission is None:
            require_one_model(self.checkpoint, self.ensemble)
        if self.external_sets:
            other = self.split or self.submission or self.external.images or self.external.labels
            expected = "null beside external_sets, and external without images and labels"
            require(other is None, "split, submission, external.images or external.labels", other, expected)
            self.sets()
        else:
            self._check_images()

    def sets(self) -> dict[str, ExternalConfig]:
        """The external sets by name: what each does not say is as in `external`.

        Raises:
            ConfigError: A set lacks images or labels, or has an unknown key or a wrong value.
        """
        found, known = {}, [field.name for field in fields(ExternalConfig)]
        for name, given in self.external_sets.items():
            key = f"external_sets.{name}"
            require(re.fullmatch(r"\w[\w.-]*", name) is not None, key, name, "a name without blanks and slashes")
            is_set = isinstance(given, dict) and ({"images", "labels"} <= given.keys() or "data" in given)
            require(is_set, key, given, "{images: FOLDER, labels: CSV}, or {data: NAME} of a public set")
            for other in given.keys() - {*known}:
                require_choice(f"{key}.KEY", str(other), known)
            merged = {key: _merged(getattr(self.external, key), value) for key, value in given.items()}
            found[name] = replace(self.external, **merged)
            check_annotations(found[name], f"{key}.")
        return found

    def _check_images(self) -> None:
        """Refuse anything but a part of the split, images of another source, or a submission and its labels."""
        other = self.external
        fits = self.protocol is None or self.split is not None
        require(fits, "protocol", self.protocol, "null, where no part of the split is evaluated")
        if self.submission is not None:
            alone = self.checkpoint is None and self.ensemble is None and other.images is None
            expected = "no model and no images beside it: a submission holds the probabilities"
            require(alone, "submission", self.submission, expected)
        if self.submission is None and other.images is None:
            expected = (
                "val or test, or images of another source as external.images=FOLDER external.labels=CSV, or data=NAME"
            )
            require(self.split in ("val", "test"), "split", self.split, expected)
            given = other.labels is not None or other.metadata is not None
            require(not given, "external.images", other.images, "the folder of the images")
        else:
            require(self.split is None, "split", self.split, "null, where external.images or submission is given")
            expected = "the CSV of the images' diagnoses, or folders where images lie in folders named after them"
            require(other.labels is not None, "external.labels", other.labels, expected)


@dataclass
class CompareConfig(BootstrapKeys):
    """`skinlesion compare`."""

    tables: list[
        PathText
    ]  # predictions tables, the reference first; those of a pattern (*) are pooled unless of the same images
    recipes: list[PathText]  # instead: a pattern a recipe, the reference first, of the tables of its training seeds
    out: PathText | None  # JSON file of all numbers; null: none is written
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors

    def __post_init__(self) -> None:
        given = bool(self.tables) + bool(self.recipes)
        require(given == 1, "tables", self.tables, "predictions tables, or recipes=[...] instead of them")
        for key, each in (("tables", self.tables), ("recipes", self.recipes)):
            require(len(set(each)) == len(each), key, each, "each of them once")


@dataclass
class FoldsConfig:
    """`skinlesion folds`."""

    out: PathText  # folder of fold0, fold1, ..., each with its members and its ensemble, and of pooled.json
    folds: list[Annotated[int, Range(0)]]  # numbers of the folds
    members: dict[str, str]  # overrides of `train` by the member's folder; {out} and {fold} are filled in
    overrides: str  # of every training, with blanks between them, such as data.root=data
    ensemble: str  # overrides of every `ensemble`, such as tta=flips
    compare: str  # overrides of `compare`, which judges all folds together

    def __post_init__(self) -> None:
        require(len(self.folds) > 0, "folds", self.folds, "at least one fold")
        require(len(self.members) > 0, "members", {}, "at least one member")


Age = Annotated[int | float | str, Range(0, 120)]


@dataclass
class PredictConfig:
    """`skinlesion predict`."""

    image: PathText | None  # image file, a folder of images, or an .npz of MedMNIST
    images: PathText | None  # instead: folder of images or .npz, with facts of each in a table
    facts: PathText | None  # CSV of age, sex and localization by image id, for images; null: unknown
    out: PathText | None  # file that is written instead of stdout
    checkpoint: PathText | None  # checkpoint that predicts, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble that predicts: ensemble.json, or its folder
    bundle: PathText | None  # folder of an exported bundle that predicts, which needs no torch and runs on the CPU
    age: Age | None  # age of the patient in years; null: unknown
    sex: str | None  # sex of the patient: female or male; null: unknown
    localization: str | None  # site of the lesion as in HAM10000: back, face, scalp, ...; null: unknown
    fact: dict[str, Any]  # further facts that the model knows, by name, such as fact.diameter=5; none: unknown
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    calibrated: bool  # whether an ensemble's probabilities are calibrated; false: the members' mean
    decision: Decision | None  # predicted diagnosis: the likeliest or balanced, by prevalence; null: the model's own
    format: Annotated[str, OneOf(("table", "csv", "json"))]  # output format
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    loader: LoaderConfig

    def __post_init__(self) -> None:
        one = (self.image is None) != (self.images is None)
        require(one, "image", self.image, "an image or a folder, or images=FOLDER facts=TABLE instead")
        alike = (self.age, self.sex, self.localization, self.fact) == (None, None, None, {})
        require(self.facts is None or alike, "facts", self.facts, "null beside the facts of one patient")
        if self.bundle is None:
            require_one_model(self.checkpoint, self.ensemble, otherwise=" or bundle=FOLDER")
        alone = self.bundle is None or (self.checkpoint is None and self.ensemble is None)
        require(alone, "bundle", self.bundle, "no checkpoint and no ensemble beside it")
        require(self.bundle is None or self.tta is None, "tta", self.tta, "null with a bundle, which has its own")

"""Where images and tables are, how lesions are split, how training images are changed and batched."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from skinlesion.config.schema import (
    Count,
    OneOf,
    PathText,
    Range,
    Seed,
    require,
    require_classes,
    require_size,
)

_Probability = Annotated[float, Range(0, 1)]
_Fraction = Annotated[float, Range(0, 0.9)]


RESERVED = {
    *("image", "image_id", "lesion_id", "diagnosis", "dx", "dx_type", "dataset", "path", "patient_id", "group_id"),
    *("images", "facts", "names", "calibrated", "batch", "effects", "risk", "layer"),
}
"""Names that no fact may have: columns of tables, and the arguments and form fields that stand beside facts."""


@dataclass
class ColumnsConfig:
    """Names of the columns in the tables; null: the usual names of the public sets."""

    image: str | None = None  # column of image ids or file names
    diagnosis: str | None = None  # column of diagnoses
    lesion: str | None = None  # column of lesion ids
    patient: str | None = None  # column of patient ids
    source: str | None = None  # column of where an image is from, such as a clinic
    confirmation: str | None = None  # column of how a diagnosis was made


@dataclass
class FactConfig:
    """A fact about the patient or the lesion."""

    kind: Annotated[str, OneOf(("number", "category"))]  # number: standardised; category: a column for each value
    column: str | None = None  # its column; null: the fact's own name or a usual one
    unit: str = ""  # unit of a number, such as mm
    low: float | None = None  # least number that can be right; null: any
    high: float | None = None  # largest number that can be right; null: any


def default_facts() -> dict[str, FactConfig]:
    """Age, sex and localization."""
    age = FactConfig("number", unit="years", low=0.0, high=120.0)
    return {"age": age, "sex": FactConfig("category"), "localization": FactConfig("category")}


def check_facts(key: str, facts: Mapping[str, FactConfig]) -> None:
    """Refuse no fact at all, a name that means something else, and a range of a category or without a number in it."""
    require(len(facts) > 0, key, "{}", "at least one fact; model.fusion=none trains on the images alone")
    for name, each in facts.items():
        require(name.isidentifier() and name not in RESERVED, f"{key}.{name}", each.kind, "another name, such as itch")
        kind = "number" if name == "age" else "category"
        fits = name not in ("age", "sex", "localization") or each.kind == kind
        require(fits, f"{key}.{name}.kind", each.kind, f"{kind}, or a fact of another name with column=")
        ends = [end for end in (each.low, each.high) if end is not None]
        is_range = not ends or (each.kind == "number" and sorted(ends) == ends)
        require(is_range, f"{key}.{name}.low", each.low, f"at most high={each.high}, and kind=number")


@dataclass
class DataConfig:
    """The images and the table, and how they are read."""

    root: PathText  # folder that holds the tables and the image folders
    table: PathText  # table in data.root: HAM10000's, a label file, an .npz of MedMNIST; folders: images by diagnosis
    metadata: PathText | None  # file name of the patients' facts in data.root; null: the table holds them
    images: list[PathText]  # names of the image folders in data.root
    classes: dict[str, str] | None  # code, drop or error for each word of a label file; null: HAM10000's table
    missing_images: Annotated[str, OneOf(("error", "drop"))]  # what to do with rows of the table that have no image
    extra_images: Annotated[str, OneOf(("error", "ignore"))]  # what to do with images that have no row in the table
    cache_dir: PathText  # folder of decoded images and frozen features; safe to delete
    stream: PathText | None  # where decoded images are kept that no disk holds: folder, s3://, gs://; null: cache_dir
    stream_gb: Annotated[float, Range(4)]  # most that copies of them take in data.cache_dir, in GB
    groups: PathText | None  # CSV image_id,group of images to keep together, such as groups.csv of audit
    columns: ColumnsConfig
    facts: dict[str, FactConfig]

    def __post_init__(self) -> None:
        check_facts("data.facts", self.facts)
        require(len(self.images) > 0, "data.images", self.images, "at least one folder name")
        beside = self.metadata is None or self.classes is not None or self.table == "folders"
        require(beside, "data.metadata", self.metadata, "null, as HAM10000's table holds the facts (data.classes=null)")


def restore_data_config(settings: Mapping[str, Any]) -> DataConfig:
    """The data settings of a training run, of whichever version, without those that only training has."""
    earlier = {"metadata": None, "classes": None, "groups": None, "stream": None, "stream_gb": 20.0}  # there were none
    known = {**earlier, **settings}
    known["columns"] = ColumnsConfig(**known.get("columns") or {})
    facts = known.get("facts") or {}
    known["facts"] = {name: FactConfig(**each) for name, each in facts.items()} or default_facts()
    return DataConfig(**{field.name: known[field.name] for field in fields(DataConfig)})


@dataclass
class TrainingDataConfig(DataConfig):
    """The images and the table, and how they are read."""

    augment_on: Annotated[str, OneOf(("cpu", "device"))]  # where training images are augmented; device: the GPU
    hair: Annotated[str, OneOf(("keep", "remove"))]  # whether hairs are painted over, in training and in every use
    colour_constancy: Annotated[str, OneOf(("none", "shades_of_gray"))]  # whether the light's colour is removed


Category = Annotated[str, OneOf(("benign", "premalignant", "malignant", "unknown"))]


@dataclass
class DiagnosisConfig:
    """One diagnosis."""

    name: str | None = None  # for people; null: the code
    category: Category | None = None  # what it counts as; null: that of its code or name in conf/words/diagnoses.yaml


@dataclass
class TaxonomyConfig:
    """The diagnoses that are told apart."""

    name: str  # name of the taxonomy
    infer: bool  # whether the diagnoses are those of the table: its words, where the taxonomy does not know them
    majority: str | None  # code whose lesions with several images split.policy=published leaves out; null: none
    targets: list[str]  # codes or categories for which operating points are chosen
    premalignant_as: Annotated[str, OneOf(("benign", "malignant"))]  # category as which premalignant diagnoses count
    submission_order: list[str] | None  # codes in the order of a challenge's CSV files; null: class order
    words: dict[str, str]  # code, drop or error for each word of a table that is neither code nor name
    diagnoses: dict[str, DiagnosisConfig]  # the diagnoses by code, in class order; ~taxonomy.diagnoses.CODE drops one

    def __post_init__(self) -> None:
        fits = self.infer or len(self.diagnoses) > 1
        require(fits, "taxonomy.diagnoses", list(self.diagnoses), "two codes or more, or taxonomy=infer")


def require_known_classes(data: DataConfig, taxonomy: TaxonomyConfig) -> None:
    """Refuse a word of the table that stands for no diagnosis of the taxonomy."""
    if not taxonomy.infer:
        require_classes("data.classes", data.classes or {}, taxonomy.diagnoses)


@dataclass
class SourceConfig:
    """Where a trained model finds its images."""

    root: PathText | None  # folder that holds the table and the image folders; null: where the model was trained
    cache_dir: PathText | None  # folder of decoded images, safe to delete; null: where the model was trained
    stream: PathText | None = None  # where decoded images are kept that no disk holds; null: cache_dir


@dataclass
class SplitConfig:
    """How lesions are divided into training, validation and test."""

    policy: Annotated[str, OneOf(("published", "grouped", "file"))]  # how the parts are made
    seed: Annotated[int, Range(0)]  # seed of the shuffles (published, grouped, and validation from a file of folds)
    folds: Annotated[int, Range(2)]  # number of folds (grouped)
    fold: Annotated[int, Range(0)]  # the fold that is the test part, counted from 0 (grouped, and a file of folds)
    val_fraction: Annotated[float, Range(0, 0.5, above=True, below=True)]  # share of the rest that validates (likewise)
    calibration_fraction: (
        Annotated[float, Range(0, 1, above=True, below=True)] | None
    )  # share of validation lesions that choose neither epoch nor members: calibration, thresholds; null: none
    file: PathText | None  # CSV of a split (image_id, split) or of folds (image_id, fold), or MedMNIST's .npz (file)

    def __post_init__(self) -> None:
        fits = self.fold < self.folds or self.policy == "file"  # a file has folds of its own
        require(fits, "split.fold", self.fold, f"0 to {self.folds - 1} (split.folds - 1)")
        given = self.policy != "file" or self.file is not None
        require(given, "split.file", self.file, "the CSV of a split or of folds, or an .npz of MedMNIST")


@dataclass
class AugmentConfig:
    """Random changes of training images.

    The defaults are those of the published recipe (Corvus333-dev/SkinCancer, README of 2025).
    """

    flip: _Probability = 0.5  # probability of a flip, horizontal and vertical each
    rotation: Annotated[float, Range(0, 180)] = 45.0  # largest rotation in degrees, either way
    shift: _Fraction = 0.075  # largest shift as a fraction of the side, either way
    zoom: _Fraction = 0.15  # largest change of scale as a fraction, either way
    brightness: _Fraction = 0.15  # largest change of brightness as a fraction of the full range, either way
    contrast: _Fraction = 0.15  # largest change of contrast as a fraction, either way
    hue: Annotated[float, Range(0, 0.5)] = 0.0  # largest change of hue as a fraction of the colour circle, either way
    saturation: _Fraction = 0.0  # largest change of saturation as a fraction, either way
    square: _Probability = 0.0  # probability that an image is cropped to a square, as a square photograph would be
    square_side: Annotated[float, Range(0.1, 1)] = 1.0  # smallest side of that square, a fraction of the shorter side


@dataclass
class LoaderConfig:
    """How batches are made."""

    batch_size: Annotated[int, Range(2)]  # batch size in images
    workers: Annotated[int, Range(0)]  # number of processes that load images; 0: the main process itself


@dataclass
class SyntheticRootConfig:
    """Where the synthetic data set goes."""

    root: PathText  # folder of the data set, which holds nothing else


@dataclass
class SyntheticConfig:
    """`skinlesion synthetic`."""

    n: Count  # number of images
    min_per_class: Count  # least number of images of each diagnosis, 13 or more; the rest as frequent as in HAM10000
    image_size: list[int]  # height and width of the images in pixels, 32 or more
    seed: Seed  # seed of the drawings and of the table
    data: SyntheticRootConfig

    def __post_init__(self) -> None:
        require_size("image_size", self.image_size, least=32)


@dataclass
class RemoteFileConfig:
    """A file of a data set, where it is published."""

    name: str  # name of the file in data.root
    url: str  # address of the file
    bytes: int | None  # size of the file in bytes; null: as the host says
    md5: str | None  # published MD5, in hexadecimal digits; null: not known
    sha256: str | None  # published SHA-256, in hexadecimal digits; null: not known
    unpack: PathText | None  # folder in data.root that the archive is unpacked to; null: it is no archive
    images: int | None  # number of images in the archive; null: not known


@dataclass
class DatasetConfig:
    """A public data set."""

    title: str  # name for people
    root: PathText  # usual folder of the data set
    page: str  # page of the data set, for the licence and for a download by hand
    licence: str  # licence of the images
    collection: int | None  # number of a collection of the ISIC archive, fetched by isic-cli; null: files are fetched
    next: str  # command that reads the data set; {root} stands for its folder
    files: dict[str, RemoteFileConfig]  # the files, by a short name


@dataclass
class DownloadRootConfig:
    """Where the data set goes."""

    root: PathText  # folder of the data set


@dataclass
class DownloadConfig:
    """`skinlesion download`."""

    data: DownloadRootConfig
    accept_licence: bool  # whether you accept the licence of the data set, which the command shows
    retries: Annotated[int, Range(0)]  # how often a connection that breaks is tried again without a byte of progress
    wait: Annotated[float, Range(0)]  # wait before another try in seconds
    timeout: Annotated[float, Range(1)]  # longest silence of the host in seconds
    dataset: DatasetConfig

"""The schemas of the studies: `skinlesion audit`, `robustness`, `explain`, `probe`, `report`, `verify` and `tune`."""

from dataclasses import dataclass
from typing import Annotated, Any

from skinlesion.config.data import DataConfig, SourceConfig, SplitConfig, TaxonomyConfig, require_known_classes
from skinlesion.config.inference import Age
from skinlesion.config.schema import (
    BootstrapKeys,
    Count,
    OneOf,
    PathText,
    Range,
    Seed,
    Share,
    Tta,
    require,
    require_one_model,
    require_size,
)
from skinlesion.errors import ConfigError

_Part = Annotated[str, OneOf(("val", "test"))]


@dataclass
class AuditConfig:
    """`skinlesion audit`."""

    out: PathText  # folder of the results
    distance: Annotated[int, Range(0, 32)]  # near duplicates: most differing bits of their 64-bit perceptual hashes
    similarity: Annotated[float, Range(0, 1, above=True)]  # near duplicates: least correlation of their fine detail
    image_size: list[int]  # height and width in pixels at which images are compared and shown, 32 or more
    samples_per_class: Annotated[int, Range(1, 20)]  # images of each diagnosis on the sample sheet
    seed: Seed  # seed of the sample sheet
    taxonomy: TaxonomyConfig
    data: DataConfig
    split: SplitConfig

    def __post_init__(self) -> None:
        require_size("image_size", self.image_size, least=32)
        require_known_classes(self.data, self.taxonomy)


@dataclass
class RobustnessConfig(BootstrapKeys):
    """`skinlesion robustness`."""

    checkpoint: PathText | None  # checkpoint to study, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to study: ensemble.json, or its folder
    split: _Part  # part of the split whose images are corrupted
    images: Annotated[int, Range(2)] | None  # number of images drawn from that part; null: all
    out: PathText | None  # folder of the results; null: `robustness` beside the model
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    steps: dict[str, Any]  # severities of each corruption; ~steps.NAME leaves one out
    id_pass_rate: Share | None  # share of validation images not flagged out-of-distribution; null: nothing is flagged
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    data: SourceConfig

    def __post_init__(self) -> None:
        require_one_model(self.checkpoint, self.ensemble)


@dataclass
class ExplainConfig(BootstrapKeys):
    """`skinlesion explain`."""

    image: PathText | None  # image file to explain; null: the maps of a part of the split are checked instead
    split: _Part | None  # part of the split whose maps are checked; null: one image is explained
    checkpoint: PathText | None  # checkpoint to explain, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to explain: ensemble.json, or its folder
    class_: str | None  # code of the diagnosis to explain; null: the predicted diagnosis
    age: Age | None  # age of the patient in years; null: unknown
    sex: str | None  # sex of the patient: female or male; null: unknown
    localization: str | None  # site of the lesion as in HAM10000: back, face, scalp, ...; null: unknown
    fact: dict[str, Any]  # further facts that the model knows, by name, such as fact.diameter=5; none: unknown
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    out: PathText | None  # folder of the results; null: `explanations` beside the model
    images: Annotated[int, Range(2)] | None  # number of images drawn from the part of the split; null: all
    cases: PathText | None  # folder that `probe` wrote, whose most similar training images are shown; null: none
    masks: PathText | None  # folder of binary lesion masks, PNG files named by image id; null: none
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    data: SourceConfig

    def __post_init__(self) -> None:
        require_one_model(self.checkpoint, self.ensemble)
        if (self.image is None) == (self.split is None):
            raise ConfigError("expected image=FILE, to be explained, or split=val, to check the maps of that part")


@dataclass
class ProbeConfig(BootstrapKeys):
    """`skinlesion probe`."""

    out: PathText  # folder of the results
    backbones: list[str]  # networks whose embeddings stand side by side: timm's names, checkpoints or folders of runs
    pretrained: bool | PathText  # true: timm's hub; false: random; a weight file; a folder of files NAME.safetensors
    image_size: list[int] | None  # height and width in pixels for networks of timm; null: each network's own
    hair: Annotated[str, OneOf(("keep", "remove"))]  # whether hairs are painted over; a checkpoint has its own
    colour_constancy: Annotated[str, OneOf(("none", "shades_of_gray"))]  # whether the light's colour is removed
    facts: bool  # whether the facts about the patient stand beside the embedding
    classifiers: list[Annotated[str, OneOf(("logistic", "linear", "knn", "network"))]]  # which learn from it
    alpha: Annotated[float, Range(0)]  # exponent of the inverse class frequency that images weigh; 0: all alike
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors
    data: DataConfig
    taxonomy: TaxonomyConfig
    split: SplitConfig

    def __post_init__(self) -> None:
        require_known_classes(self.data, self.taxonomy)
        require(len(self.backbones) > 0, "backbones", self.backbones, "at least one network")
        require(len(self.classifiers) > 0, "classifiers", self.classifiers, "at least one")
        require_size("image_size", self.image_size, least=16)


@dataclass
class ReportConfig(BootstrapKeys):
    """`skinlesion report`."""

    ensemble: PathText  # ensemble to report on: ensemble.json, or its folder
    out: PathText | None  # folder of the report; null: `report` beside the ensemble
    metadata: PathText | None  # table of sex, age, localization, dataset and dx_type; null: that of the training
    robustness: PathText | None  # folder that `robustness` wrote; null: the one beside the ensemble, if any
    explanations: PathText | None  # folder that `explain` wrote; null: the one beside the ensemble, if any
    external: list[PathText]  # folders that `evaluate external.images=...` wrote; []: the one beside the ensemble
    samples: bool  # whether the page shows patients' photographs; keep false where it is to be passed on
    author: str | None  # who answers for the model; null: left open in the report
    prevalence: dict[
        str, float | None
    ]  # share of images that show each target where the model would be used, 0 to 1; null: that of the test part
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors and diagrams

    def __post_init__(self) -> None:
        require(len(self.ensemble) > 0, "ensemble", self.ensemble, "an ensemble.json or its folder")
        for target, share in self.prevalence.items():
            require(share is None or 0 < share < 1, f"prevalence.{target}", share, "more than 0, less than 1, or null")


@dataclass
class VerifyConfig(BootstrapKeys):
    """`skinlesion verify`."""

    root: PathText  # folder of the repository's clone, whose pages are checked
    folder: PathText  # folder of the shipped predictions tables
    write: bool  # whether the pages' tables are written anew instead of checked
    tables: PathText  # YAML file that says what each table is made of


@dataclass
class TuneConfig:
    """`skinlesion tune`."""

    out: PathText  # folder of the study: trial-000, trial-001, ..., best.yaml and figures
    overrides: str  # of every training, with blanks between them, such as data.root=data
    space: dict[str, Any]  # for each key of train: {low, high, log}, or a list of choices
    trials: Count  # trials of the study, of all workers together
    metric: Annotated[
        str, OneOf(("macro_f1", "accuracy", "loss"))
    ]  # on validation, of the epoch that is kept; mean over seeds and folds
    seeds: list[Seed]  # seeds of training; a trial trains once with each
    folds: list[Annotated[int, Range(0)]] | None  # values of split.fold; a trial trains once on each; null: the split's
    pruner: Annotated[
        str, OneOf(("median", "hyperband", "none"))
    ]  # ends trials that are worse than others at the same epoch
    startup: Annotated[int, Range(0)]  # trials that are drawn at random and not pruned, at the beginning
    warmup: Annotated[int, Range(0)]  # epochs of a trial before it may be pruned
    storage: str  # sqlite or journal: a file in out, journal for disks that machines share; or a database's URL
    study: str  # name of the study in the database
    seed: Seed  # seed of the search

    def __post_init__(self) -> None:
        require(len(self.space) > 0, "space", {}, "at least one key of train")
        require(len({*self.seeds}) == len(self.seeds) > 0, "seeds", self.seeds, "one seed or more, each once")
        folds = self.folds
        require(folds is None or len({*folds}) == len(folds) > 0, "folds", folds, "null, or folds, each once")
        is_url = "://" in self.storage
        require(self.storage in ("sqlite", "journal") or is_url, "storage", self.storage, "sqlite, journal or a URL")

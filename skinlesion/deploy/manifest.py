"""bundle.json: the facts that a bundle's users need, checked strictly when it is read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skinlesion import __version__
from skinlesion.config.schema import Count, FileName, OneOf, Positive, Range, Sha256, Tta
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.errors import BundleError, SkinlesionError
from skinlesion.files import file_digest, first_fault
from skinlesion.inference.fitted import Fitted
from skinlesion.taxonomy import HAM10000, Taxonomy

FILE = "bundle.json"
FORMATS = {1: 4, 2: 0}
"""Minor format by major one: 2 is that of bundles with a specialist. Major: raised when an older program would misread
a bundle. Minor: raised when keys are added that it may ignore."""

NOTE = "research use only, not a medical device"
LICENCE = (
    "CC BY-NC 4.0: weights trained on HAM10000 (Tschandl, Rosendahl & Kittler, doi:10.1038/sdata.2018.161) are for "
    "non-commercial research with attribution, as the data set is"
)
OTHER_LICENCE = "licence: that of the data which the weights were trained on ({table})"


_Rgb = Annotated[float, Range(0, 1)]
_THREE = Field(min_length=3, max_length=3)  # red, green and blue


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Member(_Part):
    """One of the models that vote."""

    name: str  # name of its run
    backbone: str  # timm's name of its network
    size: tuple[Count, Count]  # (height, width) in pixels to which images are fitted
    mean: Annotated[tuple[_Rgb, ...], _THREE]  # mean of each channel in 0..1, subtracted inside the graph
    std: Annotated[tuple[Positive, ...], _THREE]  # standard deviation of each channel, divided by inside the graph
    sha256: Sha256  # SHA-256 of its checkpoint
    padded: bool = True  # whether images of another aspect are padded to that size, or keep their aspect
    hair: Annotated[str, OneOf(("keep", "remove"))] = "keep"  # whether hairs are painted over in the scaled image
    colour_constancy: Annotated[str, OneOf(("none", "shades_of_gray"))] = (
        "none"  # whether the light's colour is removed
    )


class Graph(_Part):
    """The ONNX file."""

    file: FileName
    opset: Count
    inputs: dict[str, str]  # type and shape of each input by name
    outputs: dict[str, str]  # type and shape of each output by name


class DiagnosisEntry(_Part):
    """One class, at its place in the class order."""

    code: str
    name: str
    category: str


class Manifest(Fitted):
    """Contents of bundle.json."""

    model_config = ConfigDict(extra="forbid")

    format: str  # major.minor
    version: str  # first digits of a SHA-256 over everything else in this file
    precision: Annotated[str, OneOf(("fp32", "fp16", "int8"))]
    classes: tuple[DiagnosisEntry, ...]
    taxonomy: dict[str, Any] | None = None  # Taxonomy.to_dict(); null in bundles of format 1.0: HAM10000's
    metadata: dict[str, Any]  # MetadataEncoder.state(): the facts in order; in 1.0 to 1.2 age, sex, localization alone
    preprocessing: dict[str, str]  # steps from an image file to the graph's input, in words
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    tta: Tta  # views of an image that vote, inside the graph
    specialist_member: Member | None = None  # the model that corrects the vote, as `specialist` says
    graph: Graph
    parity: dict[str, dict[str, int | float]]  # see `export.Agreement`, for each precision
    versions: dict[str, str]  # version of each package that made it
    files: dict[FileName, Sha256]  # of each file beside this one
    licence: str
    note: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a bundle.

        Raises:
            BundleError: There is no bundle, it has another format, or bundle.json is broken or has been changed.
        """
        path = folder / FILE
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text)
        except OSError as error:
            models = {"ensemble": "ensemble.json", "checkpoint": "best.ckpt"}
            kind = next((kind for kind, file in models.items() if (folder / file).exists()), None)
            made = f"{kind}={folder} out={folder}/bundle" if kind else f"out={folder}"
            raise BundleError(f"{path}: no bundle there; make one with skinlesion export {made}") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path}: not readable as JSON ({error}); copy or export the bundle again") from error
        newer = _check_format(values, path)
        try:
            manifest = cls.model_validate_json(text, strict=True, extra="ignore" if newer else "forbid")
            manifest._check(path, values)
        except ValidationError as error:
            raise BundleError(f"{path}: {first_fault(error)}; copy or export the bundle again") from error
        return manifest

    @classmethod
    def sealed(cls, **values: Any) -> Self:
        """Make a manifest of this program's format, with its version."""
        major = 1 if values.get("specialist") is None else 2
        unsealed = cls.model_validate({**values, "format": f"{major}.{FORMATS[major]}", "version": ""})
        return unsealed.model_copy(update={"version": _digest(json.loads(unsealed.text()))})

    def text(self) -> str:
        """Write the contents of bundle.json."""
        values = self.model_dump(mode="json")
        last = {key: values.pop(key) for key in Fitted.model_fields}  # the longest ones
        return json.dumps({**values, **last}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @property
    def encoder(self) -> MetadataEncoder:
        """Encoder of metadata to the graph's input."""
        return MetadataEncoder.from_state(self.metadata)

    @property
    def diagnoses(self) -> Taxonomy:
        """The classes with what else is known about them."""
        return HAM10000 if self.taxonomy is None else Taxonomy.from_dict(self.taxonomy)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image input of the graph, in its order."""
        return list(dict.fromkeys(member.size for member in self.networks))

    @property
    def networks(self) -> tuple[Member, ...]:
        """The members, and the specialist where there is one."""
        return self.members if self.specialist_member is None else (*self.members, self.specialist_member)

    def _check(self, path: Path, values: dict[str, Any]) -> None:
        if self.version != _digest(values):
            raise BundleError(f"{path}: has been changed since it was exported; copy or export the bundle again")
        codes = tuple(entry.code for entry in self.classes)
        for name in (self.graph.file, *([] if self.novelty is None else [self.novelty["file"]])):
            if name not in self.files:
                raise BundleError(f"{path}: files: lists no hash of {name}; copy or export the bundle again")
        try:
            self.encoder  # noqa: B018
            if (self.specialist is None) != (self.specialist_member is None):
                raise BundleError("specialist: expected its rule and its specialist_member")
            if self.diagnoses.codes != codes:
                raise BundleError(f"taxonomy: its diagnoses are not {', '.join(codes)}")
        except SkinlesionError as error:
            raise BundleError(f"{path}: {error}; copy or export the bundle again") from error


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a bundle with a missing or damaged file.

    Args:
        folder: Folder of the bundle.
        files: SHA-256 of each file by name.

    Raises:
        BundleError: It names the first such file.
    """
    for name, expected in files.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise BundleError(f"{path}: missing; copy or export the whole bundle again")
        found = file_digest(path)
        if found != expected:
            raise BundleError(
                f"{path}: damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…); copy or export the bundle again"
            )


def _check_format(values: Any, path: Path) -> bool:
    """Tell whether the minor format is newer than this program's, so that it may have unknown keys.

    Raises:
        BundleError: The major format differs.
    """
    given = values.get("format") if isinstance(values, dict) else None
    major, dot, minor = str(given).partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise BundleError(f"{path}: format is {given}; expected 1.{FORMATS[1]}: not a bundle of skinlesion")
    if int(major) not in FORMATS:
        made_by = (values.get("versions") or {}).get("skinlesion", "another version")
        update = "a newer skinlesion" if int(major) > max(FORMATS) else f"skinlesion {made_by}"
        raise BundleError(
            f"{path}: format {given}, made by skinlesion {made_by}; this is {__version__}, for format {max(FORMATS)}.\n"
            f"Use {update}, or export the ensemble again: skinlesion export ensemble=… out={path.parent}"
        )
    return int(minor) > FORMATS[int(major)]


def _digest(values: dict[str, Any]) -> str:
    sealed = {key: value for key, value in values.items() if key != "version"}
    canonical = json.dumps(sealed, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]

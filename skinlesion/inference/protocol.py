"""Protocol of a test: what is to be read and why, fixed and hashed before the reading, and checked at it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from skinlesion.config.schema import OneOf, Range, Share, Tta
from skinlesion.errors import ConfigError
from skinlesion.files import file_digest, first_fault
from skinlesion.inference.calibration import METHODS
from skinlesion.inference.ledger import Examined, read_ledger
from skinlesion.inference.members import PostHoc

_ROUNDING = 1e-6  # of a threshold as it is written


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Vote(_Strict):
    """How the members' mean comes about; what is left out is not checked."""

    tta: Tta | None = None  # views of an image that vote
    calibration: Annotated[str, OneOf(METHODS)] | None = None
    decision: Literal["likeliest", "balanced"] | None = None  # rule of the predicted diagnosis


class Threshold(_Strict):
    """An operating point."""

    target: str  # code, or malignant
    sensitivity: Share  # wanted on validation
    threshold: Annotated[float, Range(0, 1)]


class Protocol(_Strict):
    """What is fixed before a test part is read; what is left out is not checked."""

    hypothesis: Annotated[str, Field(min_length=1)]  # in words: what the reading is to show
    members: Annotated[list[str], Field(min_length=1)]  # names of those that vote
    recipe: dict[str, Any] = {}  # keys of the members' training, such as loss.gamma, and their values
    vote: Vote = Vote()
    thresholds: list[Threshold] = []


def read_protocol(path: Path) -> Protocol:
    """Read a protocol.

    Raises:
        ConfigError: The file is missing or no YAML, or a key of it is unknown, missing or wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(Protocol).validate_python(content)
    except OSError as error:
        raise ConfigError(f"protocol={path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"protocol={path}: no YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise ConfigError(f"protocol={path}: {first_fault(error)}; its keys: docs/usage.md, Protocol") from error


def open_protocol(
    file: str | None, part: str, examined: Examined, *, configs: Sequence[Mapping[str, Any]], tta: str, posthoc: PostHoc
) -> str | None:
    """Check a protocol against the model and, where the test part is to be read, against its fixing.

    Args:
        file: The protocol; None: there is none.
        part: val or test.
        examined: The model and its ledgers.
        configs: Configurations of the training of each member that votes.
        tta: Views of an image that vote.
        posthoc: What was fitted after the vote.

    Returns:
        SHA-256 of the file; None without one.

    Raises:
        ConfigError: It does not fit the model, was not fixed before the reading, or has changed since.
    """
    if file is None:
        return None
    path = Path(file)
    if faults := _differences(read_protocol(path), examined, configs, tta, posthoc):
        raise ConfigError(f"protocol={path}: {'; '.join(faults)}; give the model of the protocol, or fix another")
    digest = file_digest(path)
    if part != "test":
        return digest
    fixed = [each for each in read_ledger(examined.folders, split=examined.split) if each.kind == "protocol"]
    own = [each for each in fixed if each.protocol == digest]
    if not own:
        known = ", ".join(f"{str(each.protocol)[:12]} of {each.when}" for each in fixed) or "none"
        raise ConfigError(
            f"protocol={path}: its SHA-256 {digest[:12]} is not that of a protocol fixed for this test part ({known}): "
            "it has changed, or was never fixed; restore it, or fix it by the same command with split=val"
        )
    if changed := sorted(dict(own[-1].members.items() ^ examined.digests().items())):
        raise ConfigError(
            f"protocol={path}: member {', '.join(changed)} is another checkpoint than when it was fixed at "
            f"{own[-1].when}; restore it, or fix a new protocol with split=val"
        )
    return digest


def _differences(
    protocol: Protocol, examined: Examined, configs: Sequence[Mapping[str, Any]], tta: str, posthoc: PostHoc
) -> list[str]:
    """Each way in which a model is not that of the protocol, in words."""
    faults = []
    if sorted(protocol.members) != sorted(examined.members):
        faults.append(f"members: {', '.join(protocol.members)}, but {', '.join(examined.members)} vote")
    calibration = "none" if posthoc.calibration is None else str(posthoc.calibration["method"])
    decision = "likeliest" if posthoc.decision is None else str(posthoc.decision["rule"])
    for key, wanted, found in (
        ("tta", protocol.vote.tta, tta),
        ("calibration", protocol.vote.calibration, calibration),
        ("decision", protocol.vote.decision, decision),
    ):
        if wanted not in (None, found):
            faults.append(f"vote.{key}: {wanted}, but it is {found}")
    for name, config in zip(examined.members, configs, strict=True):
        own_recipe = {key: _value(config, key) for key in protocol.recipe}
        faults += [
            f"recipe.{key}: {protocol.recipe[key]}, but {name} has {each}"
            for key, each in own_recipe.items()
            if each != protocol.recipe[key]
        ]
    points = {(each["target"], each["sensitivity"]): each["threshold"] for each in posthoc.operating_points or ()}
    for each in protocol.thresholds:
        own = points.get((each.target, each.sensitivity))
        if own is None or not math.isclose(own, each.threshold, rel_tol=0, abs_tol=_ROUNDING):
            faults.append(f"thresholds: {each.target} at {each.sensitivity} {each.threshold}, but it is {own}")
    return faults


def _value(config: Mapping[str, Any], key: str) -> Any:
    """A value by its key with dots; None where there is none."""
    node: Any = config
    for word in key.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    return node

"""The text fields of a form: what is known about the patient, and what is asked for."""

from collections.abc import Mapping
from typing import Any

from skinlesion.data.metadata import AGES, FACTS, UNKNOWN
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.runtime import Facts
from skinlesion.deploy.service.form import IMAGE
from skinlesion.deploy.service.problems import RequestError
from skinlesion.taxonomy import CODES

EFFECTS, RISK, DIAGNOSIS, LAYER = "effects", "risk", "diagnosis", "layer"
PREDICT_FIELDS = (*FACTS, EFFECTS, RISK)
EXPLAIN_FIELDS = (*FACTS, DIAGNOSIS, LAYER)
LAYERS = ("overlay", "map")


def facts_of(fields: Mapping[str, str], about: Manifest) -> Facts:
    """Read age, sex and localization; no such field is None: not known.

    Raises:
        RequestError: A value that the model does not know.
    """
    age = number(fields, "age", *AGES)
    sex = choice(fields, "sex", about.encoder.sexes)
    localization = choice(fields, "localization", about.encoder.localizations)
    return {"age": age, "sex": _known(sex), "localization": _known(localization)}


def risks(about: Manifest) -> tuple[float, ...]:
    """At which risks the bundle has prediction sets; the first is the default."""
    return tuple(float(fitted["alpha"]) for fitted in about.conformal or [])


def risk_of(fields: Mapping[str, str], about: Manifest) -> float | None:
    """The risk of the prediction set that is asked for; the bundle's own where none is; None where it has none.

    Raises:
        RequestError: The bundle has no set at this risk.
    """
    known = risks(about)
    given = number(fields, RISK, 0, 1)
    if given is not None and given not in known:
        has = f"one of {', '.join(f'{risk:g}' for risk in known)}" if known else "none: this bundle has no sets"
        raise _wrong(RISK, fields[RISK], has)
    return given if given is not None else next(iter(known), None)


def number(fields: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    """Read a number in plain digits within a range.

    Raises:
        RequestError: It is none.
    """
    text = fields.get(name)
    if text is None:
        return None
    try:
        value = float(text) if text.isascii() and "_" not in text and text == text.strip() else float("nan")
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise _wrong(name, text, f"a number from {least:g} to {most:g}, or no such field")
    return value


def choice(fields: Mapping[str, str], name: str, words: tuple[str, ...]) -> str | None:
    """Read one of some words.

    Raises:
        RequestError: It is none of them.
    """
    text = fields.get(name)
    if text is None:
        return None
    if text not in words:
        raise _wrong(name, text, f"one of {', '.join(words)}, or no such field")
    return text


def request_body(fields: tuple[str, ...], about: Manifest, *, several: int | None) -> dict[str, Any]:
    """OpenAPI's description of a form.

    Args:
        fields: Names of its text fields.
        about: Says which words the model knows.
        several: How many images may be sent; None: one, and no list.
    """
    file = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": file, "minItems": 1, "maxItems": several}
    known: dict[str, Any] = {
        "age": {"type": "number", "minimum": AGES[0], "maximum": AGES[1], "description": "years"},
        "sex": {"type": "string", "enum": list(about.encoder.sexes)},
        "localization": {"type": "string", "enum": list(about.encoder.localizations)},
        EFFECTS: {"type": "string", "enum": ["true", "false"], "description": "whether to leave out each fact in turn"},
        RISK: {"type": "number", "enum": list(risks(about)), "description": "of the prediction set"},
        DIAGNOSIS: {"type": "string", "enum": list(CODES), "description": "to explain; else the likeliest"},
        LAYER: {"type": "string", "enum": list(LAYERS), "description": "the image under the map, or the map alone"},
    }
    known = {name: schema for name, schema in known.items() if schema.get("enum") != []}
    properties: dict[str, Any] = {IMAGE: file if several is None else images}
    properties |= {name: known[name] for name in fields if name in known}
    schema = {"type": "object", "properties": properties, "required": [IMAGE], "additionalProperties": False}
    encoding = {IMAGE: {"contentType": "image/jpeg, image/png, image/webp, image/bmp"}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}


def _known(word: str | None) -> str | None:
    return None if word == UNKNOWN else word


def _wrong(name: str, text: str, expected: str) -> RequestError:
    return RequestError(422, "wrong-value", f"{name}={text[:40]!r}; expected {expected}")

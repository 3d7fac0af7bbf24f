"""Multipart forms: their text fields, the OpenAPI description of them, and reading them into memory.

FastAPI's own `File` and `Form` are not used: they spool files of more than 1 MiB to disk, read the body before the
token is checked and a place in the queue is reserved, and let empty and repeated fields pass.
"""

import difflib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.metadata import NUMBER, FactSpec, MetadataEncoder, parse_number
from skinlesion.deploy.manifest import Manifest
from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.middleware import content_length
from skinlesion.deploy.service.schemas import risks
from skinlesion.deploy.service.uploads import FORMATS, too_many_bytes
from skinlesion.errors import ConfigError
from skinlesion.inference.inputs import parse_fact
from skinlesion.inference.members import Fact, Facts

IMAGE = "image"
PREDICT_OPTIONS = ("effects", "risk")
EXPLAIN_OPTIONS = ("diagnosis", "layer")

_HOW = f"curl: -F {IMAGE}=@photo.jpg"
_BLANK = "empty or unknown: not known"
_MAX_FIELDS = 64  # text fields that are read of a form
_MAX_FIELD_BYTES = 1024
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it logs a line for every malformed byte


class FieldSchema(TypedDict):
    """The JSON schema of a text field."""

    type: str  # number | string
    enum: NotRequired[Sequence[str | float]]
    minimum: NotRequired[float]
    maximum: NotRequired[float]
    description: NotRequired[str]


def text_fields(about: Manifest) -> dict[str, FieldSchema]:
    """The text fields by name; the OpenAPI description and the checks both follow these schemas."""
    return {
        **{fact.name: _fact_field(fact) for fact in about.encoder.facts},
        "effects": {
            "type": "string",
            "enum": ("true", "false"),
            "description": "whether to predict without each known fact in turn",
        },
        "risk": {"type": "number", "enum": risks(about), "description": "error rate of the prediction set"},
        "diagnosis": {
            "type": "string",
            "enum": about.diagnoses.codes,
            "description": "to explain; default: the most probable",
        },
        "layer": {
            "type": "string",
            "enum": ("overlay", "map"),
            "description": "the image under the map, or the map alone",
        },
    }


def _fact_field(fact: FactSpec) -> FieldSchema:
    if fact.kind != NUMBER:
        return {"type": "string", "enum": fact.categories, "description": f"in any case; {_BLANK}"}
    field: FieldSchema = {"type": "number", "description": f"{fact.unit or 'a number'}; {_BLANK}"}
    if fact.low is not None:
        field["minimum"] = fact.low
    if fact.high is not None:
        field["maximum"] = fact.high
    return field


def request_body(fields: Mapping[str, FieldSchema], *, max_images: int | None) -> dict[str, Any]:
    """The OpenAPI description of a form.

    Args:
        fields: Text fields of the form.
        max_images: How many images may be sent; None: one, and no list.
    """
    file = {"type": "string", "format": "binary"}
    images = file if max_images is None else {"type": "array", "items": file, "minItems": 1, "maxItems": max_images}
    known = {name: schema for name, schema in fields.items() if schema.get("enum", True)}
    properties = {IMAGE: images, **known}
    schema = {"type": "object", "properties": properties, "required": [IMAGE], "additionalProperties": False}
    encoding = {IMAGE: {"contentType": ", ".join(f"image/{name.lower()}" for name in FORMATS)}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}


@dataclass(frozen=True)
class Form:
    """The contents of a form: images, and the text fields that were sent, by name."""

    images: list[bytes]  # one or more
    values: dict[str, Fact]  # a fact that is None: not known
    known: Sequence[str]  # names of the facts that the model knows

    @property
    def facts(self) -> Facts:
        """The facts about the patient; None: not known."""
        return {fact: self.values.get(fact) for fact in self.known}


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # a SpooledTemporaryFile of max_size 0 never rolls over to disk; `_limited` bounds its size


async def read_form(
    request: Request, fields: Mapping[str, FieldSchema], limits: LimitsConfig, encoder: MetadataEncoder
) -> Form:
    """Read a form of images and text fields.

    Args:
        request: Request whose body has not been read.
        fields: The text fields that are allowed.
        encoder: Knows the facts about a patient.
        limits: Limits on bytes and images.

    Raises:
        RequestError: The request is too large, cut off or no form, or a field is unknown, repeated or invalid.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(415, "not-a-form", f"expected multipart/form-data with the file as field {IMAGE!r}")
    form = Form([], {}, encoder.names)
    for name, value in await _parse(request, limits):
        if isinstance(value, str):
            _add_text(form, name, value, fields, encoder)
        elif name != IMAGE:
            raise RequestError(422, "wrong-field", f"field {name[:40]!r} has a file; send files as {IMAGE!r} only")
        elif len(value) > limits.image_mib * 2**20:
            raise too_many_bytes(limits)
        else:
            form.images.append(value)
    if not form.images:
        raise RequestError(422, "no-image", f"no image; send one as the file field {IMAGE!r} ({_HOW})")
    return form


async def _parse(request: Request, limits: LimitsConfig) -> list[tuple[str, str | bytes]]:
    """The parts of a form by name: text, or the content of a file."""
    sizes = {"max_files": limits.images, "max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
    parser = _InMemoryParser(request.headers, _limited(request, limits), **sizes)
    try:
        items = (await parser.parse()).multi_items()
        return [(name, value if isinstance(value, str) else await value.read()) for name, value in items]
    except (MultiPartException, ClientDisconnect, UnicodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "the request was cut off"
        if reason.startswith("Too many files"):
            detail = f"more than {limits.images} images; send them in several requests"
            raise RequestError(422, "too-many-images", detail) from None
        raise RequestError(400, "unreadable-form", f"unreadable multipart/form-data: {reason.rstrip('.')}") from None
    finally:
        for file in parser._files_to_close_on_error:  # also one whose part never ended, which is not among the items
            file.close()


async def _limited(request: Request, limits: LimitsConfig) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, until they are too many; an announced length that is too large is refused at once."""
    announced, read = content_length(request.headers) or 0, 0
    async for chunk in request.stream():
        read += len(chunk)
        if max(read, announced) > limits.request_mib * 2**20:
            detail = f"the request has more than {limits.request_mib:g} MiB; send fewer or smaller images at a time"
            raise RequestError(413, "too-many-bytes", detail)
        yield chunk


def _add_text(form: Form, name: str, text: str, fields: Mapping[str, FieldSchema], encoder: MetadataEncoder) -> None:
    if name == IMAGE:
        raise RequestError(422, "wrong-field", f"field {IMAGE!r} has text; send a file ({_HOW})")
    if name not in fields:
        close = difflib.get_close_matches(name[:40], fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known fields: {', '.join((IMAGE, *fields))}"
        raise RequestError(422, "wrong-field", f"unknown field {name[:40]!r}; {hint}")
    if name in form.values:
        raise RequestError(422, "wrong-field", f"field {name!r} was given twice; give it once")
    try:
        fact = next((each for each in encoder.facts if each.name == name), None)
        form.values[name] = _choice(text, fields[name]["enum"]) if fact is None else parse_fact(fact, text)
    except ConfigError as error:
        raise RequestError(422, "wrong-value", str(error)) from None
    except ValueError as error:
        raise RequestError(422, "wrong-value", f"{name}={text[:40]!r}; expected {error}") from None


def _choice(text: str, allowed: Sequence[str | float]) -> str | float:
    """One of the values of a field; a number may be written in any way."""
    for value in allowed:
        if text == value or (isinstance(value, float) and parse_number(text) == value):
            return value
    words = f"one of {', '.join(map(str, allowed))}, or no such field"
    raise ValueError(words if allowed else "no such field: this bundle has no prediction sets")

"""Reading a multipart form into memory, up to a limit: Starlette's own way would write large files to disk."""

import difflib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from skinlesion.config.deploy import LimitsConfig
from skinlesion.deploy.service.problems import RequestError
from skinlesion.deploy.service.uploads import too_many_bytes

IMAGE = "image"
_HOW = f"curl: -F {IMAGE}=@photo.jpg"
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line a wrong byte, for anyone to send
_FIELDS = 16  # text fields in a form; ours has fewer, and each may come once


@dataclass(frozen=True)
class Form:
    """What a client sent."""

    images: list[bytes]  # one or more
    fields: dict[str, str]


async def read_form(request: Request, known: tuple[str, ...], limits: LimitsConfig) -> Form:
    """Read a form of images and text fields.

    Args:
        request: Its body has not been read.
        known: Names of the text fields.
        limits: Of bytes and images.

    Raises:
        RequestError: The request is too large, cut off, no form, or has other fields.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(415, "not-a-form", f"expected multipart/form-data with the file as field {IMAGE!r}")
    parser = _InMemory(
        request.headers, _limited(request, limits), max_files=limits.images + 1, max_fields=_FIELDS, max_part_size=1024
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ClientDisconnect, UnicodeError) as error:
        said = error.message if isinstance(error, MultiPartException) else "the request was cut off"
        if said.startswith("Too many files"):
            raise _too_many_images(limits) from None
        raise RequestError(400, "unreadable-form", f"not readable as multipart/form-data: {said.rstrip('.')}") from None
    try:
        return await _checked(form, known, limits)
    finally:
        parser.close()


async def _checked(form: FormData, known: tuple[str, ...], limits: LimitsConfig) -> Form:
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            _check_file(name, value, limits)
            images.append(await value.read())
        else:
            _check_field(name, known, fields)
            fields[name] = value
    if not images:
        raise RequestError(422, "no-image", f"no image; send one as the file field {IMAGE!r} ({_HOW})")
    if len(images) > limits.images:
        raise _too_many_images(limits)
    return Form(images, fields)


class _InMemory(MultiPartParser):
    spool_max_size = 0  # SpooledTemporaryFile: 0 never goes to disk; what keeps it small is `_limited`

    def close(self) -> None:
        """Let all files go, also one whose part was never ended, which is not in the form."""
        for file in self._files_to_close_on_error:
            file.close()


async def _limited(request: Request, limits: LimitsConfig) -> AsyncGenerator[bytes, None]:
    """The body's chunks, until they are too many; a length that is announced is believed at once."""
    announced = request.headers.get("content-length", "")
    read, expected = 0, int(announced) if announced.isascii() and announced.isdigit() else 0
    async for chunk in request.stream():
        read += len(chunk)
        if max(read, expected) > limits.request_mib * 2**20:
            raise RequestError(
                413,
                "too-many-bytes",
                f"the request has more than {limits.request_mib:g} MiB; send fewer or smaller images at a time",
            )
        yield chunk


def _check_file(name: str, file: UploadFile, limits: LimitsConfig) -> None:
    if name != IMAGE:
        raise RequestError(422, "wrong-field", f"field {name[:40]!r} has a file; expected files as {IMAGE!r} alone")
    if (file.size or 0) > limits.image_mib * 2**20:
        raise too_many_bytes(limits)


def _check_field(name: str, known: tuple[str, ...], fields: dict[str, str]) -> None:
    if name == IMAGE:
        raise RequestError(422, "wrong-field", f"field {IMAGE!r} has text; expected a file ({_HOW})")
    if name not in known:
        close = difflib.get_close_matches(name[:40], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join((IMAGE, *known))}"
        raise RequestError(422, "wrong-field", f"unknown field {name[:40]!r}; {hint}")
    if name in fields:
        raise RequestError(422, "wrong-field", f"field {name!r} was given twice; give it once")


def _too_many_images(limits: LimitsConfig) -> RequestError:
    return RequestError(422, "too-many-images", f"more than {limits.images} images; send them in several requests")

"""Files of public data sets: fetched from their hosts, gone on with after a break, checked, and unpacked whole."""

import hashlib
import http.client
import logging
import math
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from skinlesion import __version__
from skinlesion.config.data import DownloadConfig, RemoteFileConfig
from skinlesion.data.disk_cache import FULL, require_room
from skinlesion.data.image_formats import SUFFIXES
from skinlesion.errors import DataError
from skinlesion.files import replacing_folder
from skinlesion.terminal import track

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_GONE_ON = re.compile(r"bytes (\d+)-\d+/(\d+)")  # Content-Range of an answer with a part of a file
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses after which another try may help
_BROKEN = (OSError, http.client.HTTPException)


def is_complete(file: RemoteFileConfig, root: Path) -> bool:
    """Whether a file is there, unpacked or as it is.

    Raises:
        DataError: It is there, but not whole.
    """
    place = root / (file.unpack or file.name)
    if not place.exists():
        return False
    if file.unpack is None:
        if fault := _fault(file, place):
            raise DataError(f"{place}: {fault}; move it away, and run this again")
        return True
    images = count_images(place)
    if file.images is not None and images < file.images:
        raise DataError(f"{place}: holds {images:,} of {file.images:,} images; move it away, and run this again")
    return True


def count_images(folder: Path) -> int:
    """Count the image files in a folder, at any depth."""
    return sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))


def fetch(file: RemoteFileConfig, root: Path, config: DownloadConfig) -> None:
    """Bring a file to `root`, and unpack it if it is an archive.

    An archive that lies there already, put there by hand, is checked and stays; one that is fetched is removed.

    Raises:
        DataError: The host cannot be reached or refuses, the file is not the published one, or the disk is full.
    """
    target = root / file.name
    by_hand = target.exists()
    if not by_hand:
        root.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{file.name}.part")
        _receive(file, part, config)
        if fault := _fault(file, part):
            part.unlink()
            raise DataError(f"{file.url}: {fault}; what came is deleted: run this again, or {_by_hand(config)}")
        part.replace(target)
    elif fault := _fault(file, target):
        raise DataError(f"{target}: {fault}; move it away, and run this again")
    if not (file.md5 or file.sha256):
        log.warning("%s: not checked, since its digest is not known.", target)
    if file.unpack is not None:
        unpack(target, root / file.unpack)
        if not by_hand:
            target.unlink()


def room(file: RemoteFileConfig, root: Path) -> int:
    """Bytes that a file still needs, as far as its size is known: what is to come of it, and its images."""
    part = root / f"{file.name}.part"
    whole = file.bytes or 0
    return _room(file, whole, whole if (root / file.name).exists() else part.stat().st_size if part.exists() else 0)


def _room(file: RemoteFileConfig, size: int, have: int) -> int:
    return max(0, size - have) + size * (file.unpack is not None)


def _fault(file: RemoteFileConfig, path: Path) -> str:
    """Say how a file differs from the published one; "" where it does not, as far as that is known."""
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return f"{path.stat().st_size:,} bytes, expected {file.bytes:,}"
    for name, expected in (("md5", file.md5), ("sha256", file.sha256)):
        if expected is not None:
            with path.open("rb") as content:
                found = hashlib.file_digest(content, partial(hashlib.new, name, usedforsecurity=False))
            if found.hexdigest() != expected.lower():
                return f"its {name.upper()} is {found.hexdigest()}, expected {expected}"
    return ""


def _receive(file: RemoteFileConfig, part: Path, config: DownloadConfig) -> None:
    """Fetch what is missing of a file; a connection that breaks is tried again, from where it broke."""
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive_once(file, part, config)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _PASSING or tries >= config.retries:
                answer = f"the host answers {error.code} ({' '.join(str(error.reason).split())})"
                raise DataError(f"{file.url}: {answer}; {_by_hand(config)}") from error
            reason = f"status {error.code}"
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise DataError(
                    f"{part}: {error.strerror}; make room, and run this again, which goes on there"
                ) from error
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            tries = 0 if part.exists() and part.stat().st_size > before else tries
            if isinstance(cause, socket.gaierror) or tries >= config.retries:
                host = urlsplit(file.url).netloc
                raise DataError(f"{host}: cannot be reached ({cause}); {_by_hand(config)}") from error
            reason = str(cause)
        tries += 1
        log.warning("%s: %s; try %d of %d follows", file.name, reason, tries, config.retries)
        time.sleep(config.wait)


def _receive_once(file: RemoteFileConfig, part: Path, config: DownloadConfig) -> None:
    """Ask the host for the bytes after those that are there, and append them."""
    have = part.stat().st_size if part.exists() else 0
    if file.bytes is not None and have == file.bytes:
        return
    headers = {"User-Agent": f"skinlesion/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=config.timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # it ended between the last byte and the new name
        part.unlink()  # longer than the file: not a part of it
        raise ConnectionError("the part that was there does not belong to the file") from error
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise DataError(f"{file.url}: the host sends a web page, not the file; {_by_hand(config)}")
        gone_on = _GONE_ON.fullmatch(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        if gone_on is None or int(gone_on[1]) != have:
            have = 0  # the whole file comes
        length = answer.headers.get("Content-Length")
        total = int(gone_on[2]) if gone_on else int(length) if length else file.bytes
        require_room(part.parent, _room(file, total or 0, have), what=file.name, key="data.root")
        with part.open("ab" if have else "wb") as beside:
            count = math.ceil(((total or 0) - have) / _CHUNK)
            for chunk in track(_chunks(answer), f"{file.name} (MiB)", count):
                beside.write(chunk)
            received = beside.tell()
    if total is not None and received < total:
        raise ConnectionError(f"the connection broke after {received:,} of {total:,} bytes")


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    while chunk := answer.read(_CHUNK):
        yield chunk


def _by_hand(config: DownloadConfig) -> str:
    names = ", ".join(file.name for file in config.dataset.files.values())
    return (
        f"by hand: download {names} from {config.dataset.page} to {config.data.root}, and run this again, which "
        "checks and unpacks them"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a ZIP archive into a folder that appears when all is there; a folder around all of it is left off.

    Raises:
        DataError: The archive is damaged, or names a place outside the folder.
    """
    try:
        with zipfile.ZipFile(archive) as source, replacing_folder(folder) as beside:
            names = {info: PurePosixPath(info.filename) for info in source.infolist() if not info.is_dir()}
            names = {info: name for info, name in names.items() if not _is_clutter(name)}
            tops = {name.parts[0] for name in names.values() if len(name.parts) > 1}
            around = len(tops) == 1 and all(len(name.parts) > 1 for name in names.values())
            for info, name in track(names.items(), f"unpacking {archive.name}", len(names)):
                if name.is_absolute() or ".." in name.parts:
                    raise DataError(f"{archive}: holds {info.filename}, outside the folder; it is not unpacked")
                place = beside.joinpath(*name.parts[around:])
                place.parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as content, place.open("wb") as written:
                    shutil.copyfileobj(content, written, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); delete it, and run this again") from error


def _is_clutter(name: PurePosixPath) -> bool:
    return "__MACOSX" in name.parts or name.name.startswith(".")

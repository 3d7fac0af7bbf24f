"""Files that are written whole or not at all: beside the target first, then renamed."""

import errno
import glob
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.errors import ConfigError, DataError, SkinlesionError

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock
    from pydantic import ValidationError

_TEMPORARY = re.compile(r"-(\d+)(-[0-9a-f]{8})?(\.old)?(\.\w+)?$")
_STALE = 86_400.0  # seconds
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")

log = logging.getLogger(__name__)

_REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` if the block succeeds, delete it otherwise.

    Args:
        path: The file to create or replace. Its folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{_owner()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not name the file
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` to fill; rename it to `folder` if the block succeeds, else delete it.

    What killed processes of this machine left beside it is swept up first.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, glob.escape(folder.name))
    beside = folder.with_name(f".{folder.name}.{_owner()}")
    beside.mkdir()
    old = beside.with_name(f"{beside.name}.old")
    try:
        yield beside
        if folder.exists():
            folder.rename(old)  # Windows cannot rename onto a folder
        beside.rename(folder)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)  # a full disk does not name the file
        raise
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)


def sweep(folder: Path, name: str = "*") -> None:
    """Delete the temporary files and folders that killed processes left in a folder, and say so.

    Those of living processes stay, and of other machines and containers, where nobody can tell, those that have
    changed within a day.
    """
    for path in folder.glob(f".{name}.*-*"):
        found = _TEMPORARY.search(path.name)
        if found is None:
            continue
        is_ours = path.name[: found.start()].endswith(f".{_machine()}")
        if (is_ours and not _is_alive(int(found[1]))) or (not is_ours and found[2] and _is_stale(path)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            log.info("%s: removed, left by a process that was killed", path)


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold a lock that one process has at a time, also on a network file system without locks of its own.

    Args:
        path: The lock's file.
        timeout: Seconds to wait; -1: for ever.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    from filelock import FileLock, SoftFileLock  # takes a fifth of a second, which most commands do without

    lock: BaseFileLock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_suffix(".exists"))  # that the file exists is the lock
        lock.acquire(timeout=timeout)
    try:
        yield
    finally:
        lock.release()


def _owner() -> str:
    """Machine, process and a random word: no two writers share a name, on whichever machines they are."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_stale(path: Path) -> bool:
    with suppress(OSError):
        return time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*"))) > _STALE
    return False


@cache
def _machine() -> str:
    """This machine, and the container in it: a process number means nothing elsewhere."""
    name = re.sub(r"\W", "_", platform.node())[:32]
    with suppress(OSError):
        name = f"{name}_{os.stat('/proc/self/ns/pid').st_ino}"
    return name


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@contextmanager
def disk_faults() -> Iterator[None]:
    """Turn the operating system's refusal to write into a message that names the file.

    Raises:
        DataError: A disk is full or read-only, a path is impossible, or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS or not error.filename:
            raise
        raise DataError(
            f"{error.filename}: {error.strerror}; mend that and run again: nothing half written is left"
        ) from error


def require_writable(folder: Path, key: str) -> None:
    """Refuse now, not after hours of work, a folder in which no file can be written. Nothing is made.

    Args:
        folder: It, or the nearest folder above it that is there, is tried with a small file.
        key: The configuration key that names it.

    Raises:
        ConfigError: The reason, such as a full disk or a read-only file system.
    """
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise ConfigError(
            f"{key}={folder}: cannot be written ({error.strerror}); make room there, or give {key}= another place"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all; a result by its `to_dict` or its fields."""

    def plain(each: Any) -> Any:
        return each.to_dict() if hasattr(each, "to_dict") else vars(each)

    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=plain) + "\n")


def escape_formulas(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Put an apostrophe before text that a spreadsheet would run as a formula; `restore_formulas` takes it away.

    Text that is a number, such as -0.5, stays.
    """

    def escaped(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) and not _is_number(cell) else cell

    words = [name for name, kind in frame.dtypes.items() if kind in ("object", "string", "str")]
    return frame.assign(**{str(name): frame[name].map(escaped) for name in words})


def write_csv(path: Path, frame: "pd.DataFrame") -> None:
    """Write a table as CSV that a spreadsheet may open, whole or not at all; `restore_formulas` reads it back."""
    write_text(path, escape_formulas(frame).to_csv(index=False, lineterminator="\n"))


def restore_formulas(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Undo `escape_formulas` in a table that was read as text."""
    return frame.map(lambda cell: cell[1:] if isinstance(cell, str) and _ESCAPED.match(cell) else cell)


def escape_markdown(text: str) -> str:
    """Spell text that came from elsewhere so that Markdown shows it as it is: no HTML, links, emphasis or columns."""
    return re.sub(r"[\\`*|<>&]|(?<=\])\(", lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()


def read_json(path: Path, schema: Any, *, error: type[SkinlesionError], advice: str) -> Any:
    """Read JSON and check it strictly, each key's type and range.

    Args:
        path: The file.
        schema: What it must hold: any type that pydantic knows, with the constraints of `config.schema`.
        error: Raised with one line that names the file and the key.
        advice: What to do then.
    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); {advice}") from fault
    return parse_json(content, schema, source=str(path), error=error, advice=advice)


def parse_json(content: str | bytes, schema: Any, *, source: str, error: type[SkinlesionError], advice: str) -> Any:
    """Parse JSON as `read_json` reads a file's; `source` names it in messages."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(schema).validate_json(content, strict=True)
    except ValidationError as fault:
        raise error(f"{source}: {first_fault(fault)}; {advice}") from fault


def first_fault(faults: "ValidationError") -> str:
    """Name the key of the first fault and what is wrong there, and count the others."""
    fault, others = faults.errors(include_url=False)[0], faults.error_count() - 1
    reason = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"][:1].lower() + fault["msg"][1:]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {reason}".removeprefix(": ") + (f" (and {others} more)" if others else "")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_dir() -> Path:
    """The folder of YAML files: `conf/` of the checkout, or the copy inside the installed wheel."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())

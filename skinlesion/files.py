"""Files that are written whole or not at all: beside the target first, then renamed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.errors import SkinlesionError

if TYPE_CHECKING:
    from pydantic import ValidationError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` if the block succeeds, delete it otherwise.

    Args:
        path: The file to create or replace. Its folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def build_once(path: Path, build: Callable[[], None]) -> None:
    """Call `build`, which makes `path`, if it is not there; one process does so while the others wait.

    Args:
        path: The file. What killed builders left beside it is deleted first.
        build: Makes it with `replacing`.
    """
    from filelock import FileLock  # here, since a deployed bundle needs the rest of this file without it

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():  # another process has made it while this one waited
            return
        for leftover in path.parent.glob(f".{path.stem}.*{path.suffix}"):
            leftover.unlink(missing_ok=True)
        build()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all; a result by its `to_dict` or its fields."""

    def plain(each: Any) -> Any:
        return each.to_dict() if hasattr(each, "to_dict") else vars(each)

    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=plain) + "\n")


def read_json(path: Path, schema: Any, *, error: type[SkinlesionError], advice: str) -> Any:
    """Read JSON and check it strictly, each key's type and range.

    Args:
        path: The file.
        schema: What it must hold: any type that pydantic knows, with the constraints of `config.schema`.
        error: Raised with one line that names the file and the key.
        advice: What to do then.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(schema).validate_json(path.read_bytes(), strict=True)
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); {advice}") from fault
    except ValidationError as fault:
        raise error(f"{path}: {first_fault(fault)}; {advice}") from fault


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

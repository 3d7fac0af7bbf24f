"""Files that are written whole or not at all: beside the target first, then renamed."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")


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


def escape_formulas(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Put an apostrophe before text that a spreadsheet would run as a formula; `restore_formulas` takes it away.

    Text that is a number, such as -0.5, stays.
    """

    def escaped(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) and not _is_number(cell) else cell

    words = [name for name, kind in frame.dtypes.items() if kind in ("object", "string", "str")]
    return frame.assign(**{str(name): frame[name].map(escaped) for name in words})


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


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_dir() -> Path:
    """The folder of YAML files: `conf/` of the checkout, or the copy inside the installed wheel."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())

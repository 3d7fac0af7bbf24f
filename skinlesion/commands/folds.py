"""`skinlesion folds`: the members of each fold trained, their votes, and the judgement of all folds together."""

import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path

from skinlesion.config.inference import FoldsConfig
from skinlesion.errors import DataError

log = logging.getLogger(__name__)


def run(config: FoldsConfig) -> None:
    """Run `train`, `ensemble` and `compare`; what has finished is not done again.

    Raises:
        DataError: One of them has failed; the same command goes on from there.
    """
    out = Path(config.out)
    for fold in config.folds:
        place = out / f"fold{fold}"
        members = [str(place / name) for name in config.members]
        for words, member in zip(config.members.values(), members, strict=True):
            given = [word.replace("{out}", str(out)).replace("{fold}", str(fold)) for word in shlex.split(words)]
            _run("train", *given, *shlex.split(config.overrides), f"split.fold={fold}", f"out={member}")
        vote = ["ensemble", f"members={json.dumps(members)}", f"out={place / 'ensemble'}", "split=test"]
        vote += shlex.split(config.ensemble)
        if not _is_done(place, line := shlex.join(vote), members):
            _run(*vote)
            (place / "ensemble" / "command.txt").write_text(line, encoding="utf-8")
    tables = [str(out / "fold*" / "ensemble" / "predictions_test.csv")]
    _run("compare", f"tables={json.dumps(tables)}", f"out={out / 'pooled.json'}", *shlex.split(config.compare))


def _is_done(place: Path, line: str, members: list[str]) -> bool:
    """Whether the fold's ensemble was made by this command, after its members."""
    path = place / "ensemble" / "command.txt"
    made_so = path.is_file() and path.read_text(encoding="utf-8") == line
    return made_so and all(Path(each, "best.ckpt").stat().st_mtime <= path.stat().st_mtime for each in members)


def _run(*words: str) -> None:
    """Run a command in a process of its own, which gives its memory back."""
    log.info("skinlesion %s", shlex.join(words))
    if status := subprocess.run([sys.executable, "-m", "skinlesion", *words], check=False).returncode:
        raise DataError(f"skinlesion {words[0]} failed with status {status}, see above; the same command goes on there")

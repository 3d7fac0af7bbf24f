"""Ledger of test parts: who read one, when and by which command, and which protocols were fixed before.

A line of JSON each, only ever appended, in `test_readings.jsonl` beside what makes the split (the split's file, or the
data's table), where it outlives every run, and beside the model, where it goes wherever the model goes.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skinlesion.config.schema import Sha256
from skinlesion.errors import DataError
from skinlesion.files import file_digest, parse_json

if TYPE_CHECKING:
    from skinlesion.inference.predictor import Predictor
    from skinlesion.training.checkpoint import TrainedModel

LEDGER = "test_readings.jsonl"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerEntry:
    """A reading of a test part, or a protocol that was fixed for one."""

    when: str  # UTC, as in ISO 8601
    kind: Literal["reading", "protocol"]
    command: str  # such as evaluate
    model: str  # path of the checkpoint, or of the ensemble.json
    sha256: Sha256  # of that file
    members: dict[str, Sha256]  # checkpoints that vote, by name
    split: str  # fingerprint of the split
    protocol: Sha256 | None  # of the protocol's file; None: read without one


@dataclass(frozen=True)
class Examined:
    """A model on a split, for the ledger: which it is, and where its entries are written."""

    model: Path  # checkpoint, or ensemble.json
    members: Mapping[str, Path]  # checkpoints that vote, by name
    split: str  # fingerprint
    folders: Sequence[Path]  # of the ledgers: beside the split, and of the model

    @classmethod
    def of(
        cls, file: Path, names: Sequence[str], models: "Sequence[TrainedModel]", *, root: str | None = None
    ) -> "Examined":
        """A file whose models vote; `root` is the folder where their data are now, None: where they were trained."""
        members = {name: model.path for name, model in zip(names, models, strict=True)}
        place = beside_split(models[0].config, root)
        return cls(file, members, models[0].fingerprint, [each for each in (place, file.parent) if each is not None])

    @classmethod
    def named_by(cls, config: Any, predictor: "Predictor") -> "Examined":
        """The predictor that a command's configuration names as its `checkpoint` or `ensemble`."""
        path, name = (config.ensemble, "ensemble.json") if config.ensemble else (config.checkpoint, "best.ckpt")
        file = Path(path) / name if Path(path).is_dir() else Path(path)
        return cls.of(file, predictor.members.names, predictor.networks.models, root=config.data.root)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each member that votes."""
        return {name: file_digest(path) for name, path in self.members.items()}

    def note(self, part: str, command: str, *, protocol: str | None = None) -> None:
        """Record that a command reads the test part, or that it fixes a protocol on another part."""
        if part == "test":
            self.record(command, protocol=protocol)
        elif protocol is not None:
            self.record(command, kind="protocol", protocol=protocol)
            log.info("Protocol %s is fixed for the test part", protocol[:12])

    def record(
        self, command: str, *, kind: Literal["reading", "protocol"] = "reading", protocol: str | None = None
    ) -> None:
        """Append an entry to each ledger that can be written; call it before the test part is read.

        Raises:
            DataError: None can be.
        """
        when, digests = datetime.now(UTC).isoformat(timespec="milliseconds"), self.digests()
        entry = LedgerEntry(
            when, kind, command, str(self.model), file_digest(self.model), digests, self.split, protocol
        )
        faults = []
        for folder in {each.resolve(): each for each in self.folders}.values():
            try:
                _append(folder / LEDGER, dumps(asdict(entry)))
            except OSError as error:
                faults.append(f"{folder / LEDGER} ({error.strerror})")
        if len(faults) == len({each.resolve() for each in self.folders}):
            raise DataError(
                f"the reading of the test part cannot be recorded in {' or '.join(faults)}; make one of them writable"
            )
        if faults:
            log.warning("The reading of the test part is recorded beside the model alone, not in %s", faults[0])


def beside_split(config: Mapping[str, Any], root: Any = None) -> Path | None:
    """The folder of the split's file, or of the data's table; None where the configuration names neither."""
    split = config.get("split") or {}
    if split.get("policy") == "file":
        return Path(split["file"]).expanduser().parent
    place = root or (config.get("data") or {}).get("root")
    return None if place is None else Path(place).expanduser()


def read_ledger(folders: Sequence[Path], *, split: str) -> list[LedgerEntry]:
    """The entries of a split in all ledgers of some folders, in the order of time, each once.

    Raises:
        DataError: A line is no entry.
    """
    found: dict[str, LedgerEntry] = {}
    for path in (folder / LEDGER for folder in folders):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            advice = "entries are only ever appended: restore the file"
            entry = parse_json(line, LedgerEntry, source=f"{path}, line {number}", error=DataError, advice=advice)
            if entry.split == split:
                found[line] = entry
    return sorted(found.values(), key=lambda each: each.when)


def _append(path: Path, line: str) -> None:
    """Append a line in one write, so that lines of several processes do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)

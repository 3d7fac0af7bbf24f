"""A table of facts about the patients of unlabelled images, by image id."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skinlesion.data.columns import Layout, fact_problems, facts_by_image, read_identified
from skinlesion.data.csv_io import column_names, named_by_file, repeated_ids
from skinlesion.data.metadata import FactSpec, MetadataEncoder
from skinlesion.errors import ConfigError, DataError, first_five
from skinlesion.inference.inputs import parse_fact
from skinlesion.inference.members import Fact, Facts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FactsTable:
    """Facts of images; what the table does not say is unknown."""

    facts: dict[Path, Facts]
    without_row: list[str] = field(default_factory=list)  # images that the table lacks, by their paths
    without_image: list[str] = field(default_factory=list)  # ids of rows of no image


def read_facts(table: Path, images: Sequence[Path], encoder: MetadataEncoder) -> FactsTable:
    """Read the facts of images by their ids, which are the files' names without suffix.

    Columns that were recognised, images without a row, rows without an image and values that the model does not know
    are said.

    Raises:
        DataError: The table cannot be used; each fault is named by its line.
    """
    layout = Layout(encoder.facts)
    rows, problems = read_identified(table, layout)
    if problems := problems or [*repeated_ids(rows["image_id"]), *fact_problems(rows, layout)]:
        raise DataError.listing("The facts cannot be used:", named_by_file(table, problems))
    columns = {fact: name for fact, name in layout.fact_columns(rows).items() if fact in encoder.names}
    log.info("%s: %s.", table.name, ", ".join(f"{fact} from {name}" for fact, name in columns.items()) or "no facts")
    if lost := [name for name in encoder.names if name not in columns]:
        names = column_names(table)
        used = {*layout.fact_columns(names).values(), layout.find(names, "image_id")}
        unread = [name for name in names if name not in used]
        others = f"; not read: {first_five(unread)}" if unread else ""
        log.warning("%s: no column of %s, unknown for all images%s.", table.name, ", ".join(lost), others)
    known = facts_by_image(rows, layout)
    unknown: dict[str, int] = {}
    facts: dict[Path, Facts] = {}
    for path in images:
        said = known.loc[path.stem].dropna().to_dict() if path.stem in known.index else {}
        facts[path] = {
            fact.name: _known_fact(fact, said[fact.name], unknown) for fact in encoder.facts if fact.name in said
        }
    stems = {path.stem for path in images}
    without_row = [str(path) for path in images if path.stem not in known.index]
    without_image = [str(name) for name in known.index if name not in stems]
    if unknown:
        listed = first_five(f"{entry} ({count})" for entry, count in unknown.items())
        log.warning("The model does not know these values, which count as unknown: %s.", listed)
    if without_row:
        missing = first_five(Path(path).name for path in without_row)
        log.warning("Facts are unknown for %d of %d images, without a row: %s.", len(without_row), len(images), missing)
    if without_image:
        log.warning("%s: no image for %d rows: %s.", table.name, len(without_image), first_five(without_image))
    return FactsTable(facts, without_row, without_image)


def _known_fact(fact: FactSpec, entry: object, unknown: dict[str, int]) -> Fact:
    """As `parse_fact`, but a value that the model does not know is counted, and unknown."""
    try:
        return parse_fact(fact, entry)
    except ConfigError:
        unknown[f"{fact.name} {entry}"] = unknown.get(f"{fact.name} {entry}", 0) + 1
        return None

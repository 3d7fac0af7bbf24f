"""Facts about the patients of a report's images: of the training tables, of a metadata table, and of the pictures."""

from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.config.data import restore_data_config
from skinlesion.data.columns import (
    Layout,
    checked_frame,
    fact_problems,
    fact_specs,
    facts_by_image,
    read_identified,
)
from skinlesion.data.csv_io import repeated_ids
from skinlesion.data.labels import diagnosis_codes
from skinlesion.data.metadata import UNKNOWN
from skinlesion.data.readers import find_tables, read_labelled
from skinlesion.errors import DataError
from skinlesion.taxonomy import HAM10000, Taxonomy


def read_facts(path: Path, *, taxonomy: Taxonomy = HAM10000) -> pd.DataFrame:
    """Read the checked frame of a metadata table without images, and without diagnoses where it has none.

    Raises:
        DataError: The table is not readable, names an image twice, or has a faulty age.
    """
    layout = Layout()
    rows, problems = read_identified(path, layout)
    if problems := problems or [*repeated_ids(rows["image_id"]), *fact_problems(rows, layout)]:
        raise DataError.listing(f"The metadata table {path} is invalid:", problems)
    codes = diagnosis_codes(rows, taxonomy)
    rows = rows.assign(diagnosis=codes or "")
    frame = checked_frame(rows, facts_by_image(rows, layout), None, layout, groups=None)
    return frame if codes else frame.drop(columns="diagnosis")


def data_root(config: dict[str, Any] | None) -> Path:
    """The folder of the data set of a member's configuration."""
    return Path(str(((config or {}).get("data") or {}).get("root"))).expanduser()


def facts_of_training(config: dict[str, Any] | None, taxonomy: Taxonomy) -> pd.DataFrame | None:
    """The checked frame of the tables that a member was trained on, without images; None where they are gone."""
    given = (config or {}).get("data") or {}
    found = find_tables(data_root(config), str(given.get("table")))
    if not found or found[0].suffix == ".npz":
        return None
    data = restore_data_config({"missing_images": "drop", "extra_images": "ignore", "cache_dir": "", **given})
    named = {fact: each.column for fact, each in data.facts.items()}
    return read_labelled(
        found[0],
        images=None,
        metadata=None if data.metadata is None else found[0].parent / data.metadata,
        classes=data.classes or {},
        layout=Layout.of(data.columns, fact_specs(data.facts), named, key="data"),
        taxonomy=taxonomy,
        key="data",
    ).frame


def with_skin_tones(facts: pd.DataFrame, tones: Path) -> pd.DataFrame:
    """Facts with the lightness of the skin that `evaluate` has found in the pictures of the test part, if it has."""
    if not tones.is_file():
        return facts
    found = pd.read_csv(tones, dtype={"image_id": str})[["image_id", "skin_tone"]]
    return facts.merge(found, on="image_id", how="left").fillna({"skin_tone": UNKNOWN})

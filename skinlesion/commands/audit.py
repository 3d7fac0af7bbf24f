"""`skinlesion audit`: what is in a data set, and what could leak, as figures and tables."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.studies import AuditConfig

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def run(config: AuditConfig) -> None:
    """Write audit.json, split.csv, duplicates.csv and the figures, and print what matters.

    Raises:
        SkinlesionError: The data set cannot be read or split.
    """
    from skinlesion.data.datamodule import assign, read_data
    from skinlesion.data.image_cache import open_cache
    from skinlesion.data.near_duplicates import duplicate_pairs, hash_images
    from skinlesion.data.splits import fingerprint, write_split
    from skinlesion.files import write_json, write_text
    from skinlesion.progress import track
    from skinlesion.studies.audit.shortcuts import shortcuts
    from skinlesion.studies.audit.summary import summary, suspicious

    out = Path(config.out)
    frame = read_data(config.data)
    split = assign(frame, config.split)
    height, width = config.image_size
    cache = open_cache(frame, size=(height, width), cache_dir=Path(config.data.cache_dir))
    hashes = hash_images(track(cache.images, "hashing images", len(frame)))
    pairs = duplicate_pairs(frame, split, hashes=hashes, distance=config.distance, similarity=config.similarity)
    found = summary(frame, split, pairs=pairs, shortcuts=shortcuts(frame, split))
    write_split(split, out / "split.csv")
    write_text(out / "duplicates.csv", pairs.to_csv(index=False))
    write_json(out / "audit.json", {**found, "fingerprint": fingerprint(split)})
    _draw(frame, cache.image, config, out)
    _show(found, suspicious(pairs))
    log.info("Tables and figures: %s", out)


def _draw(frame: "pd.DataFrame", image_of: Any, config: AuditConfig, out: Path) -> None:
    from skinlesion.plots import audit as audit_plots
    from skinlesion.plots.predictions import save

    save(audit_plots.diagnoses(frame), out / "diagnoses.png")
    save(audit_plots.ages(frame), out / "ages.png")
    save(audit_plots.sexes(frame), out / "sexes.png")
    save(audit_plots.localizations(frame), out / "localizations.png")
    save(audit_plots.images_per_lesion(frame), out / "images_per_lesion.png")
    save(
        audit_plots.sample_sheet(frame, image_of, samples_per_class=config.samples_per_class, seed=config.seed),
        out / "sample_sheet.png",
    )


def _show(found: dict[str, Any], pairs: "pd.DataFrame") -> None:
    from skinlesion.commands.console import show_table

    parts = [part for part in ("train", "val", "test", "left_out") if part in found["splits"]]
    rows = [
        (code, *(str(found["splits"][part]["diagnoses"].get(code, 0)) for part in parts)) for code in found["diagnoses"]
    ]
    total = ("all", *(str(found["splits"][part]["images"]) for part in parts))
    show_table("Images of each diagnosis", ("diagnosis", *parts), [*rows, total])
    told = [
        (name, *(f"{value:.3f}" for value in measured.values()))
        for name, measured in found["shortcuts"].items()
        if measured
    ]
    headings: tuple[str, ...] = ("told from", "accuracy", "macro-F1", "balanced accuracy")
    show_table("How far the diagnosis is told without the image, on validation", headings, told)
    headings = ("image", "its double", "similarity", "in", "in")
    listed = pairs[["image_a", "image_b", "similarity", "split_a", "split_b"]].round({"similarity": 3}).astype(str)
    show_table("Doubles in different lesions or splits", headings, listed.to_numpy().tolist())
    if found["torn_lesions"]:
        log.warning("%d lesions stand in two splits: %s", len(found["torn_lesions"]), found["torn_lesions"][:5])

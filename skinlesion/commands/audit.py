"""`skinlesion audit`: contents of a data set, and what could leak, as figures and tables."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.config.studies import AuditConfig
from skinlesion.errors import first_five

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.data.image_io import Image
    from skinlesion.metrics.estimate import Estimates
    from skinlesion.studies.audit.summary import DatasetSummary
    from skinlesion.taxonomy import Taxonomy

log = logging.getLogger(__name__)


def run(config: AuditConfig) -> None:
    """Write audit.json, split.csv, duplicates.csv and the figures, and print the main results.

    Raises:
        SkinlesionError: The data set cannot be read or split.
    """
    from skinlesion.data.groups import duplicate_groups
    from skinlesion.data.image_cache import open_cache
    from skinlesion.data.image_statistics import skin_tones
    from skinlesion.data.near_duplicates import duplicate_pairs, hash_images
    from skinlesion.data.readers import read_data, taxonomy_of
    from skinlesion.data.splits import assign, fingerprint, write_split
    from skinlesion.data.stream import Stream
    from skinlesion.files import write_csv, write_json
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.plots.audit import skin_tone_histogram
    from skinlesion.plots.style import save
    from skinlesion.studies.audit.summary import binary_shortcuts, leaking_pairs, shortcuts, summarize
    from skinlesion.taxonomy import Taxonomy
    from skinlesion.terminal import track

    out = Path(config.out)
    given = Taxonomy.configured(asdict(config.taxonomy))
    frame = read_data(config.data, taxonomy=given)
    taxonomy = taxonomy_of(frame, given)
    split = assign(frame, taxonomy=taxonomy, **asdict(config.split))
    height, width = config.image_size
    stream = Stream.of(config.data.stream, config.data.stream_gb)
    cache = open_cache(frame, size=(height, width), cache_dir=Path(config.data.cache_dir), stream=stream)
    hashes = hash_images(track(cache.images, "hashing images", len(frame)))
    pairs = duplicate_pairs(frame, split, hashes=hashes, distance=config.distance, similarity=config.similarity)
    scores = shortcuts(frame, split, taxonomy=taxonomy)
    summary = summarize(frame, split, pairs=pairs, shortcuts=scores, taxonomy=taxonomy)
    write_split(split, out / "split.csv")
    write_csv(out / "duplicates.csv", pairs)
    if len(groups := duplicate_groups(pairs)):
        write_csv(out / "groups.csv", groups)
        told = "%d images equal or resemble one of another lesion: data.groups=%s keeps them together"
        log.warning(told, len(groups), out / "groups.csv")
    binary = binary_shortcuts(frame, split, BootstrapConfig(seed=config.seed), taxonomy=taxonomy)
    about = {"binary_shortcuts": binary, "fingerprint": fingerprint(split)}
    write_json(out / "audit.json", {**summary, **about})
    tones = skin_tones(frame["image_id"].tolist(), cache.image)
    write_csv(out / "skin_tones.csv", tones.round(1))
    _draw(frame, cache.image, config, out, taxonomy)
    save(skin_tone_histogram(tones), out / "skin_tones.png")
    _show(summary, leaking_pairs(pairs))
    if taxonomy.targets:
        _show_binary(binary, taxonomy.targets)
    _show_tones(tones)
    log.info("Tables and figures: %s", out)


def _draw(
    frame: "pd.DataFrame",
    image_of: "Callable[[str], Image]",
    config: AuditConfig,
    out: Path,
    taxonomy: "Taxonomy",
) -> None:
    from skinlesion.plots import audit as figures
    from skinlesion.plots.style import save

    for figure in (figures.diagnoses, figures.ages, figures.sexes, figures.localizations, figures.images_per_lesion):
        save(figure(frame, taxonomy), out / f"{figure.__name__}.png")
    size = config.samples_per_class
    sheet = figures.sample_sheet(frame, image_of, samples_per_class=size, seed=config.seed, taxonomy=taxonomy)
    save(sheet, out / "sample_sheet.png")


def _show(summary: "DatasetSummary", pairs: "pd.DataFrame") -> None:
    from skinlesion.commands.console import show_table

    splits = summary["splits"]
    parts = {part: splits[part] for part in ("train", "val", "calibration", "test", "left_out") if part in splits}
    rows = [
        (code, *(str(counts["diagnoses"].get(code, 0)) for counts in parts.values())) for code in summary["diagnoses"]
    ]
    total = ("all", *(str(counts["images"]) for counts in parts.values()))
    show_table("Images of each diagnosis", ("diagnosis", *parts), [*rows, total])
    scores = [
        (name, *(f"{value:.3f}" for value in metrics.values()))
        for name, metrics in summary["shortcuts"].items()
        if metrics
    ]
    headings: tuple[str, ...] = ("predicted from", "accuracy", "macro-F1", "balanced accuracy")
    show_table("Diagnosis predicted without the image, on validation", headings, scores)
    headings = ("image", "its double", "similarity", "in", "in")
    listed = pairs[["image_a", "image_b", "similarity", "split_a", "split_b"]].round({"similarity": 3}).astype(str)
    show_table("Doubles in different lesions or splits", headings, listed.to_numpy().tolist())
    if young := summary["implausible_ages"]:
        named = [f"{each['image_id']} ({each['diagnosis']}, age {each['age']:g})" for each in young]
        log.warning(
            "%d images of children with a diagnosis of adults: %s; check the ages", len(young), first_five(named)
        )
    if divided := summary["torn_lesions"]:
        log.warning("%d lesions are in two splits: %s", len(divided), divided[:5])


def _show_binary(found: "dict[str, dict[str, Estimates] | None]", targets: "tuple[str, ...]") -> None:
    from skinlesion.commands.console import show_table, with_interval

    rows = [
        (f"{name}, {images}", *(with_interval(each) for each in areas.values()))
        for name, strata in found.items()
        for images, areas in (strata or {}).items()
    ]
    title = "AUROC without the image, cross-validated over lesions, test left out"
    show_table(title, ("predicted from, images", *targets), rows)


def _show_tones(tones: "pd.DataFrame") -> None:
    from skinlesion.commands.console import show_table

    rows = [
        (str(name), str(len(each)), f"{len(each) / len(tones):.1%}", f"{each['error'].median():.0f}")
        for name, each in tones.groupby("skin_tone")
    ]
    title = "Lightness of the skin in the pictures, which says nothing certain of the person"
    show_table(title, ("individual typology angle", "images", "share", "median error in degrees"), rows)

"""`skinlesion probe`: frozen backbones, judged by simple classifiers once their embeddings are there."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.studies import ProbeConfig

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.inference.predictions import Predictions
    from skinlesion.studies.probe.embedding import Embedders

log = logging.getLogger(__name__)


def run(config: ProbeConfig) -> None:
    """Write a predictions table of each classifier, probe.json, label_errors.csv and cases.npz.

    Raises:
        SkinlesionError: The data, the split, a network or its weights cannot be used.
    """
    from skinlesion.data.readers import read_data, taxonomy_of
    from skinlesion.data.stream import Stream
    from skinlesion.data.treatment import Treatment
    from skinlesion.files import require_writable
    from skinlesion.inference.torch_members import device_of
    from skinlesion.studies.probe.cases import NAME, Cases
    from skinlesion.studies.probe.embedding import Embedders
    from skinlesion.studies.probe.study import cross_validate, refuse_leakage, splits_of
    from skinlesion.taxonomy import Taxonomy

    out = Path(config.out)
    require_writable(out, "out")
    given = Taxonomy.configured(asdict(config.taxonomy))
    frame = read_data(config.data, taxonomy=given)
    taxonomy = taxonomy_of(frame, given)
    splits = splits_of(frame, config.split, taxonomy=taxonomy)
    device = device_of(config.accelerator)
    options: dict[str, Any] = {"pretrained": config.pretrained, "image_size": config.image_size}
    treatment = Treatment(config.hair, config.colour_constancy)
    embedders = Embedders.load(config.backbones, **options, treatment=treatment, device=device)
    refuse_leakage(embedders, splits)
    started = time.monotonic()
    stream = Stream.of(config.data.stream, config.data.stream_gb)
    vectors = embedders.embed_frame(frame, cache_dir=Path(config.data.cache_dir), stream=stream)
    embedded = time.monotonic()
    tables = cross_validate(
        frame,
        vectors,
        splits,
        classifiers=config.classifiers,
        facts=config.facts,
        alpha=config.alpha,
        seed=config.seed,
        taxonomy=taxonomy,
    )
    log.info("Embedding took %.1f s, the classifiers %.1f s", embedded - started, time.monotonic() - embedded)
    Cases.of(frame, vectors, embedders, {"sources": config.backbones, **options, **asdict(treatment)}).write(out / NAME)
    _judge(tables, config, embedders, folds=len(splits), dimensions=vectors.shape[1])
    _list_errors(tables, frame, out)
    log.info("Tables, numbers and cases: %s", out)


def _judge(
    tables: "dict[str, Predictions]", config: ProbeConfig, embedders: "Embedders", *, folds: int, dimensions: int
) -> None:
    """Write the tables and probe.json, and print the headline metrics."""
    from skinlesion.commands.console import resampled, show_metrics
    from skinlesion.files import write_json
    from skinlesion.metrics.estimate import BootstrapConfig, estimates_to_dict
    from skinlesion.metrics.summary import metrics_with_ci

    out, bootstrap = Path(config.out), BootstrapConfig.of(config)
    for name, table in tables.items():
        table.write(out / name / "predictions_test.csv")
    found = {name: metrics_with_ci(table, bootstrap, bins=config.bins) for name, table in tables.items()}
    names = ", ".join(each.name for each in embedders.each)
    first = next(iter(tables.values()))
    over = resampled(first.lesion_id, first.group_id)
    facts = " and facts" if config.facts else ""
    title = f"{names}{facts}: {len(first)} images, {folds} fold(s), {config.level:.0%} intervals over {over}"
    show_metrics(title, list(found.items()), heading="classifier")
    about = {"backbones": config.backbones, "dimensions": dimensions, "folds": folds, "facts": config.facts}
    measured = {name: estimates_to_dict(each) for name, each in found.items()}
    write_json(out / "probe.json", {**about, "level": config.level, "interval": config.interval, "metrics": measured})


def _list_errors(tables: "dict[str, Predictions]", frame: "pd.DataFrame", out: Path) -> None:
    """Write label_errors.csv from the mean of all classifiers, none of which has seen the image."""
    from skinlesion.files import write_csv
    from skinlesion.inference.predictions import Predictions
    from skinlesion.studies.probe.label_errors import label_errors

    vote = Predictions.soft_vote(list(tables.values()))
    errors = label_errors(vote, frame)
    write_csv(out / "label_errors.csv", errors)
    confirmed = int((errors["dx_type"] == "histo").sum())
    log.info("%d of %d diagnoses are likely errors, %d of them by histology", len(errors), len(vote), confirmed)

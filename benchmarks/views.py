"""`python -m benchmarks.views RUNS DATA`: flips and scales at test time, on the validation parts of the folds.

Each fold's ensemble votes on its validation images at several views: as they are, with their flips, at a scale above
the training one (Touvron et al., arXiv:1906.06423), and the mean of three scales. Twice: whole pictures with facts,
judged by the likeliest diagnosis; and centre squares of 224 pixels in their own shape without facts, judged by the
balanced one. All folds pooled; intervals over lesions; differences from the first view are paired.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import pandas as pd
import torch

from benchmarks.measuring import machine
from benchmarks.square import SHOWN, centre
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.image_io import Image, read
from skinlesion.data.readers import read_data
from skinlesion.files import write_json
from skinlesion.inference.calibration import balanced_scores
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.compare import Comparison, compare_tables
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.studies.verify.pages import markdown

RESULT = Path(__file__).parent / "results" / "views.json"
SCALES = (1.2, 1.4)  # of a side, against training's
MEAN = f"mean of scales {', '.join(map(str, (1, *SCALES)))}"


def main() -> None:
    """Measure, print the tables and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of fold0, fold1, ..., as skinlesion folds makes them")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data).set_index("image_id")
    found: dict[str, dict[str, list[Predictions]]] = {"pictures with facts": {}, "squares without facts": {}}
    for path in sorted(arguments.runs.glob("fold*/ensemble/ensemble.json")):
        for kind, tables in found.items():
            for view, table in fold(path, frame, square=kind.startswith("squares")).items():
                tables.setdefault(view, []).append(table)
            print(path.parent.parent.name, kind, file=sys.stderr, flush=True)
    result: dict[str, object] = {"part": "val", "machine": machine()}
    for kind, tables in found.items():
        pooled = {view: Predictions.concatenate(each).sorted() for view, each in tables.items()}
        comparison = compare_tables(pooled, BootstrapConfig(), bins=10)
        result[kind] = comparison.to_dict()
        print(f"{table_of(comparison, kind)}\n")
    write_json(arguments.out, result)


def fold(path: Path, frame: pd.DataFrame, *, square: bool) -> dict[str, Predictions]:
    """A fold's predictions of its validation images, for each view."""
    predictor = Predictor.load(path, accelerator="cpu")
    members, prior = predictor.networks, list((predictor.posthoc.decision or {})["prior"].values())
    members.takes_any_shape = square
    ids = sorted(members.models[0].split["val"])
    rows, facts = frame.loc[ids], [fact.name for fact in predictor.encoder.facts]
    images = [read(Path(file)) for file in rows["path"]]
    if square:
        images = [centre(image) for image in images]

    def voted(images: Sequence[Image]) -> Predictions:
        made = predictor.predict(images, None if square else rows[facts], names=ids)
        table = Predictions.build(
            ids, rows["lesion_id"].tolist(), probabilities=made.probabilities, actual=rows["diagnosis"].tolist()
        )
        return replace(table, scores=balanced_scores(table.probabilities, prior)) if square else table

    found = {"as it is": voted(images)}
    members.tta = "flips"
    found["flips"] = voted(images)
    members.tta = "none"
    models = members.models
    for scale in SCALES:
        members.models = [
            replace(model, spec=replace(model.spec, size=(round(scale * height), round(scale * width))))
            for model in models
            for height, width in [model.spec.size]
        ]
        members.sizes = list(dict.fromkeys(model.spec.size for model in members.models))
        found[f"scale {scale}"] = voted(images)
    scaled = [found["as it is"], *(found[f"scale {scale}"] for scale in SCALES)]
    mean = np.mean([table.probabilities for table in scaled], axis=0)
    scores = balanced_scores(mean, prior) if square else None
    found[MEAN] = replace(scaled[0], probabilities=mean, scores=scores)
    return found


def table_of(comparison: Comparison, kind: str) -> str:
    """The results as Markdown: values of the images as they are, differences from them below."""
    rows = [[comparison.reference, *(comparison.tables[comparison.reference][metric].text() for metric in SHOWN)]]
    rows += [
        [f"{view} minus it", *(comparison.differences[view][metric].text("+.3f") for metric in SHOWN)]
        for view in comparison.differences
    ]
    return markdown([kind, *SHOWN.values()], rows)


if __name__ == "__main__":
    main()

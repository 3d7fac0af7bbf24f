"""`python -m benchmarks.square RUNS DATA`: centre squares of 224 pixels without facts, as other collections give them.

Each fold's ensemble votes on the images of a part of its split, cut to the square in the middle, with nothing known
about the patient: padded with black to the training's shape, and in their own shape with as many pixels
(model.padding). Both are judged by the likeliest diagnosis and by the balanced one (decision=balanced), all folds
pooled, with intervals over lesions; differences are paired. The validation parts choose.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.measuring import machine
from benchmarks.publish import write
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.image_io import Image, read
from skinlesion.data.readers import read_data
from skinlesion.files import write_json
from skinlesion.inference.calibration import balanced_scores
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.compare import compare_tables
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.studies.verify.pages import markdown

RESULT = Path(__file__).parent / "results" / "square.json"
SIDE = 224
SHOWN = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "auroc_mel": "AUROC of melanoma",
}


def main() -> None:
    """Measure, print the table and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.square", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of fold0, fold1, ..., as skinlesion folds makes them")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("--part", choices=("val", "test"), default="val")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    parser.add_argument("--predictions", type=Path, help="shipped table of the squares in their own shape, balanced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data).set_index("image_id")
    found: dict[str, list[Predictions]] = {}
    folds: list[int] = []
    for path in sorted(arguments.runs.glob("fold*/ensemble/ensemble.json")):
        predictor = Predictor.load(path, accelerator="cpu")
        prior = list((predictor.posthoc.decision or {})["prior"].values())
        ids = predictor.networks.models[0].split[arguments.part]
        rows = frame.loc[ids]
        squares = [centre(read(Path(file))) for file in rows["path"]]
        lesions, actual = rows["lesion_id"].tolist(), rows["diagnosis"].tolist()
        for shape, takes_any_shape in (("padded", False), ("own shape", True)):
            predictor.networks.takes_any_shape = takes_any_shape
            table = predictor.predict(squares, names=ids)
            for rule in ("likeliest", "balanced"):
                scores = table.probabilities
                if rule == "balanced":
                    scores = balanced_scores(scores, prior)
                made = Predictions.build(ids, lesions, probabilities=table.probabilities, actual=actual)
                scores = scores[np.argsort(ids)]  # as `build` sorts
                found.setdefault(f"{shape}, {rule}", []).append(replace(made, scores=scores))
        folds += [int(path.parent.parent.name.removeprefix("fold"))] * len(ids)
        print(path.parent.parent.name, flush=True)
    pooled = {name: Predictions.concatenate(each).sorted() for name, each in found.items()}
    comparison = compare_tables(pooled, BootstrapConfig(), bins=10)
    write_json(arguments.out, {"part": arguments.part, "machine": machine(), **comparison.to_dict()})
    rows_of = [[name, *(each[metric].text() for metric in SHOWN)] for name, each in comparison.tables.items()]
    rows_of += [
        [f"{name} minus {comparison.reference}", *(each[metric].text("+.3f") for metric in SHOWN)]
        for name, each in comparison.differences.items()
    ]
    if arguments.predictions:
        own = pd.concat([table.to_frame() for table in found["own shape, balanced"]])
        write(own.assign(fold=folds), frame, arguments.predictions)
    print(markdown(["pictures", *SHOWN.values()], rows_of))


def centre(image: Image) -> Image:
    """The square in the middle of an image (h, w, 3), at 224 pixels a side."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    way = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=way), np.uint8)


if __name__ == "__main__":
    main()

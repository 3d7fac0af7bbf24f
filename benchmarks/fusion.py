"""`python -m benchmarks.fusion RUNS DATA FEATURES`: what the facts are worth, and how they should enter, on the folds.

For each fold, the backbone that MEMBER of it tuned gives pooled features, (images, C). On those of the training part
the package's head is fitted anew with each fusion (FusionGate, FiLM, MetaBlock, concatenation) and with none, and
judged on the fold; attention has no place on a pooled map. Each fusion has three seeds, of weights and batches;
intervals are of the mean over seeds, by a bootstrap over lesions; differences are paired. The backbones were tuned with
the gate, which may favour it.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import machine
from benchmarks.source_shortcut import LOSS_EPOCHS, SEEDS, Images, compared, descend, embed, predictions
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.readers import read_data
from skinlesion.files import write_json
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import Estimate
from skinlesion.metrics.summary import metrics_statistic
from skinlesion.model.network import Fusion, Head
from skinlesion.studies.verify.pages import markdown
from skinlesion.training.checkpoint import TrainedModel, load_model
from skinlesion.training.losses import focal_loss, inverse_frequency_weights

RESULT = Path(__file__).parent / "results" / "fusion.json"
FUSIONS = ("none", *(fusion for fusion in get_args(Fusion) if fusion != "none"))  # the others are compared with it
SHOWN = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "auroc_mel": "AUROC of melanoma"}


def main() -> None:
    """Measure, print the table and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of fold0, fold1, ...")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("features", type=Path, help="folder that keeps the features, for the next time")
    parser.add_argument("--member", default="lite0", help="folder in each fold's")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    arguments.features.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data)
    found: dict[str, list[list[Predictions]]] = {fusion: [[] for _ in SEEDS] for fusion in FUSIONS}
    folds = sorted(path.parent.parent for path in arguments.runs.glob(f"fold*/{arguments.member}/best.ckpt"))
    for fold in folds:
        model = load_model(fold / arguments.member)
        images = embed(model, frame, None, arguments.features / f"{fold.name}.npy")
        rows = [np.flatnonzero(frame["image_id"].isin(model.split[part])) for part in ("train", "test")]
        train, test = map(images.rows, rows)
        for fusion in FUSIONS:
            for seed, tables in zip(SEEDS, found[fusion], strict=True):
                torch.manual_seed(seed)
                tables.append(judged(fusion, train, test, model))
            print(fold.name, fusion, file=sys.stderr, flush=True)
    pooled = {fusion: [Predictions.concatenate(each).sorted() for each in seeds] for fusion, seeds in found.items()}
    statistic = partial(metrics_statistic, bins=15)
    measured = {
        fusion: compared(statistic, tables, () if fusion == "none" else pooled["none"])
        for fusion, tables in pooled.items()
    }
    result = {"folds": len(folds), "seeds": SEEDS, "epochs": LOSS_EPOCHS, "machine": machine(), "fusions": measured}
    kept = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 5))
    write_json(arguments.out, kept)
    print(table(kept["fusions"]))


def judged(fusion: str, train: Images, test: Images, model: TrainedModel) -> Predictions:
    """Predictions by the package's head on maps of one position, with a fusion."""
    missing, facts = torch.from_numpy(model.encoder.missing()), torch.tensor(model.encoder.fact_of_column)
    options: Any = {"fusion": fusion, "attention": "none", "fact_dropout": 0.3}
    classes = len(model.classes)
    head = Head(train.features.shape[1], classes, missing=missing, fact_of_column=facts, **options)
    weights = inverse_frequency_weights(torch.bincount(train.target, minlength=classes).tolist(), alpha=0.5)

    def loss_of(rows: Tensor, _: float) -> Tensor:
        logits = head(train.features[rows, :, None, None], train.facts[rows])
        return focal_loss(logits, train.target[rows], weights=weights, gamma=2.0, smoothing=0.1)

    descend(head, loss_of, len(train.target), epochs=LOSS_EPOCHS)
    with torch.inference_mode():
        return predictions(test.frame, head(test.features[:, :, None, None], test.facts).softmax(dim=1))


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown: values of the image alone, differences from them below."""
    rows = []
    for fusion, entry in found.items():
        name = "image alone" if fusion == "none" else f"{fusion} minus image alone"
        values, style = entry.get("difference", entry["value"]), "+.3f" if "difference" in entry else ".3f"
        rows.append([name, *(Estimate(*values[metric]).text(style) for metric in SHOWN)])
    return markdown(["fusion", *SHOWN.values()], rows)


if __name__ == "__main__":
    main()

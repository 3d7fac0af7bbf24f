"""`python -m benchmarks.recipe RUNS DATA FEATURES`: what each part of the recipe is worth, on validation.

For each fold, the backbone that MEMBER of it tuned gives pooled features, (images, C), as in `benchmarks.fusion`, which
keeps them in FEATURES. On those of the training part the package's head is fitted anew with one part of the recipe
changed, and judged on the fold's validation part. Each trial has three seeds, of weights and batches; intervals are of
the mean over seeds, by a bootstrap over lesions; differences are paired. The backbones were tuned with the recipe as it
is, which may favour it, and what changes images (augmentation, colour) cannot be tried on features.

Logit adjustment adds the logarithms of the classes' shares to the logits in training (Menon et al., ICLR 2021,
arXiv:2007.07314); deferred weights come in the last quarter of the epochs (Cao et al., NeurIPS 2019, arXiv:1906.07413).
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.measuring import machine
from benchmarks.source_shortcut import LOSS_EPOCHS, SEEDS, Images, compared, descend, embed, pair_counts, predictions
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.readers import read_data
from skinlesion.files import write_json
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import Estimate
from skinlesion.metrics.summary import metrics_statistic
from skinlesion.model.network import Head
from skinlesion.studies.verify.pages import markdown
from skinlesion.taxonomy import HAM10000
from skinlesion.training.checkpoint import load_model
from skinlesion.training.losses import focal_loss, inverse_frequency_weights, mixup_loss

RESULT = Path(__file__).parent / "results" / "recipe.json"
SHOWN = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "auroc_mel": "AUROC of melanoma",
    "nll": "negative log-likelihood",
}


@dataclass(frozen=True)
class Trial:
    """A recipe of the head; the defaults are those of ham10000_public_folds."""

    alpha: float = 0.5  # of the class weights
    deferred: bool = False  # class weights in the last quarter of the epochs alone
    adjusted: float = 0.0  # factor of the logit adjustment
    drawn: str = "shuffled"  # shuffled | classes | sources: each as often
    fact_dropout: float = 0.3
    ema_decay: float = 0.0  # a step; 0: none
    mixup: float = 0.0  # concentration, of the features
    epochs: int = LOSS_EPOCHS
    fusion: str = "gate"


TRIALS = {
    "as it is": Trial(),  # first: the others are compared with it
    "no class weights": Trial(alpha=0),
    "weights inverse to the frequency": Trial(alpha=1),
    "the same, deferred": Trial(alpha=1, deferred=True),
    "logit adjustment, no weights": Trial(alpha=0, adjusted=1),
    "half the logit adjustment, no weights": Trial(alpha=0, adjusted=0.5),
    "each class drawn as often, no weights": Trial(alpha=0, drawn="classes"),
    "each source drawn as often": Trial(drawn="sources"),
    "no fact dropout": Trial(fact_dropout=0),
    "fact dropout 0.5": Trial(fact_dropout=0.5),
    "moving average, 0.99 a step": Trial(ema_decay=0.99),
    "mixup of features, 0.2": Trial(mixup=0.2),
    "twice the epochs": Trial(epochs=2 * LOSS_EPOCHS),
}


def main() -> None:
    """Measure, print the table and write all as JSON."""
    arguments = parsed(__doc__, "recipe", RESULT)
    found = fitted(TRIALS, arguments, part="val")
    print(table(found["trials"], "trial", "as it is", SHOWN))


def parsed(doc: str | None, name: str, result: Path) -> argparse.Namespace:
    """The arguments of a benchmark on the folds' features."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("runs", type=Path, help="folder of fold0, fold1, ...")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("features", type=Path, help="folder that keeps the features, for the next time")
    parser.add_argument("--member", default="lite0", help="folder in each fold's")
    parser.add_argument("--out", type=Path, default=result, help="JSON file")
    return parser.parse_args()


def fitted(trials: Mapping[str, Trial], arguments: argparse.Namespace, *, part: str) -> dict[str, Any]:
    """Fit each trial on each fold with each seed, compare them with the first, and write all as JSON."""
    arguments.features.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data)
    found: dict[str, list[list[Predictions]]] = {name: [[] for _ in SEEDS] for name in trials}
    folds = sorted(path.parent.parent for path in arguments.runs.glob(f"fold*/{arguments.member}/best.ckpt"))
    for fold in folds:
        model = load_model(fold / arguments.member)
        images = embed(model, frame, None, arguments.features / f"{fold.name}.npy")
        rows = [np.flatnonzero(frame["image_id"].isin(model.split[of])) for of in ("train", part)]
        train, judged = map(images.rows, rows)
        for name, trial in trials.items():
            for seed, tables in zip(SEEDS, found[name], strict=True):
                torch.manual_seed(seed)
                tables.append(fit(trial, train, judged, model.encoder))
            print(fold.name, name, file=sys.stderr, flush=True)
    pooled = {name: [Predictions.concatenate(each).sorted() for each in seeds] for name, seeds in found.items()}
    about = {"part": part, "folds": len(folds), "seeds": SEEDS, "epochs": LOSS_EPOCHS}
    return compared_with_first(pooled, about, arguments.out)


def compared_with_first(
    trials: Mapping[str, Sequence[Predictions]], about: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Compare each trial's tables, one a seed, with the first trial's; write all as JSON, with five digits."""
    statistic, (first, *_) = partial(metrics_statistic, bins=15), trials
    measured = {
        name: compared(statistic, tables, () if name == first else trials[first]) for name, tables in trials.items()
    }
    result = {**about, "machine": machine(), "trials": measured}
    kept = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 5))
    write_json(path, kept)
    return dict(kept)


def fit(trial: Trial, train: Images, judged: Images, encoder: MetadataEncoder) -> Predictions:
    """Predictions by the package's head, fitted on maps of one position; attention has no place there."""
    missing, facts = torch.from_numpy(encoder.missing()), torch.tensor(encoder.fact_of_column)
    options: Any = {"fusion": trial.fusion, "attention": "none", "fact_dropout": trial.fact_dropout}
    counts = torch.bincount(train.target, minlength=len(HAM10000.codes))
    head = Head(train.features.shape[1], len(counts), missing=missing, fact_of_column=facts, **options)
    average: Any = get_ema_multi_avg_fn  # torch leaves it untyped
    averaged = AveragedModel(head, multi_avg_fn=average(trial.ema_decay)) if trial.ema_decay else None
    weights = inverse_frequency_weights(counts.tolist(), alpha=trial.alpha)
    shift = trial.adjusted * (counts / counts.sum()).log()

    def loss_of(rows: Tensor, progress: float) -> Tensor:
        if averaged is not None:
            averaged.update_parameters(head)
        weighed = weights if not trial.deferred or progress >= 0.75 else None
        criterion = partial(focal_loss, weights=weighed, gamma=2.0, smoothing=0.1)
        batch = {
            "feature_map": train.features[rows, :, None, None],
            "metadata": train.facts[rows],
            "target": train.target[rows],
        }
        if trial.mixup:
            return mixup_loss(
                criterion, lambda of: head(of["feature_map"], of["metadata"]), batch, concentration=trial.mixup
            )
        return criterion(head(batch["feature_map"], batch["metadata"]) + shift, batch["target"])

    drawn = {
        "shuffled": None,
        "classes": 1 / counts[train.target],
        "sources": 1 / pair_counts(train.source, train.target).sum(dim=1)[train.source],
    }
    descend(head, loss_of, len(train.target), epochs=trial.epochs, chances=drawn[trial.drawn])
    used = head if averaged is None else deepcopy(averaged.module).eval()
    with torch.inference_mode():
        return predictions(judged.frame, used(judged.features[:, :, None, None], judged.facts).softmax(dim=1))


def table(found: Mapping[str, Any], title: str, reference: str, shown: Mapping[str, str]) -> str:
    """The results as Markdown: values of the reference, differences from it below."""
    rows = []
    for name, entry in found.items():
        values, style = entry.get("difference", entry["value"]), "+.3f" if "difference" in entry else ".3f"
        rows.append(
            [name if name == reference else f"{name} minus {reference}"]
            + [Estimate(*values[metric]).text(style) for metric in shown]
        )
    return markdown([title, *shown.values()], rows)


if __name__ == "__main__":
    main()

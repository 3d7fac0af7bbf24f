"""`python -m benchmarks.source_shortcut RUN DATA WEIGHTS FEATURES`: heads without the camera's help, and losses.

Features are the backbone's pooled maps, (images, 1280). With its ImageNet weights, heads are judged by cross-fitting
over the lesions of the run's training and validation parts. As RUN tuned it, they are fitted on the training part and
judged on the validation part, as losses always are. The test part is not read. Each trial has three seeds, of weights,
batches and cross-fitting; intervals are of the mean over seeds, by a bootstrap over lesions; differences are paired.

Reweighing gives each image P(source) P(diagnosis) / P(source, diagnosis), so that the two are independent where both
occur (Kamiran & Calders, Knowl. Inf. Syst. 33:1-33, 2012, doi:10.1007/s10115-011-0463-8). An adversary tells the source
from the hidden layer, whose gradient is reversed (Ganin et al., J. Mach. Learn. Res. 17(59):1-35, 2016).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks.measuring import machine
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.image_io import fit, read
from skinlesion.data.readers import read_data
from skinlesion.data.transforms import normalise
from skinlesion.files import write_json
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.baselines import BASELINES, predict_without_image
from skinlesion.metrics.bootstrap import Difference, JointStatistic, Replicates, Statistic, bootstrap
from skinlesion.metrics.classification import Floats, Integers
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates
from skinlesion.metrics.summary import category_auroc, groups_of, metrics_statistic, strata_of
from skinlesion.model.funnel import DenseFunnel
from skinlesion.model.network import Head
from skinlesion.model.pretrained import load_pretrained
from skinlesion.taxonomy import HAM10000
from skinlesion.training.checkpoint import TrainedModel, load_model
from skinlesion.training.feature_cache import backbone_maps
from skinlesion.training.losses import focal_loss, inverse_frequency_weights

RESULT = Path(__file__).parent / "results" / "source_shortcut.json"
SEEDS, BATCH = (0, 1, 2), 128
EPOCHS, LOSS_EPOCHS = 6, 8  # of a head on features, where more overfit the plain one; of the package's head
CONFIG = BootstrapConfig(resamples=1000)
HEADS: dict[str, tuple[int, ...]] = {"linear": (), "mlp": (128,)}
AREAS = ("auroc_mel", "auroc_malignant")
KEPT = ("macro_f1", "balanced_accuracy", "nll", "ece", *AREAS)

Parts = Sequence[tuple[Integers, Integers]]  # rows to fit to and rows to predict, in turn


@dataclass(frozen=True)
class Trial:
    """How a head is kept from leaning on the source."""

    weighed: bool = False  # the loss, by `independence_weights`
    drawn: str = "shuffled"  # shuffled | independent: by those weights | cells: each source and diagnosis as often
    without_dominant: bool = False  # fitted without the source of most nevi
    adversary: float = 0.0  # final strength of the reversed gradient
    within_source: bool = False  # features standardised by source, which must then be known in use
    epochs: int | None = None  # instead of `EPOCHS`


TRIALS = {
    "plain": Trial(),
    "reweighed": Trial(weighed=True),
    "drawn by the same weights": Trial(drawn="independent"),
    "each source and diagnosis drawn as often": Trial(drawn="cells"),
    "fitted without MoleMax": Trial(without_dominant=True),
    "fitted without MoleMax, as many steps": Trial(without_dominant=True, epochs=10),
    "plain, as many steps as without MoleMax": Trial(epochs=4),
    "standardised within source": Trial(within_source=True),
    "adversary, 0.1": Trial(adversary=0.1),
    "adversary, 0.3": Trial(adversary=0.3),
    "adversary, 1": Trial(adversary=1.0),
    "adversary, 1, reweighed": Trial(adversary=1.0, weighed=True),
}


def smoothed_focal(logits: Tensor, target: Tensor, *, weights: Tensor, gamma: float, smoothing: float) -> Tensor:
    """The focal loss with label smoothing, -alpha_t sum_k y_k (1 - p_k)^gamma log p_k; cross-entropy at gamma 0."""
    log_p = F.log_softmax(logits, dim=1)
    y = (1 - smoothing) * F.one_hot(target, logits.shape[1]) + smoothing / logits.shape[1]
    return -(weights[target] * (y * (1 - log_p.exp()) ** gamma * log_p).sum(dim=1)).mean()


# label smoothing first: the two after it are compared with it
LOSSES: dict[str, Callable[..., Tensor]] = {
    f"{name}, γ {gamma:g}": partial(loss, gamma=gamma, smoothing=smoothing)
    for gamma in (2.0, 0.0)
    for name, loss, smoothing in (
        ("label smoothing", smoothed_focal, 0.1),
        ("bounded", focal_loss, 0.1),
        ("no smoothing", focal_loss, 0.0),
    )
}


@dataclass(frozen=True)
class Images:
    """N images: their checked frame, pooled features (N, C), encoded facts (N, M) and class indices (N,)."""

    frame: pd.DataFrame
    features: Tensor
    facts: Tensor
    target: Tensor
    source: Tensor  # (N,) numbers of the sources
    dominant: Tensor  # (N,) whether the source is that of most nevi

    def rows(self, where: Integers) -> "Images":
        """The images at some positions."""
        return Images(self.frame.iloc[where], *(each[where] for each in list(vars(self).values())[1:]))


@dataclass(frozen=True)
class Mean:
    """The numbers that are kept of a statistic, averaged over seeds."""

    parts: Sequence[Statistic]

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        return _mean([part.resampled(weights) for part in self.parts])

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return _mean([part.jackknife() for part in self.parts])


def _mean(each: Sequence[Replicates]) -> Replicates:
    return {name: np.mean([one[name] for one in each], axis=0) for name in KEPT if name in each[0]}


def main() -> None:
    """Measure, print the tables and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.source_shortcut", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run on HAM10000, with best.ckpt")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("weights", type=Path, help="ImageNet weights of the run's backbone")
    parser.add_argument("features", type=Path, help="folder that keeps the features of this run, for the next time")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    arguments.features.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model = load_model(arguments.run)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data)
    frame = frame[frame["image_id"].isin([*model.split["train"], *model.split["val"]])].reset_index(drop=True)
    is_val = frame["image_id"].isin(model.split["val"]).to_numpy()
    held_out = [[(np.flatnonzero(~is_val), np.flatnonzero(is_val))]] * len(SEEDS)
    folds = [GroupKFold(3, shuffle=True, random_state=seed) for seed in SEEDS]
    crossed = [list(each.split(frame, groups=frame["lesion_id"])) for each in folds]
    found: dict[str, Any] = {"seeds": SEEDS, "epochs": [EPOCHS, LOSS_EPOCHS], "machine": machine()}
    for name, weights, parts in (("frozen", arguments.weights, crossed), ("tuned", None, held_out)):
        images = embed(model, frame, weights, arguments.features / f"{name}.npy")
        found[name] = {"heads": compare_heads(images, parts), "losses": compare_losses(images, held_out, model)}
    kept = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 5))
    write_json(arguments.out, kept)
    print(tables(kept))


def embed(model: TrainedModel, frame: pd.DataFrame, weights: Path | None, path: Path) -> Images:
    """The images of a frame under the model's backbone, with other weights where they are given."""
    if not path.exists():
        backbone, pooled = load_model(model.path).network.backbone, []
        load_pretrained(backbone, weights or False)
        for files in np.array_split(frame["path"], -(-len(frame) // 64)):
            pixels = np.stack([fit(read(Path(file)), model.spec.size) for file in files])
            with torch.inference_mode():
                pooled.append(backbone_maps(backbone, normalise(pixels, model.spec)).mean(dim=(2, 3)))
        np.save(path, torch.cat(pooled).numpy())
    return images_of(frame, torch.from_numpy(np.load(path)), torch.from_numpy(model.encoder.encode(frame)))


def images_of(frame: pd.DataFrame, features: Tensor, facts: Tensor) -> Images:
    """The images of a checked frame with their features and facts."""
    source, dominant = frame["dataset"], frame["dataset"][frame["diagnosis"] == HAM10000.majority].mode()[0]
    numbers, target = (
        torch.from_numpy(pd.factorize(source, sort=True)[0]),
        torch.from_numpy(HAM10000.indices(frame["diagnosis"].tolist())),
    )
    return Images(frame, features, facts, target, numbers, torch.from_numpy((source == dominant).to_numpy(copy=True)))


def pair_counts(source: Tensor, target: Tensor) -> Tensor:
    """Count the images of each source and diagnosis: (S, K) float32."""
    pairs = torch.bincount(
        len(HAM10000.codes) * source + target, minlength=len(HAM10000.codes) * (int(source.max()) + 1)
    )
    return pairs.view(-1, len(HAM10000.codes)).float()


def independence_weights(source: Tensor, target: Tensor) -> Tensor:
    """P(source) P(target) / P(source, target) of each image, (N,) float32."""
    counts = pair_counts(source, target)
    expected = counts.sum(dim=1, keepdim=True) * counts.sum(dim=0) / len(target)
    return (expected / counts)[source, target]


def reverse(hidden: Tensor, strength: float) -> Tensor:
    """The same values, with the gradient times -strength."""
    return (1 + strength) * hidden.detach() - strength * hidden


def descend(
    net: nn.Module, loss_of: Callable[[Tensor, float], Tensor], n: int, *, epochs: int, chances: Tensor | None = None
) -> None:
    """Train on N images, shuffled, or drawn by `chances` (N,); `loss_of` takes rows and the progress, 0..1."""
    optimizer = torch.optim.AdamW(net.train().parameters(), 1e-3, weight_decay=1e-2)
    batches = n // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for epoch in range(epochs):
        order = torch.randperm(n) if chances is None else torch.multinomial(chances, n, replacement=True)
        for place, rows in enumerate(torch.split(order[: batches * BATCH], BATCH)):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(rows, (epoch + place / batches) / epochs))
            optimizer.step()
            schedule.step()
    net.eval()


def fit_head(trial: Trial, widths: Sequence[int], images: Images) -> DenseFunnel:
    """A new head on pooled features; its last layer gives the logits."""
    target, source, channels = images.target, images.source, images.features.shape[1]
    weights, counts = independence_weights(source, target), pair_counts(source, target)
    chances = {"shuffled": None, "independent": weights, "cells": 1 / counts[source, target]}[trial.drawn]
    head = DenseFunnel(channels, len(HAM10000.codes), widths=widths)
    adversary = DenseFunnel((channels, *widths)[-1], len(counts), widths=(64,), dropout=0.0)

    def loss_of(rows: Tensor, progress: float) -> Tensor:
        hidden = head.layers[:-1](images.features[rows])
        loss = F.cross_entropy(head.layers[-1](hidden), target[rows], reduction="none")
        if trial.adversary:
            strength = trial.adversary * (2 / (1 + np.exp(-10 * progress)) - 1)  # as Ganin et al. raise it
            loss = loss + F.cross_entropy(adversary(reverse(hidden, strength)), source[rows], reduction="none")
        return (loss * weights[rows]).mean() if trial.weighed else loss.mean()

    descend(nn.ModuleList([head, adversary]), loss_of, len(target), epochs=trial.epochs or EPOCHS, chances=chances)
    return head


def within_source(images: Images, reference: Images) -> Images:
    """The images with features standardised by the mean and deviation of their source in the reference."""
    features = images.features.clone()
    for source in range(int(images.source.max()) + 1):
        own, here = reference.features[reference.source == source], images.source == source
        features[here] = (features[here] - own.mean(dim=0)) / (own.std(dim=0) + 1e-6)
    return replace(images, features=features)


def run_trial(
    trial: Trial, widths: Sequence[int], images: Images, parts: Parts
) -> tuple[Predictions, dict[str, float]]:
    """Predictions of all judged images, and from what MoleMax is told among nevi: the mean AUROC over the parts."""
    found, told = [], []
    for fitted, judged in parts:
        pair = images.rows(fitted), images.rows(judged)
        train, test = (within_source(each, pair[0]) for each in pair) if trial.within_source else pair
        head = fit_head(trial, widths, train.rows(np.flatnonzero(~train.dominant)) if trial.without_dominant else train)
        with torch.inference_mode():
            hidden = [head.layers[:-1](each.features) for each in (train, test)]
            logits = [head.layers[-1](each) for each in hidden]
        found.append(predictions(test.frame, logits[1].softmax(dim=1)))
        told.append({"hidden": tell(hidden, (train, test)), "logits": tell(logits, (train, test))})
    return Predictions.concatenate(found).sorted(), {k: float(np.mean([each[k] for each in told])) for k in told[0]}


def tell(values: Sequence[Tensor], images: Sequence[Images]) -> float:
    """AUROC of the dominant source among nevi, by a logistic regression fitted to the first, judged on the second."""
    nevi = [each.target == HAM10000.codes.index(HAM10000.majority) for each in images]
    x, z = (each[own].numpy() for each, own in zip(values, nevi, strict=True))
    y, actual = (each.dominant[own].numpy() for each, own in zip(images, nevi, strict=True))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(x, y)
    return float(roc_auc_score(actual, probe.decision_function(z)))


def predictions(frame: pd.DataFrame, probabilities: Any) -> Predictions:
    """A table of a frame's images."""
    ids, lesions, actual = (frame[column].tolist() for column in ("image_id", "lesion_id", "diagnosis"))
    return Predictions.build(ids, lesions, probabilities=probabilities, actual=actual)


def camera(frame: pd.DataFrame, parts: Parts) -> Predictions:
    """The baseline that knows the source alone."""
    pairs = [(frame.iloc[fitted], frame.iloc[judged]) for fitted, judged in parts]
    known = [predictions(test, predict_without_image(train, test, BASELINES["camera"])) for train, test in pairs]
    return Predictions.concatenate(known).sorted()


def compare_heads(images: Images, parts: Sequence[Parts]) -> dict[str, Any]:
    """Every trial of every head, with what tells the source; differences are from the plain trial of the head."""
    found: dict[str, Any] = {"camera alone": by_stratum([camera(images.frame, each) for each in parts], images.frame)}
    for kind, widths in HEADS.items():
        plain: Sequence[Predictions] = ()
        for name, trial in TRIALS.items():
            if trial.adversary and not widths:
                continue  # nothing hidden that could give way
            runs = []
            for seed, each in zip(SEEDS, parts, strict=True):
                torch.manual_seed(seed)
                runs.append(run_trial(trial, widths, images, each))
            tables, told = zip(*runs, strict=True)
            known = {key: float(np.mean([each[key] for each in told])) for key in told[0]}
            found[f"{kind}, {name}"] = {"told": known, **by_stratum(tables, images.frame, plain)}
            plain = plain or tables
            print(kind, name, file=sys.stderr, flush=True)
    return found


def by_stratum(tables: Sequence[Predictions], frame: pd.DataFrame, plain: Sequence[Predictions] = ()) -> dict[str, Any]:
    """AUROC of melanoma and of malignant: over all images, without MoleMax, on histology alone, within each source."""
    groups = groups_of(tables[0], frame)
    sources = np.asarray(groups["dataset"], dtype=object)
    strata = strata_of(tables[0], groups) | {name: sources == name for name in sorted(set(sources))}
    return {
        name: compared(_areas, *([each.select(kept) for each in of] for of in (tables, plain)))
        for name, kept in strata.items()
    }


def _areas(table: Predictions) -> Statistic:
    return JointStatistic(tuple(category_auroc(table, name.removeprefix("auroc_")) for name in AREAS))


def compared(
    statistic: Callable[[Predictions], Statistic], tables: Sequence[Predictions], plain: Sequence[Predictions] = ()
) -> dict[str, Any]:
    """Means over seeds, their differences from those of the plain tables, and the differences of each seed."""
    lesions, own = tables[0].lesions, [statistic(each) for each in tables]
    found: dict[str, Any] = {"value": _ends(bootstrap(Mean(own), CONFIG, lesions=lesions))}
    if plain:
        pairs = [Difference(one, statistic(other)) for one, other in zip(own, plain, strict=True)]
        gain, alone = bootstrap(Mean(pairs), CONFIG, lesions=lesions), np.ones((1, lesions))
        found["difference"] = _ends(gain)
        found["seeds"] = {name: [float(each.resampled(alone)[name][0]) for each in pairs] for name in gain}
    return found


def _ends(estimates: Estimates) -> dict[str, list[float | None]]:
    return {name: [each.value, each.low, each.high] for name, each in estimates.items()}


def compare_losses(images: Images, parts: Sequence[Parts], model: TrainedModel) -> dict[str, Any]:
    """The package's head with each loss; differences are from label smoothing with the same exponent."""
    found: dict[str, Any] = {}
    reference: Sequence[Predictions] = ()
    for name, loss in LOSSES.items():
        tables = []
        for seed, each in zip(SEEDS, parts, strict=True):
            torch.manual_seed(seed)
            pairs = [(images.rows(fitted), images.rows(judged)) for fitted, judged in each]
            tables.append(Predictions.concatenate([with_loss(loss, *pair, model) for pair in pairs]).sorted())
        reference = () if name.startswith("label smoothing") else reference
        found[name] = compared(partial(metrics_statistic, bins=15), tables, reference)
        reference = reference or tables
        print(name, file=sys.stderr, flush=True)
    return found


def with_loss(loss: Callable[..., Tensor], train: Images, test: Images, model: TrainedModel) -> Predictions:
    """Predictions by the package's head, which gets pooled maps of one position, fitted with a loss."""
    missing, facts = torch.from_numpy(model.encoder.missing()), torch.tensor(model.encoder.fact_of_column)
    head = Head(train.features.shape[1], len(HAM10000.codes), missing=missing, fact_of_column=facts, fact_dropout=0.3)
    weights = inverse_frequency_weights(torch.bincount(train.target, minlength=len(HAM10000.codes)).tolist(), alpha=0.5)

    def loss_of(rows: Tensor, _: float) -> Tensor:
        logits = head(train.features[rows, :, None, None], train.facts[rows])
        return loss(logits, train.target[rows], weights=weights)

    descend(head, loss_of, len(train.target), epochs=LOSS_EPOCHS)
    with torch.inference_mode():
        return predictions(test.frame, head(test.features[:, :, None, None], test.facts).softmax(dim=1))


_TITLES = {"all images": "all", "without vidir_molemax": "without MoleMax", "histology alone": "histology"}


def tables(found: Mapping[str, Any]) -> str:
    """The results as Markdown: values of the references in italics, differences from them below."""
    places = [(stratum, metric) for stratum in _TITLES for metric in AREAS]
    parts = []
    for name in ("frozen", "tuned"):
        heads, losses = found[name]["heads"], found[name]["losses"]
        titles = [f"{metric.removeprefix('auroc_')}, {_TITLES[stratum]}" for stratum, metric in places]
        rows = [
            [row, *(_cell(each[stratum], metric) for stratum, metric in places), *_told(each)]
            for row, each in heads.items()
        ]
        parts.append(_markdown([f"head on {name} features", *titles, "MoleMax told among nevi"], rows))
        rows = [[row, *(_cell(each, metric) for metric in KEPT[:4])] for row, each in losses.items()]
        parts.append(_markdown([f"loss, {name} features", *KEPT[:4]], rows))
    return "\n\n".join(parts)


def _cell(entry: Mapping[str, Any], metric: str) -> str:
    if "difference" in entry:
        return Estimate(*entry["difference"][metric]).text("+.3f")
    return f"*{Estimate(*entry['value'][metric]).text()}*"


def _told(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry['told']['hidden']:.2f}, {entry['told']['logits']:.2f}" if "told" in entry else ""]


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.concatenation DATA FOLDS WEIGHTS CACHE`: one head over several frozen networks, or a vote.

EfficientNet-Lite0, 1 and 2 with their ImageNet weights, not trained further, give pooled features at 150x200 pixels,
kept in CACHE. For each public fold the package's head is fitted on those of the training part, as `benchmarks.recipe`
does: one for each network, whose soft vote is the reference, and one over the features of all three side by side. Both
are judged on the fold's validation part; three seeds; intervals are of the mean over seeds, by a bootstrap over
lesions; differences are paired. No fold is read.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import torch
from torch import Tensor

from benchmarks.recipe import SHOWN, Trial, compared_with_first, fit, table
from benchmarks.source_shortcut import LOSS_EPOCHS, SEEDS, images_of
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.inference.predictions import Predictions
from skinlesion.studies.probe.embedding import Embedders
from skinlesion.training.build import architecture, image_input

RESULT = Path(__file__).parent / "results" / "concatenation.json"
NETWORKS = tuple(f"tf_efficientnet_lite{number}" for number in range(3))
VOTE, TOGETHER, FOLDS = "vote of three heads", "one head over all three", range(5)


def main() -> None:
    """Measure, print the table and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.concatenation", description=__doc__)
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("folds", help="stratified_group_5fold_seed42.csv")
    parser.add_argument("weights", help="folder with NETWORK.safetensors of each network")
    parser.add_argument("cache", type=Path, help="folder that keeps the features, for the next time")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[list[Predictions]]] = {name: [[] for _ in SEEDS] for name in (VOTE, TOGETHER, *NETWORKS)}
    device = torch.device("cpu")
    networks = Embedders.load(NETWORKS, pretrained=arguments.weights, image_size=(150, 200), device=device)
    features: Tensor | None = None
    for fold in FOLDS:
        keys = (f"data.root={arguments.data}", f"split.file={arguments.folds}", f"split.fold={fold}")
        config = configuration("train", TrainConfig, "experiment=ham10000_public_folds", *keys)
        data = LesionDataModule.from_config(config, image_input(architecture(config.model)))
        if features is None:
            features = torch.from_numpy(networks.embed_frame(data.frame, cache_dir=arguments.cache))
        fit_fold(data, features, networks.widths, found)
        print(f"fold {fold}", file=sys.stderr, flush=True)
    pooled = {name: [Predictions.concatenate(each).sorted() for each in seeds] for name, seeds in found.items()}
    about = {"part": "val", "folds": len(FOLDS), "seeds": SEEDS, "epochs": LOSS_EPOCHS}
    kept = compared_with_first(pooled, about, arguments.out)
    print(table(kept["trials"], "frozen networks", VOTE, SHOWN))


def fit_fold(
    data: LesionDataModule, features: Tensor, widths: Sequence[int], found: Mapping[str, Sequence[list[Predictions]]]
) -> None:
    """Add the predictions of a fold's validation part with each seed, by each way of using the networks.

    Args:
        data: The fold.
        features: Of all images, (N, D), a part for each network.
        widths: Lengths of the parts.
        found: A list for each seed of each way.
    """
    frame, encoder = data.frame, data.encoder
    images = images_of(frame, features, torch.from_numpy(encoder.encode(frame)))
    train, judged = (
        images.rows(np.flatnonzero(frame["image_id"].isin(data.part_frame(part)["image_id"])))
        for part in ("train", "val")
    )
    every = torch.arange(sum(widths))
    ways = {TOGETHER: every, **dict(zip(NETWORKS, torch.split(every, list(widths)), strict=True))}
    for place, seed in enumerate(SEEDS):
        for name, used in ways.items():
            torch.manual_seed(seed)
            seen, unseen = (replace(part, features=part.features[:, used]) for part in (train, judged))
            found[name][place].append(fit(Trial(), seen, unseen, encoder))
        found[VOTE][place].append(Predictions.soft_vote([found[name][place][-1] for name in NETWORKS]))


if __name__ == "__main__":
    main()

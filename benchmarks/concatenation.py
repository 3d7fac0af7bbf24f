"""`python -m benchmarks.concatenation DATA FOLDS WEIGHTS CACHE`: one head over several frozen networks, or a vote.

EfficientNet-Lite0, 1 and 2 with their ImageNet weights, not trained further, give pooled features at 150x200 pixels,
kept in CACHE. For each public fold the package's head is fitted on those of the training part, as `benchmarks.recipe`
does: one for each network, whose soft vote is the reference, and one over the features of all three side by side. Both
are judged on the fold's validation part; three seeds; intervals are of the mean over seeds, by a bootstrap over
lesions; differences are paired. No fold is read.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import torch

from benchmarks.measuring import machine
from benchmarks.recipe import SHOWN, Trial, fit, table
from benchmarks.source_shortcut import LOSS_EPOCHS, SEEDS, compared, images_of
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.files import write_json
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.summary import metrics_statistic
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
    found: dict[str, list[list[Predictions]]] = {}
    for fold in FOLDS:
        for name, tables in on_fold(fold, arguments).items():
            for of_seed, made in zip(found.setdefault(name, [[] for _ in SEEDS]), tables, strict=True):
                of_seed.append(made)
        print(f"fold {fold}", file=sys.stderr, flush=True)
    pooled = {name: [Predictions.concatenate(each).sorted() for each in seeds] for name, seeds in found.items()}
    statistic = partial(metrics_statistic, bins=15)
    trials = {name: compared(statistic, each, () if name == VOTE else pooled[VOTE]) for name, each in pooled.items()}
    result = {"part": "val", "folds": len(FOLDS), "seeds": SEEDS, "epochs": LOSS_EPOCHS, "machine": machine()}
    kept = json.loads(json.dumps(result | {"trials": trials}), parse_float=lambda text: round(float(text), 5))
    write_json(arguments.out, kept)
    print(table(kept["trials"], "frozen networks", VOTE, SHOWN))


def on_fold(fold: int, arguments: argparse.Namespace) -> dict[str, list[Predictions]]:
    """Predictions of a fold's validation part with each seed, by each way of using the networks."""
    keys = (f"data.root={arguments.data}", f"split.file={arguments.folds}", f"split.fold={fold}")
    config = configuration("train", TrainConfig, "experiment=ham10000_public_folds", *keys)
    datamodule = LesionDataModule.from_config(config, image_input(architecture(config.model)))
    frame, encoder = datamodule.frame, datamodule.encoder
    embedders = Embedders.load(
        NETWORKS, pretrained=arguments.weights, image_size=config.model.image_size, device=torch.device("cpu")
    )
    features = torch.from_numpy(embedders.embed_frame(frame, cache_dir=arguments.cache))
    images = images_of(frame, features, torch.from_numpy(encoder.encode(frame)))
    train, judged = (
        images.rows(np.flatnonzero(frame["image_id"].isin(datamodule.part_frame(part)["image_id"])))
        for part in ("train", "val")
    )
    found: dict[str, list[Predictions]] = {VOTE: [], TOGETHER: [], **{name: [] for name in NETWORKS}}
    for seed in SEEDS:
        columns = torch.split(torch.arange(features.shape[1]), embedders.widths)
        for name, used in ((TOGETHER, torch.arange(features.shape[1])), *zip(NETWORKS, columns, strict=True)):
            torch.manual_seed(seed)
            seen, unseen = (part.with_features(part.features[:, used]) for part in (train, judged))
            found[name].append(fit(Trial(), seen, unseen, encoder))
        found[VOTE].append(Predictions.soft_vote([found[name][-1] for name in NETWORKS]))
    return found


if __name__ == "__main__":
    main()

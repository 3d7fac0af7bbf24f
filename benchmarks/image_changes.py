"""`python -m benchmarks.image_changes DATA FOLDS WEIGHTS KEPT`: what needs training to be judged, on validation.

The recipe of the public folds, cut down to what two cores can repeat: EfficientNet-Lite0 from its ImageNet weights at
96x128 pixels, head and stages from `blocks.5` on, four epochs. Fold 0 of FOLDS is not read; three tenths
of the other lesions validate. Each trial changes one thing and has three seeds, of weights, batches and changes, not of
the split. Intervals are of the mean over seeds, by a bootstrap over lesions; differences are paired.

Shades of Gray is `data.colour_constancy`, of training and validation images alike. CutMix puts a part of another image
into each (Yun et al., ICCV 2019, arXiv:1905.04899). RandAugment makes two random changes before the recipe's own (Cubuk
et al., arXiv:1909.13719). "All stages" trains the stem too; with a rate decay of 0.7 each stage learns at that share of
the rate of the stage above it.
"""

import argparse
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import torch
from lightning import Trainer, seed_everything
from torch import Tensor
from torchvision.transforms.v2 import RandAugment

from benchmarks.recipe import SHOWN, compared_with_first, table
from benchmarks.source_shortcut import SEEDS, predictions
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.image_io import Image
from skinlesion.data.transforms import Augment
from skinlesion.inference.predictions import Predictions
from skinlesion.training.build import architecture, image_input
from skinlesion.training.callbacks import EpochSeed, ExponentialMovingAverage
from skinlesion.training.module import LesionClassifier

RESULT = Path(__file__).parent / "results" / "image_changes.json"
_RECIPE = ("experiment=ham10000_public_folds", "model.image_size=[96,128]", "model.middle=blocks.5")
_CUT_DOWN = ("split.fold=0", "split.val_fraction=0.3", "schedule.phases.high.epochs=4", "logger=none")
_ALL_STAGES = "schedule.phases.high.unfreeze=conv_stem"


@dataclass(frozen=True)
class Trial:
    """What is changed: keys, and what the package has no key for."""

    overrides: tuple[str, ...] = ()
    cutmix: bool = False
    randaugment: bool = False


TRIALS = {
    "as it is": Trial(),  # first: the others are compared with it
    "Shades of Gray": Trial(("data.colour_constancy=shades_of_gray",)),
    "CutMix": Trial(cutmix=True),
    "RandAugment": Trial(randaugment=True),
    "all stages": Trial((_ALL_STAGES,)),
    "all stages, rate decay 0.7": Trial((_ALL_STAGES, "schedule.phases.high.layer_decay=0.7")),
}


def main() -> None:
    """Measure, print the table and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_changes", description=__doc__)
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("folds", help="stratified_group_5fold_seed42.csv")
    parser.add_argument("weights", help="weights of tf_efficientnet_lite0")
    parser.add_argument("kept", type=Path, help="folder that keeps decoded images and what is done, for the next time")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    places = (f"data.root={arguments.data}", f"split.file={arguments.folds}", f"model.pretrained={arguments.weights}")
    found: dict[str, list[Predictions]] = {}
    for seed in SEEDS:  # all trials of a seed, then the next one: what has been done can be compared early
        for name, trial in TRIALS.items():
            kept = arguments.kept / f"{name.replace(' ', '_')}-{seed}.csv"
            if not kept.exists():
                given = (*_RECIPE, *_CUT_DOWN, *places, f"seed={seed}", *trial.overrides)
                cache = f"data.cache_dir={arguments.kept / 'cache'}"
                train(trial, configuration("train", TrainConfig, *given, cache)).write(kept)
                print(name, seed, file=sys.stderr, flush=True)
            found.setdefault(name, []).append(Predictions.read(kept))
    first = next(iter(TRIALS))
    about = {"validation_images": len(found[first][0].image_id), "seeds": SEEDS}
    print(table(compared_with_first(found, about, arguments.out)["trials"], "trial", first, SHOWN))


def train(trial: Trial, config: TrainConfig) -> Predictions:
    """Predictions of the validation images by the weights' average after the last epoch."""
    seed_everything(config.seed, verbose=False)
    options, (phase,) = architecture(config.model), config.schedule.phases.values()
    data = Images.from_config(config, image_input(options))
    data.trial = trial
    loss: Any = {"alpha": config.loss.alpha, "gamma": config.loss.gamma, "smoothing": config.loss.smoothing}
    module = Classifier.for_data(data, **options, **loss, weight_decay=config.schedule.weight_decay)
    module.cutmix = trial.cutmix
    module.start_phase(phase)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=phase.epochs,
        limit_val_batches=0,
        callbacks=[EpochSeed(config.seed, first_epoch=0), ExponentialMovingAverage(phase.ema_decay)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    probabilities: Any = trainer.predict(module, dataloaders=data.val_dataloader())
    return predictions(data.part_frame("val"), torch.cat(probabilities))


class Images(LesionDataModule):
    """The data of a trial."""

    trial = Trial()

    def augment(self) -> Augment:
        """The random changes of training images."""
        own = super().augment()
        return (lambda image, draw: own(randaugment(image, draw), draw)) if self.trial.randaugment else own


def randaugment(image: Image, draw: int) -> Image:
    """Two random changes of torchvision's RandAugment, magnitude 9."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw % 2**63)
        changed: Tensor = RandAugment()(torch.from_numpy(image).permute(2, 0, 1))
    return np.ascontiguousarray(changed.permute(1, 2, 0).numpy())


class Classifier(LesionClassifier):
    """The package's classifier, with CutMix where it is asked for."""

    cutmix = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        return cutmix_loss(self, batch) if self.cutmix else super().training_step(batch, batch_idx)


def cutmix_loss(module: LesionClassifier, batch: Any) -> Tensor:
    """The loss for both targets of images that hold a rectangle of another one, by their shares of the area."""
    image, target = batch["image"], batch["target"]
    partner, (height, width) = torch.randperm(len(target)), image.shape[2:]
    side = float(1 - torch.distributions.Beta(1.0, 1.0).sample()) ** 0.5
    (top, bottom), (left, right) = (
        (max(0, round(centre - side * length / 2)), min(length, round(centre + side * length / 2)))
        for length in (height, width)
        for centre in [int(torch.randint(length, ()))]
    )
    mixed = image.clone()
    mixed[:, :, top:bottom, left:right] = image[partner, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    facts = torch.lerp(batch["metadata"][partner], batch["metadata"], share)
    logits = module(mixed, facts)
    loss: Tensor = share * module.criterion(logits, target) + (1 - share) * module.criterion(logits, target[partner])
    return loss


if __name__ == "__main__":
    main()

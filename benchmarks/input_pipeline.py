"""From a 600x450 JPEG to an augmented, normalised 224x224 tensor: decoded once, against decoded every time."""

import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.data_of import FULL, config, parts_of, synthetic
from benchmarks.measuring import Outcome, Setting, in_turn, ratios

BATCH = 32


def measure(setting: Setting) -> Outcome:
    """Processor time an image, on one core, with the published recipe's augmentation."""
    torch.set_num_threads(1)
    n = 91 if setting.toy else 150
    root = synthetic(setting.folder, n=n, size=FULL)
    datamodule = parts_of(config(setting.folder, root, "model=mobilenetv3_large"))[1]
    dataset = datamodule.whole(datamodule.augment())  # its images are decoded now: the first epoch
    paths = datamodule.frame["path"].tolist()
    chain = torchvision_chain(datamodule.spec.mean, datamodule.spec.std)
    draws = iter(range(10**6))

    def ours() -> None:
        draw = next(draws)
        for start in range(0, n, BATCH):
            dataset.__getitems__([(index, draw) for index in range(start, min(start + BATCH, n))])

    def theirs() -> None:
        for start in range(0, n, BATCH):
            torch.stack([chain(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]])

    mine, others = in_turn(ours, theirs, rounds=1 if setting.toy else 9)
    return Outcome(
        what="input pipeline per core, 600x450 JPEG to augmented 224x224, after the first epoch",
        against="PIL and torchvision v2",
        goal=5,
        ratios=ratios(mine, others),
        ours=[1e3 * seconds / n for seconds in mine],
        theirs=[1e3 * seconds / n for seconds in others],
        unit="ms an image",
        notes={"images": n, "batch": BATCH, "threads": 1, "clock": "processor time"},
    )


def torchvision_chain(mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Compose:
    """The published recipe as a user of torchvision writes it: resized first, so that the rest is cheap."""
    return v2.Compose(
        [
            v2.Resize((224, 224), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(brightness=0.15, contrast=0.15),
            v2.RandomAffine(45, (0.075, 0.075), (0.85, 1.15), interpolation=v2.InterpolationMode.BILINEAR),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(mean), list(std)),
        ]
    )

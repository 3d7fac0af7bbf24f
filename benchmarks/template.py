"""What a Lightning tutorial would have one write: JPEGs decoded by PIL in workers, albumentations, a timm network."""

import albumentations as A
import cv2
import lightning
import numpy as np
import pandas as pd
import timm
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skinlesion.taxonomy import HAM10000


class Images(Dataset[tuple[Tensor, int]]):
    """Image files, decoded each time.

    Args:
        frame: With `path` and `diagnosis`.
        size: (height, width).
    """

    def __init__(self, frame: pd.DataFrame, size: tuple[int, int]) -> None:
        self.paths, self.targets = frame["path"].tolist(), HAM10000.indices(frame["diagnosis"].tolist()).tolist()
        self.transform = A.Compose(
            [
                A.Resize(*size),
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.5),
                A.RandomBrightnessContrast(0.15, 0.15, p=1),
                A.Affine(
                    rotate=(-45, 45),
                    translate_percent=(-0.075, 0.075),
                    scale=(0.85, 1.15),
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=1,
                ),
                A.Normalize(),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image and its target."""
        image = np.asarray(Image.open(self.paths[index]).convert("RGB"))
        return self.transform(image=image)["image"], self.targets[index]


class TemplateData(lightning.LightningDataModule):
    """The usual data module.

    Args:
        frame: Of the training part.
        size: (height, width).
        batch_size: Images.
        workers: Processes.
    """

    def __init__(self, frame: pd.DataFrame, *, size: tuple[int, int], batch_size: int, workers: int) -> None:
        super().__init__()
        self.frame, self.size, self.batch_size, self.workers = frame, size, batch_size, workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled batches, pinned."""
        return DataLoader(
            Images(self.frame, self.size),
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=True,
        )


class Template(lightning.LightningModule):
    """The usual module: the whole network trained with cross-entropy.

    Args:
        name: timm's.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = timm.create_model(name, num_classes=7)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of a batch."""
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), 1e-4)

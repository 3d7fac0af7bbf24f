"""Simple classifiers of embeddings; what each has to choose, it chooses on the validation part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from skinlesion.model.funnel import DenseFunnel
from skinlesion.training.losses import focal_loss, inverse_frequency_weights

Floats = npt.NDArray[np.float64]

PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Inverse strengths C of logistic regression, from the strongest penalty on."""
NEIGHBOURS = (5, 10, 20, 40, 80)
_BATCH, _EPOCHS, _PATIENCE = 128, 60, 6
_RATE, _DECAY = 1e-3, 1e-2  # of AdamW
_HIDDEN = 128  # units of the small network


@dataclass(frozen=True)
class Sample:
    """Features (N, D), standardised, and class indices (N,) of one part of a split."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]

    def joined(self, other: "Sample") -> "Sample":
        """Both samples, this one first."""
        return Sample(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))


@dataclass(frozen=True)
class Task:
    """What a classifier learns from.

    Attributes:
        train: Training part.
        val: Validation part, which chooses.
        weights: (K,) weight of each class, from the training part.
        seed: Of initial weights and of the order of batches.
    """

    train: Sample
    val: Sample
    weights: npt.NDArray[np.float32]
    seed: int

    @classmethod
    def of(cls, train: Sample, val: Sample, *, classes: int, alpha: float, seed: int) -> "Task":
        """A task whose classes weigh their inverse frequency to the power `alpha`."""
        counts = np.bincount(train.y, minlength=classes).tolist()
        return cls(train, val, inverse_frequency_weights(counts, alpha=alpha).numpy(), seed)


def logistic(task: Task, x: npt.NDArray[np.float32]) -> Floats:
    """Logistic regression with an L2 penalty chosen on validation, fitted again to training and validation.

    Args:
        task: To learn from.
        x: (N, D) features to predict.

    Returns:
        (N, K) probabilities.
    """
    model = LogisticRegression(max_iter=300, warm_start=True)
    losses = []
    for penalty in PENALTIES:
        model.set_params(C=penalty).fit(task.train.x, task.train.y, sample_weight=task.weights[task.train.y])
        losses.append(log_loss(task.val.y, model.predict_proba(task.val.x), labels=model.classes_))
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break  # weaker penalties fit the training part alone
    both = task.train.joined(task.val)
    model.set_params(C=PENALTIES[int(np.argmin(losses))])
    model.fit(both.x, both.y, sample_weight=task.weights[both.y])
    return np.asarray(model.predict_proba(x), np.float64)


def nearest_neighbours(task: Task, x: npt.NDArray[np.float32]) -> Floats:
    """Votes of the nearest images by cosine, whose number is chosen on validation; classes weigh in the votes.

    A pseudo-vote is spread over the classes, so that none has a probability of zero.
    """

    def votes(train: Sample, k: int, rows: npt.NDArray[np.float32]) -> Floats:
        model = KNeighborsClassifier(min(k, len(train.y)), metric="cosine", algorithm="brute").fit(train.x, train.y)
        weighted = model.predict_proba(rows) * min(k, len(train.y)) * task.weights
        smoothed = weighted + 1 / len(task.weights)
        return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True), np.float64)

    classes = range(len(task.weights))
    losses = [log_loss(task.val.y, votes(task.train, k, task.val.x), labels=[*classes]) for k in NEIGHBOURS]
    return votes(task.train.joined(task.val), NEIGHBOURS[int(np.argmin(losses))], x)


def linear(task: Task, x: npt.NDArray[np.float32]) -> Floats:
    """A linear layer trained as the heads of members are: focal loss, AdamW, the epoch that is best on validation."""
    return _descend(task, x, widths=())


def network(task: Task, x: npt.NDArray[np.float32]) -> Floats:
    """A network with one hidden layer and dropout, trained likewise."""
    return _descend(task, x, widths=(_HIDDEN,))


CLASSIFIERS = MappingProxyType[str, Callable[[Task, npt.NDArray[np.float32]], Floats]](
    {"logistic": logistic, "linear": linear, "knn": nearest_neighbours, "network": network}
)


def _descend(task: Task, x: npt.NDArray[np.float32], *, widths: Sequence[int]) -> Floats:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        net = DenseFunnel(task.train.x.shape[1], len(task.weights), widths=widths, dropout=0.5)
        _fit(net, task)
    with torch.no_grad():
        return np.asarray(net(torch.from_numpy(x)).double().softmax(dim=1))


def _fit(net: nn.Module, task: Task) -> None:
    """Train until validation has not improved for some epochs, and leave the best weights in `net`."""
    weights = torch.from_numpy(task.weights)
    (x, y), (val_x, val_y) = ([torch.from_numpy(each) for each in (part.x, part.y)] for part in (task.train, task.val))
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    best, kept, waited = float("inf"), net.state_dict(), 0
    for _ in range(_EPOCHS):
        net.train()
        for rows in torch.split(torch.randperm(len(y)), _BATCH):
            if len(rows) < 2:
                continue  # batch norm needs two
            optimizer.zero_grad()
            torch.autograd.backward(focal_loss(net(x[rows]), y[rows], weights=weights))
            optimizer.step()
        found = _validate(net, val_x, val_y)
        waited = 0 if found < best else waited + 1
        if found < best:
            best, kept = found, {name: value.clone() for name, value in net.state_dict().items()}
        if waited == _PATIENCE:
            break
    net.load_state_dict(kept)
    net.eval()


@torch.no_grad()
def _validate(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    return float(nn.functional.cross_entropy(net(x), y))

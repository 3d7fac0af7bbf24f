"""Simple classifiers of embeddings; what each has to choose, it chooses on the validation part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
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
    classes = [*range(len(task.weights))]
    fitted, losses = [np.zeros((task.train.x.shape[1] + 1, len(classes)))], []
    curvature = _curvature(task)
    for penalty in PENALTIES:
        fitted.append(_fit_logistic(task.train, task.weights, penalty, start=fitted[-1], curvature=curvature))
        losses.append(log_loss(task.val.y, softmax(_with_ones(task.val.x) @ fitted[-1], axis=1), labels=classes))
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break  # weaker penalties fit the training part alone
    best, both = int(np.argmin(losses)), task.train.joined(task.val)
    found = _fit_logistic(both, task.weights, PENALTIES[best], start=fitted[best + 1], curvature=curvature)
    return np.asarray(softmax(_with_ones(x) @ found, axis=1), np.float64)


def _with_ones(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.column_stack([x, np.ones(len(x), np.float32)])


def _curvature(task: Task) -> npt.NDArray[np.float32]:
    """The largest second derivative (D + 1, D + 1) that the log-loss of the training part can have for a class.

    Böhning, Annals of the Institute of Statistical Mathematics 44 (1992), doi:10.1007/BF00048682.
    """
    x, share = _with_ones(task.train.x), (1 - 1 / len(task.weights)) / 2
    return np.asarray((x * (share * task.weights[task.train.y, None]).astype(np.float32)).T @ x, np.float32)


def _fit_logistic(
    sample: Sample,
    weights: npt.NDArray[np.float32],
    penalty: float,
    *,
    start: Floats,
    curvature: npt.NDArray[np.float32],
) -> Floats:
    """Minimise the penalised log-loss by L-BFGS, in coordinates in which it curves by one at most: few steps then.

    Args:
        sample: To learn from.
        weights: (K,) weight of each class.
        penalty: Inverse strength C.
        start: (D + 1, K) first coefficients, those of the constant last.
        curvature: As of `_curvature`.

    Returns:
        (D + 1, K) coefficients.
    """
    x, weight, target = _with_ones(sample.x), weights[sample.y, None], np.eye(len(weights), dtype=np.float32)[sample.y]
    ridge = np.full((len(start), 1), 1 / penalty, np.float32)
    root = cholesky(curvature + np.diag(ridge[:, 0]), lower=True)  # float32: only the way there depends on it
    ridge[-1] = 0  # the constant is not penalised

    def unturned(flat: Floats) -> npt.NDArray[np.float32]:
        turned = flat.reshape(start.shape).astype(np.float32)
        return np.asarray(solve_triangular(root, turned, lower=True, trans="T", check_finite=False))

    def value_and_slope(flat: Floats) -> tuple[float, Floats]:
        coefficients = unturned(flat)
        logs = log_softmax(x @ coefficients, axis=1)
        value = -(weight * target * logs).sum(dtype=np.float64) + (ridge * coefficients**2).sum() / 2
        slope = x.T @ (weight * (np.exp(logs) - target)) + ridge * coefficients
        return float(value), solve_triangular(root, slope, lower=True, check_finite=False).ravel().astype(np.float64)

    options = {"gtol": 3e-3, "ftol": 1e-8, "maxcor": 20, "maxiter": 300}
    found = minimize(value_and_slope, (root.T @ start).ravel(), jac=True, method="L-BFGS-B", options=options)
    return unturned(found.x).astype(np.float64)


def nearest_neighbours(task: Task, x: npt.NDArray[np.float32]) -> Floats:
    """Votes of the nearest images by cosine, whose number is chosen on validation; classes weigh in the votes.

    A pseudo-vote is spread over the classes, so that none has a probability of zero.
    """

    def votes(labels: npt.NDArray[np.int64], k: int) -> Floats:
        counts = np.stack([(labels[:, :k] == label).sum(axis=1) for label in classes], axis=1) * task.weights
        smoothed = counts + 1 / len(classes)
        return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True), np.float64)

    classes = [*range(len(task.weights))]
    found = _nearest_labels(task.train, task.val.x)
    losses = [log_loss(task.val.y, votes(found, k), labels=classes) for k in NEIGHBOURS]
    return votes(_nearest_labels(task.train.joined(task.val), x), NEIGHBOURS[int(np.argmin(losses))])


def _nearest_labels(sample: Sample, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Classes (N, k) of the nearest images by cosine, the nearest first."""
    count = min(NEIGHBOURS[-1], len(sample.y))
    found = NearestNeighbors(n_neighbors=count).fit(normalize(sample.x)).kneighbors(normalize(x), return_distance=False)
    return np.asarray(sample.y[found], np.int64)


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
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY, fused=True)
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

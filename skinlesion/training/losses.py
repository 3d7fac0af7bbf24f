"""The focal loss for diagnoses of very unequal frequency, class weights from their counts, and mixup."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinlesion.errors import DataError

MIXED = ("image", "feature_map", "metadata")
"""Entries of a batch that mixup blends."""


def inverse_frequency_weights(counts: Sequence[int], *, alpha: float = 0.5) -> Tensor:
    """Weigh each class by (N / (K n_k)) ** alpha, scaled so that the K weights have mean 1.

    Args:
        counts: n_k, how many training images each of the K classes has; N is their sum.
        alpha: Exponent, at least 0: with 0 all weights are equal, with 1 they are inverse to the frequency.

    Returns:
        (K,) float32.

    Raises:
        DataError: If a class has no image, so that its weight would be infinite.
    """
    empty = [str(index) for index, count in enumerate(counts) if count < 1]
    if empty:
        raise DataError(
            f"no training image has the diagnosis with index {', '.join(empty)} (counts in class order: "
            f"{list(counts)}); class weights need at least one image of each: add images of them to the training part"
        )
    n = torch.tensor(counts, dtype=torch.float64)
    weights = (n.sum() / (len(counts) * n)) ** alpha
    return (weights / weights.mean()).float()


def focal_loss(
    logits: Tensor, target: Tensor, *, weights: Tensor | None = None, gamma: float = 2.0, smoothing: float = 0.1
) -> Tensor:
    """Compute the mean over the batch of FL = -alpha_t (1 - p_t)^gamma log p_t.

    Lin, Goyal, Girshick, He & Dollár, "Focal Loss for Dense Object Detection", ICCV 2017,
    doi:10.1109/ICCV.2017.324; here on softmax probabilities instead of the paper's sigmoids.

    p is the softmax of the logits, alpha_t the weight of the target class, and p_t = sum_k y_k p_k with
    y = (1 - smoothing) onehot(target) + smoothing / K; so without smoothing p_t is the target's probability. This is no
    label smoothing, whose sum of logarithms -sum_k y_k log p_k grows without bound and is least where p = y. It is a
    bounded loss, at most alpha_t log(K / smoothing): its gradient vanishes for certain mistakes, and it is least where
    the target's probability is 1, so that it does not temper confidence. Without focus it is the forward correction for
    labels of which a share `smoothing` is drawn at random (Patrini et al., CVPR 2017, doi:10.1109/CVPR.2017.240). The
    mean is over B, not over the sum of the weights as in torch's weighted cross-entropy.

    Computed in float32 or wider, also from half-precision logits. Finite logits have a finite gradient.

    Args:
        logits: (B, K) float.
        target: (B,) int64, class indices in 0..K-1.
        weights: (K,) float, see `inverse_frequency_weights`; None: all are 1.
        gamma: Focusing exponent, at least 0; the larger, the less well-classified images count.
        smoothing: Share of the uniform distribution in y, 0..1: bounds the loss.

    Returns:
        Scalar, at least 0.
    """
    log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)  # (B, K)
    onehot = F.one_hot(target, num_classes=logits.shape[1]).to(log_p.dtype)  # (B, K)
    y = (1 - smoothing) * onehot + smoothing / logits.shape[1]  # (B, K)
    # log sum_k y_k p_k; without smoothing log y is 0 or -inf, which picks the target's log p exactly
    log_pt = torch.logsumexp(log_p + y.log(), dim=1)  # (B,)
    # expm1 loses no digits of 1 - p_t near p_t = 1. There the slope of a power below 1 goes to infinity, and infinity
    # times log p_t = 0 would be nan although their product's limit is 0: the floor keeps it finite.
    one_minus_pt = (-torch.expm1(log_pt)).clamp_min(torch.finfo(log_p.dtype).tiny)  # (B,)
    alpha = 1.0 if weights is None else weights[target]  # (B,)
    return (-alpha * one_minus_pt**gamma * log_pt).mean()


class FocalLoss(nn.Module):
    """`focal_loss` with its settings, by default those of the published recipe.

    Args:
        class_counts: Training images of each of the K classes; gives the weights by `inverse_frequency_weights`.
            None: all classes weigh 1.
        alpha: Exponent of the inverse class frequency, at least 0.
        gamma: Focusing exponent, at least 0.
        smoothing: Share of the uniform distribution in y, 0..1: bounds the loss.

    Raises:
        DataError: A class has no image.
    """

    weights: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        *,
        alpha: float = 0.5,
        gamma: float = 2.0,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        weights = None if class_counts is None else inverse_frequency_weights(class_counts, alpha=alpha)
        self.register_buffer("weights", weights)
        self.gamma = gamma
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of `logits` (B, K) for `target` (B,): a scalar."""
        return focal_loss(logits, target, weights=self.weights, gamma=self.gamma, smoothing=self.smoothing)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"gamma={self.gamma}, smoothing={self.smoothing}"


def mix(batch: Mapping[str, Any], share: float, partner: Tensor) -> dict[str, Any]:
    """Blend each item of a batch with another one.

    Args:
        batch: Its targets and ids stay as they are.
        share: Weight of the item itself, 0 to 1.
        partner: (B,) int64, position of the other item.
    """
    blended = {key: torch.lerp(batch[key][partner], batch[key], share) for key in MIXED if key in batch}
    return {**batch, **blended}


def mixup_loss(
    criterion: Callable[[Tensor, Tensor], Tensor],
    network: Callable[[Mapping[str, Any]], Tensor],
    batch: Mapping[str, Any],
    *,
    concentration: float,
) -> Tensor:
    """Compute the loss of a blended batch for both targets, weighted by their shares.

    Zhang, Cissé, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412; of
    feature maps Verma et al., "Manifold Mixup", ICML 2019, arXiv:1806.05236, at one fixed layer.

    Args:
        criterion: Maps logits (B, K) and targets (B,) to a scalar.
        network: Maps a batch to logits (B, K).
        batch: Images or feature maps, metadata and targets, not blended yet.
        concentration: Of the Beta(concentration, concentration) from which the share of a batch is drawn, above 0.
    """
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    target = batch["target"]
    partner = torch.randperm(len(target)).to(target.device)
    logits = network(mix(batch, share, partner))  # (B, K)
    return share * criterion(logits, target) + (1 - share) * criterion(logits, target[partner])

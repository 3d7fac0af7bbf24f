"""Focal loss for diagnoses of very unequal frequency, and class weights from the counts.

Lin, Goyal, Girshick, He & Dollár, "Focal Loss for Dense Object Detection", ICCV 2017,
doi:10.1109/ICCV.2017.324; here on softmax probabilities instead of the paper's sigmoids.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinlesion.errors import DataError


def inverse_frequency_weights(counts: Sequence[int], *, alpha: float) -> Tensor:
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
            f"{list(counts)}); class weights need at least one image of each, so choose another split"
        )
    n = torch.tensor(counts, dtype=torch.float64)
    weights = (n.sum() / (len(counts) * n)) ** alpha
    return (weights / weights.mean()).float()


def focal_loss(logits: Tensor, target: Tensor, *, weights: Tensor, gamma: float, smoothing: float) -> Tensor:
    """Compute the mean over the batch of FL = -alpha_t (1 - p_t)^gamma log p_t.

    p is the softmax of the logits, alpha_t the weight of the target class, and p_t = sum_k y_k p_k with
    y = (1 - smoothing) onehot(target) + smoothing / K; so without smoothing p_t is the target's probability. It is
    the logarithm of a smoothed probability, not label-smoothed cross-entropy's smoothed sum of logarithms. The mean
    is over B, not over the sum of the weights as in torch's weighted cross-entropy.

    All is computed in float32 or wider, also from half-precision logits. Finite logits have a finite gradient.

    Args:
        logits: (B, K) float.
        target: (B,) int64, class indices in 0..K-1.
        weights: (K,) float, see `inverse_frequency_weights`.
        gamma: Focusing exponent, at least 0; the larger, the less do well-classified images count.
        smoothing: Label smoothing in 0..1.

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
    return (-weights[target] * one_minus_pt**gamma * log_pt).mean()


class FocalLoss(nn.Module):
    """`focal_loss` with its settings.

    Args:
        weights: (K,) float, the weight of each class.
        gamma: Focusing exponent, at least 0.
        smoothing: Label smoothing in 0..1.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, *, gamma: float, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights.detach().clone())
        self.gamma = gamma
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of `logits` (B, K) for `target` (B,): a scalar."""
        return focal_loss(logits, target, weights=self.weights, gamma=self.gamma, smoothing=self.smoothing)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"gamma={self.gamma}, smoothing={self.smoothing}"

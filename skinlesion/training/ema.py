"""The moving average of weights over training steps: what is judged and kept in place of the last step's."""

from functools import partial

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialMovingAverage(WeightAveraging):
    """Averages all weights and the statistics of batch norm, exponentially.

    What is frozen stays as it is to the bit, which Lightning's own EMAWeightAveraging does not see to: its sums of two
    products round, and cached maps of the frozen part would no longer be those of the network.

    Polyak & Juditsky, SIAM J. Control Optim. 30 (1992), doi:10.1137/0330046; as an exponential average Tarvainen &
    Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv:1703.01780.

    Args:
        decay: The share of the average that stays at a step, 0 to less than 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, avg_fn=partial(_toward, share=1 - decay))


def _toward(average: Tensor, current: Tensor, _: int, *, share: float) -> Tensor:
    """The average moved by a share of its distance from the current weights; counts are taken as they are."""
    return average + share * (current - average) if average.is_floating_point() else current

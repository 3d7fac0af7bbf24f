"""Which messages of libraries are of no use to a user, and why."""

import logging
import warnings


def quiet(rank: int) -> None:
    """Silence advice that does not apply here; everything else still comes through.

    Args:
        rank: Of this process; from those after the first, warnings and errors are enough.
    """
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)  # devices found, seeds set, tips of the day
    for message in (
        ".*does not have many workers.*",  # images come decoded out of a cache, or as feature maps
        ".*number of training batches.*smaller than the logging interval.*",  # epochs are logged, not steps
        ".*Checkpoint directory .* exists and is not empty.*",  # a run is gone on with on purpose
        ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen stages, on purpose
        ".*Grad strides do not match bucket view strides.*",  # of 1x1 kernels: a matter of speed
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 on newer torch
    ):
        warnings.filterwarnings("ignore", message)

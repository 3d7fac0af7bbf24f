"""`skinlesion synthetic`: write a synthetic HAM10000, to try everything on."""

import logging
from pathlib import Path

from skinlesion.config.data import SyntheticConfig
from skinlesion.files import require_writable

log = logging.getLogger(__name__)


def run(config: SyntheticConfig) -> None:
    """Write the data set, unless it is already there.

    Raises:
        SkinlesionError: The folder holds other files, or a setting is out of range.
    """
    from skinlesion.synthetic.dataset import write_synthetic

    height, width = config.image_size
    size, least = (width, height), config.min_per_class
    root = Path(config.data.root).expanduser()
    require_writable(root, "data.root")
    synthetic = write_synthetic(root, n=config.n, image_size=size, seed=config.seed, min_per_class=least)
    counts = ", ".join(f"{code} {count}" for code, count in synthetic.images.items())
    state = "already there" if synthetic.already_there else "written"
    lesions = sum(synthetic.lesions.values())
    log.info(
        "%s: synthetic data set %s: %d images of %d lesions (%s)", synthetic.root, state, config.n, lesions, counts
    )

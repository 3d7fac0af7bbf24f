"""`skinlesion phantom`: a synthetic HAM10000, to try everything on."""

import logging
from pathlib import Path

from skinlesion.config.phantom import PhantomConfig
from skinlesion.launch import launch

log = logging.getLogger(__name__)


def run(config: PhantomConfig) -> None:
    """Write the data set, or say that it is there.

    Raises:
        SkinlesionError: The folder holds other files, or a setting is out of range.
    """
    from skinlesion.data.phantom import write_phantom

    height, width = config.image_size
    phantom = write_phantom(Path(config.data.root), n=config.n, image_size=(width, height), seed=config.seed)
    counts = ", ".join(f"{code} {count}" for code, count in phantom.images.items())
    state = "already there" if phantom.already_there else "written"
    lesions = sum(phantom.lesions.values())
    log.info(
        "%s: synthetic data set %s: %d images of %d lesions (%s)",
        phantom.root,
        state,
        config.n,
        lesions,
        counts,
    )


if __name__ == "__main__":
    launch("phantom", PhantomConfig, run)

"""`skinlesion push`: a model with its card to the Hugging Face hub."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.config.deploy import PushConfig
from skinlesion.errors import ConfigError, counted
from skinlesion.terminal import next_command

if TYPE_CHECKING:
    from skinlesion.deploy.hub import Judged
    from skinlesion.inference.predictor import Predictor

log = logging.getLogger(__name__)


def run(config: PushConfig) -> None:
    """Write the files of the repository and send them, unless the run is dry.

    Raises:
        SkinlesionError: The model or its predictions cannot be used, or the hub cannot be written to.
    """
    from skinlesion import __version__
    from skinlesion.deploy.hub import upload, write_card, write_model
    from skinlesion.files import replacing_folder
    from skinlesion.inference.predictor import Predictor

    repo, path = str(config.repo), Path(str(config.checkpoint or config.ensemble or config.bundle)).expanduser()
    out = None if config.out is None else Path(config.out).expanduser()
    if out is not None and not _is_free(out):
        raise ConfigError(f"out={out}: there is something else; give an empty folder or a new one")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source = Predictor.load(path, accelerator="cpu")
        predictor = write_model(source, path, folder)
        judged = _judge(predictor, path, config)
        licence, datasets = _origin(source, config)
        write_card(predictor, folder, repo=repo, licence=licence, datasets=datasets, judged=judged)
        files = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
        log.info("%s, %.1f MB: %s", counted(len(files), "file"), _size(folder) / 1e6, ", ".join(files))
        if out is not None:
            with replacing_folder(out) as beside:
                shutil.copytree(folder, beside, dirs_exist_ok=True)
            log.info("Files: %s", out)
        if not config.dry_run:
            message = config.message or f"skinlesion {__version__}"
            log.info("Published: %s", upload(folder, repo, private=config.private, message=message))
    if config.dry_run:
        log.info("Nothing was sent; the same command with dry_run=false publishes these files as %s", repo)
    else:
        log.info(next_command("predict", "FILE", f"checkpoint=hf://{repo}"))


def _is_free(out: Path) -> bool:
    """Whether a folder is new, empty, or what an earlier push left."""
    if out.is_dir() and any(out.iterdir()):
        card = out / "README.md"
        return card.is_file() and "\nlibrary_name: skinlesion\n" in card.read_text(encoding="utf-8", errors="replace")
    return not out.exists() or out.is_dir()


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def _origin(model: "Predictor", config: PushConfig) -> tuple[str, list[str]]:
    """Licence and data sets, as given, or as HAM10000 has them where it trained the model."""
    from skinlesion.deploy.manifest import LICENCE

    if model.about is not None:
        of_ham10000 = model.about.licence == LICENCE
    else:
        of_ham10000 = any(each.is_of_ham10000 for each in model.networks.models)
    if config.licence is None and not of_ham10000:
        log.warning("The card says licence: other, since HAM10000 did not train it; licence=NAME gives the data's own")
    licence = config.licence or ("cc-by-nc-4.0" if of_ham10000 else "other")
    return licence, config.datasets if config.datasets is not None else ["HAM10000"] * of_ham10000


def _judge(predictor: "Predictor", path: Path, config: PushConfig) -> "Judged | None":
    """The metrics of a predictions table: the one that is given, or that of the test or validation part beside."""
    from skinlesion.deploy.hub import Judged
    from skinlesion.inference.predictions import Predictions
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.metrics.summary import metrics_with_ci

    folder = path if path.is_dir() else path.parent
    beside = [folder / f"predictions_{part}.csv" for part in ("test", "val")]
    table = Path(config.predictions) if config.predictions else next((each for each in beside if each.exists()), None)
    if table is None:
        log.warning("No predictions table beside %s: the card gives no metrics; predictions=TABLE names one", path)
        return None
    found = Predictions.read(table, taxonomy=predictor.taxonomy)
    name = {"predictions_test": "test part", "predictions_val": "validation part"}.get(table.stem, table.stem)
    metrics = metrics_with_ci(found, BootstrapConfig.of(config), bins=config.bins)
    log.info("The card gives the metrics of %s: %s, %d images", table, name, len(found))
    return Judged(name, metrics, config.level)

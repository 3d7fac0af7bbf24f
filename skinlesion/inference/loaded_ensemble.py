"""The models that a verb was given: one checkpoint, or the chosen members of an ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skinlesion.errors import ConfigError
from skinlesion.inference.ensemble import read_ensemble, unique_names
from skinlesion.inference.ood import Fitted
from skinlesion.training.checkpoint import TrainedModel, load_model


@dataclass(frozen=True)
class LoadedEnsemble:
    """Models that vote with the mean of their probabilities."""

    models: list[TrainedModel]
    folder: Path  # where the checkpoint or ensemble lies: results go beside it
    tta: str  # which flips and turns of an image vote
    novelty: Fitted | None = None  # what the ensemble's file knows of training images

    @property
    def names(self) -> list[str]:
        """Of the models, all different."""
        return unique_names(self.models)


def voters(checkpoint: str | None, ensemble: str | None, *, tta: str | None) -> LoadedEnsemble:
    """Load the models that a configuration names.

    Args:
        checkpoint: A best.ckpt, or the folder of its run; None: an ensemble.
        ensemble: An ensemble.json, or its folder.
        tta: Which flips and turns vote; None: those of the ensemble, or none.

    Raises:
        CheckpointError: They cannot be used.
    """
    if checkpoint is not None:
        model = load_model(Path(checkpoint))
        return LoadedEnsemble([model], model.path.parent, tta or "none")
    path = Path(str(ensemble))
    file = read_ensemble(path)
    return LoadedEnsemble(file.models(), path if path.is_dir() else path.parent, tta or file.tta, file.novelty)


def check_facts(models: Sequence[TrainedModel], facts: Mapping[str, float | str | None]) -> None:
    """Refuse a sex or localization that the models have never seen, which is most often a typing error.

    Raises:
        ConfigError: It names the words that are known.
    """
    encoder = models[0].encoder
    for fact, known in {"sex": encoder.sexes, "localization": encoder.localizations}.items():
        given = facts.get(fact)
        if isinstance(given, str) and given.strip().lower() not in known:
            raise ConfigError(f"{fact}={given}: not known to the model; expected one of {', '.join(known)}")

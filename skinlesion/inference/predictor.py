"""The one way from images and facts to predictions, whatever the model was loaded from.

A `Predictor` fits images to its members' sizes, encodes the facts, lets the members and the views of test-time
augmentation vote, calibrates the vote, and adds prediction sets and out-of-distribution flags. Needs numpy, OpenCV and
Pillow; torch only for checkpoints and ensembles, onnxruntime only for bundles.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image, area_shape, dimensions, fit, fit_area, read
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference import conformal, ood
from skinlesion.inference.calibration import balanced_scores, prior_of
from skinlesion.inference.calibration import calibrated as apply_calibration
from skinlesion.inference.hub import local_path
from skinlesion.inference.inputs import check_facts, encode_facts, facts_of_each, list_images, to_array, with_file_facts
from skinlesion.inference.members import Fact, Facts, Members, Outputs, PostHoc, Prepared, Size, by_shape
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.specialist import corrected
from skinlesion.inference.table_columns import groups_of_frame, object_array
from skinlesion.taxonomy import HAM10000, Taxonomy

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image as PillowImage

    from skinlesion.data.image_cache import ImageCache
    from skinlesion.inference.torch_members import TorchMembers
    from skinlesion.training.checkpoint import TrainedModel

BATCH = 32  # images at once


@dataclass(frozen=True)
class Predictor:
    """A trained model, ensemble or bundle, ready to predict.

    Attributes:
        members: The networks that vote.
        folder: Where the model lies.
        posthoc: What was fitted after the vote.
        taxonomy: The diagnoses.
        about: The manifest of a bundle; None of other models.
    """

    members: Members
    folder: Path
    posthoc: PostHoc = field(default_factory=PostHoc)
    taxonomy: Taxonomy = HAM10000
    about: Any = None

    @classmethod
    def load(
        cls, path: str | Path, *, tta: str | None = None, accelerator: str = "auto", threads: int | None = None
    ) -> Self:
        """Load a model.

        Args:
            path: A checkpoint, an ensemble.json, the folder of either or of a bundle, or hf://user/name[@revision].
            tta: Views of an image that vote: none, flips, dihedral or scales; None: those of the ensemble, or none.
            accelerator: Where a checkpoint or an ensemble runs, as Lightning names it: auto, cpu, gpu. A bundle runs
                on the CPU.
            threads: That work on one call of a bundle; None: one for each core that this process may use.

        Raises:
            CheckpointError: There is no model, or it cannot be used.
            BundleError: The bundle is missing, damaged, or of another format.
        """
        path = local_path(path)
        if (path / "bundle.json").exists() or path.name == "bundle.json":
            if tta is not None:
                raise CheckpointError(f"tta={tta}: a bundle has its own views; expected null")
            return cls.load_bundle(path if path.is_dir() else path.parent, threads=threads)
        if (path / "ensemble.json").exists() or path.suffix == ".json":
            from skinlesion.inference.ensemble import read_ensemble

            file = read_ensemble(path)
            options = {"tta": tta or file.tta, "accelerator": accelerator, **file.specialist_options()}
            return replace(cls.of(file.models(), **options), folder=file.path.parent, posthoc=file.posthoc)
        if path.suffix in (".ckpt", ".safetensors") or (path / "best.ckpt").exists():
            from skinlesion.training.checkpoint import load_model

            return cls.of([load_model(path)], tta=tta or "none", accelerator=accelerator)
        inside = "; its ensemble is in the folder `ensemble`" if (path / "ensemble" / "ensemble.json").exists() else ""
        expected = "a .ckpt file, an ensemble.json, or a run's or bundle's folder"
        raise CheckpointError(f"{path}: no model there{inside}; expected {expected}")

    @classmethod
    def load_bundle(cls, folder: Path, *, threads: int | None = None) -> Self:
        """Load the bundle in a folder, and nothing else: torch is not imported, whatever lies there.

        Raises:
            BundleError: It is missing, damaged, or of another format.
        """
        from skinlesion.deploy.runtime import load_bundle

        members, about, posthoc = load_bundle(folder, threads=threads)
        return cls(members, folder, posthoc, about.diagnoses, about)

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """The model that a command's configuration names as its `checkpoint`, `ensemble` or `bundle`.

        Raises:
            CheckpointError: It cannot be used, or not with the configuration's `decision`.
        """
        path = config.checkpoint or config.ensemble or getattr(config, "bundle", None)
        found = cls.load(str(path), tta=config.tta, accelerator=config.accelerator)
        rule = getattr(config, "decision", None)
        return found if rule is None else found.deciding(rule)

    @classmethod
    def of(cls, models: "Sequence[TrainedModel]", **options: Any) -> Self:
        """A predictor of loaded models, whose plain mean is the prediction; the options are those of `TorchMembers`."""
        from skinlesion.inference.torch_members import TorchMembers

        first = models[0]
        counts, codes = first.class_counts, first.taxonomy.codes
        decision = None if counts is None else {"rule": "likeliest", "prior": prior_of(counts, codes)}
        return cls(TorchMembers(models, **options), first.path.parent, PostHoc(decision=decision), first.taxonomy)

    def deciding(self, rule: str) -> Self:
        """The same model, whose predicted diagnosis is "likeliest" or "balanced": see `calibration.balanced_scores`.

        Raises:
            CheckpointError: The model does not know how frequent the diagnoses are.
        """
        known = self.posthoc.decision
        if known is None and rule != "likeliest":
            raise CheckpointError(
                f"decision={rule}: {self.folder} does not say how frequent the diagnoses were; make its ensemble or "
                "bundle again, or give decision=likeliest"
            )
        return self if known is None else replace(self, posthoc=replace(self.posthoc, decision={**known, "rule": rule}))

    @property
    def encoder(self) -> MetadataEncoder:
        """Turns facts into numbers; knows which values the training had."""
        return self.members.encoder

    @property
    def sizes(self) -> Sequence[Size]:
        """(height, width) of each size to which images are fitted."""
        return self.members.sizes

    @property
    def networks(self) -> "TorchMembers":
        """The members in PyTorch, for what looks inside them.

        Raises:
            CheckpointError: This is a bundle.
        """
        from skinlesion.inference.torch_members import TorchMembers

        if not isinstance(self.members, TorchMembers):
            raise CheckpointError(f"{self.folder}: a bundle has no gradients; give its ensemble or a checkpoint")
        return self.members

    def predict(
        self,
        images: "str | Path | PillowImage | Image | Iterable[str | Path | PillowImage | Image]",
        facts: "Facts | Sequence[Facts] | pd.DataFrame | None" = None,
        *,
        names: Sequence[str] | None = None,
        calibrated: bool = True,
        batch: int = BATCH,
        **known: Fact,
    ) -> Predictions:
        """Predict one image or many.

        Args:
            images: Paths, PIL images, or RGB arrays (h, w, 3) uint8; a folder or an .npz stands for its images.
            facts: Of the one patient of all, or a row for each image. What is left out is unknown, or as DICOM says.
            names: Of the images, in the table; None: their paths, or their positions from 0.
            calibrated: Whether probabilities are calibrated and prediction sets given, where the model has them.
            batch: Images at once.
            **known: Facts of the one patient, `age=55, diameter=6`, instead of `facts`.

        Returns:
            A row for each image, in their order.

        Raises:
            DataError: An image cannot be read, a fact has an unknown name or value, or their number does not fit.
        """
        listed = list_images(images)
        if names is None:
            names = [str(each) if isinstance(each, str | Path) else str(place) for place, each in enumerate(listed)]
        if not listed:
            raise DataError("no image to predict; expected at least one")
        rows = facts_of_each(facts, known, len(listed))
        for row in {id(row): row for row in rows}.values():
            check_facts(self.encoder, row)
        rows = [with_file_facts(self.encoder, *each) for each in zip(listed, rows, strict=True)]
        metadata = encode_facts(self.encoder, rows)
        made = self._run((self.prepare(to_array(image)) for image in listed), metadata, batch=batch)
        return self._finish(made, [str(name) for name in names], calibrated=calibrated)

    def prepare(self, image: Image) -> Prepared:
        """Fit an RGB image (h, w, 3) to each of `sizes`, treated as in training: what waits in a queue is small.

        Networks that take any shape get the image's own, with as many pixels as in training, without padding.
        """
        resize = fit_area if self.members.takes_any_shape else fit
        return tuple(resize(image, size, self.members.treatment) for size in self.sizes)

    def predict_prepared(
        self,
        images: Sequence[Prepared],
        facts: Sequence[Facts],
        *,
        names: Sequence[str] | None = None,
        calibrated: bool = True,
        batch: int = BATCH,
    ) -> Predictions:
        """Predict images that `prepare` gave, each with the facts about its patient, already checked."""
        made = self._run(iter(images), encode_facts(self.encoder, facts), batch=batch)
        return self._finish(made, names or [str(place) for place in range(len(images))], calibrated=calibrated)

    def predict_frame(
        self,
        frame: "pd.DataFrame",
        *,
        caches: "Mapping[Size, ImageCache] | None" = None,
        change: Callable[[Image, str], Image] | None = None,
        batch: int = BATCH,
        label: str = "predicting",
    ) -> Predictions:
        """Predict the images of a checked frame, without calibration, sorted by image_id.

        Args:
            frame: image_id, lesion_id, diagnosis, the facts, and path unless `caches` is given.
            caches: Decoded images by size; None: files are read.
            change: Given an image as it was taken (h, w, 3) and its id, returns a changed one.
            batch: Images at once.
            label: Of the progress bar.
        """
        ids = frame["image_id"].tolist()
        if caches is not None:
            paths = frame.get("path", [""] * len(frame))
            is_fixed, sizes = not self.members.takes_any_shape, self.sizes
            prepared: Iterator[Prepared] = (
                tuple(caches[size].image(name) for size in sizes)
                if is_fixed or not path or all(area_shape(dimensions(Path(path)), size) == size for size in sizes)
                else self.prepare(read(Path(path)))
                for path, name in zip(paths, ids, strict=True)
            )
        else:
            prepared = (
                self.prepare(read(Path(path)) if change is None else change(read(Path(path)), name))
                for path, name in zip(frame["path"], ids, strict=True)
            )
        made = self._run(prepared, self.encoder.encode(frame), batch=batch, label=label)
        table = self._finish(made, ids, calibrated=False)
        known: dict[str, Any] = {"lesion_id": object_array(frame["lesion_id"]), "group_id": groups_of_frame(frame)}
        known |= {"actual": object_array(frame["diagnosis"]), "probabilities": table.probabilities.astype(np.float32)}
        return replace(table, **known).sorted()

    def embed_frame(self, frame: "pd.DataFrame", *, label: str = "embedding") -> Outputs:
        """Run the members on the images of a checked frame, and keep their logits and pooled features."""
        prepared = (self.prepare(read(Path(path))) for path in frame["path"])
        return self._run(prepared, self.encoder.encode(frame), label=label, embed=True)

    def at_risk(self, predictions: Predictions, alpha: float) -> Predictions:
        """The same predictions with prediction sets that miss the diagnosis in a share `alpha` of images at most.

        Raises:
            DataError: The model has no prediction sets for that share.
        """
        for fitted in self.posthoc.conformal or []:
            if fitted["alpha"] == alpha:
                sets = conformal.prediction_sets(predictions.probabilities, fitted)
                return replace(predictions, prediction_set=sets, coverage=1 - alpha)
        known = ", ".join(f"{fitted['alpha']:g}" for fitted in self.posthoc.conformal or []) or "none"
        raise DataError(f"alpha={alpha:g}: no prediction sets for that risk; this model has {known}")

    def _run(
        self,
        prepared: Iterator[Prepared],
        metadata: npt.NDArray[np.float32],
        *,
        batch: int = BATCH,
        label: str = "",
        embed: bool = False,
    ) -> Outputs:
        """Run the members over all images, a batch at a time."""
        from skinlesion.terminal import track

        starts: Iterable[int] = range(0, len(metadata), batch)
        starts = track(starts, label, -(-len(metadata) // batch)) if label else starts
        embed = embed or self.posthoc.ood is not None
        parts, order = [], []
        for start in starts:
            for rows, images in by_shape(islice(prepared, batch), start):
                order += rows
                parts.append(self.members.run(images, metadata[rows], embed=embed))
        return Outputs.joined(parts, np.argsort(order))

    def _finish(self, made: Outputs, names: Sequence[str], *, calibrated: bool) -> Predictions:
        """The vote, calibrated, with prediction sets and out-of-distribution flags."""
        if len(names) != made.probabilities.shape[1]:
            raise DataError(f"{len(names)} names for {made.probabilities.shape[1]} images; expected one for each")
        mean = made.probabilities.mean(axis=0, dtype=np.float64)  # (N, K)
        vote = corrected(mean, made.specialist, self.posthoc.specialist, self.taxonomy.codes)
        after = self.posthoc if calibrated else replace(self.posthoc, calibration=None, conformal=None)
        values, blank = apply_calibration(vote, after.calibration), object_array([""] * len(names))
        scores = None if after.ood is None else ood.score(after.ood, made.logits, made.pooled)
        if not all(np.isfinite(each).all() for each in (made.probabilities, values, 0 if scores is None else scores)):
            raise CheckpointError(f"{self.folder}: gives probabilities that are no numbers; train or export it again")
        chosen, decision = after.conformal[0] if after.conformal else None, self.posthoc.decision
        deciding = vote if after.calibration is not None else None
        if decision is not None and decision["rule"] == "balanced":
            prior = list(decision["prior"].values())
            deciding = balanced_scores(apply_calibration(vote, self.posthoc.calibration), prior)
        return Predictions(
            image_id=object_array(names),
            probabilities=values,
            lesion_id=blank,
            actual=blank,
            taxonomy=self.taxonomy,
            uncalibrated=vote if after.calibration is not None else None,
            scores=deciding,
            prediction_set=None if chosen is None else conformal.prediction_sets(values, chosen),
            coverage=None if chosen is None else 1 - chosen["alpha"],
            ood_score=scores,
            ood=None if after.ood is None or scores is None else ood.flag(after.ood, scores),
            members=made.probabilities,
        )


def load(path: str | Path, *, tta: str | None = None, accelerator: str = "auto") -> Predictor:
    """Load a checkpoint, an ensemble or a bundle, also of the Hugging Face hub; see `Predictor.load`."""
    return Predictor.load(path, tta=tta, accelerator=accelerator)

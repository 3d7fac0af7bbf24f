"""`skinlesion ensemble`: the members of a sweep vote; the best subset is chosen on validation, test read if asked."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from skinlesion.config.inference import EnsembleConfig
from skinlesion.errors import DataError
from skinlesion.terminal import log_to, next_command

if TYPE_CHECKING:
    from skinlesion.data.datamodule import Part
    from skinlesion.inference.conformal import Score
    from skinlesion.inference.predictions import Predictions
    from skinlesion.inference.specialist import Correction
    from skinlesion.metrics.compare import EnsembleMetrics
    from skinlesion.training.checkpoint import TrainedModel

log = logging.getLogger(__name__)

NOVELTY = "novelty.npz"  # beside ensemble.json


def run(config: EnsembleConfig) -> None:
    """Search the subsets, write ensemble.json, all predictions tables and metrics.json, and print the table.

    Raises:
        SkinlesionError: Members that are missing, broken, unfinished, too few or do not go together.
    """
    from skinlesion.commands.console import resampled
    from skinlesion.files import write_json
    from skinlesion.inference.ensemble import check_count, check_together, describe, find_members, unique_names
    from skinlesion.inference.posthoc import with_calibration
    from skinlesion.metrics.compare import ensemble_metrics
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.training.checkpoint import load_model

    paths, announced = find_members(config.members)
    check_count(paths, announced if config.expected is None else config.expected)
    models = [load_model(path) for path in paths]
    check_together(models)
    inside = Path(str(config.members))
    folder = Path(config.out) if config.out else (inside.parent if inside.is_file() else inside) / "ensemble"
    log_to(folder)
    specialist = _load_specialist(config, models)
    names = unique_names(models)
    val = _predict(models, "val", config)
    chosen = _choose(val, config)
    own: Part = "calibration" if "calibration" in models[0].split else "val"
    plain = {"val": _mean(val, chosen)}
    correction = None if specialist is None else _Correction.fit(specialist, models[0], plain["val"], config)
    fitting = plain["val"] if own == "val" else _mean(_predict(models, own, config), chosen)
    fitted = _fit(fitting if correction is None else correction.apply(fitting, own), config, part=own)
    fitted["specialist"] = None if correction is None else correction.rule
    fitted["novelty"] = _fit_ood([models[k] for k in chosen], folder, config)
    _write_ensemble(describe(models, chosen, folder, tta=config.tta, fitted=fitted, specialist=specialist), folder)
    _open_test([models[k] for k in chosen], folder, config)
    tables = {"val": val, **({"test": _predict(models, "test", config)} if config.split == "test" else {})}
    plain |= {part: _mean(each, chosen) for part, each in tables.items() if part not in plain}
    vote = _write_tables(tables, plain, names, folder, fitted=fitted, correction=correction)
    members = {name: {part: each[k] for part, each in tables.items()} for k, name in enumerate(names)}
    found = ensemble_metrics(
        vote,
        {part: with_calibration(each, fitted["calibration"]) for part, each in vote.items()},
        members,
        BootstrapConfig.of(config),
        chosen=[names[k] for k in chosen],
        bins=config.bins,
        plain=None if correction is None else plain,
    )
    write_json(folder / "metrics.json", found.to_dict())
    table = vote[config.split]
    _show(found, config.split, over=resampled(table.lesion_id, table.group_id))
    if correction is not None:
        _show_correction(found, correction.rule)
    _say_what_is_next(config, folder)


def _load_specialist(config: EnsembleConfig, models: "Sequence[TrainedModel]") -> "TrainedModel | None":
    from skinlesion.inference.specialist import check_specialist
    from skinlesion.training.checkpoint import load_model

    if config.specialist is None:
        return None
    found = load_model(Path(config.specialist))
    check_specialist(found, models)
    return found


def _say_what_is_next(config: EnsembleConfig, folder: Path) -> None:
    log.info("Ensemble: %s", folder / "ensemble.json")
    if config.split == "test":
        log.info(next_command("report", f"ensemble={folder}"))
    else:
        log.info(next_command("evaluate", f"ensemble={folder}", "split=val"))
        log.info("The test part has not been read; once all is decided, the same command with split=test reads it")


def _write_ensemble(contents: dict[str, Any], folder: Path) -> None:
    """Write ensemble.json; take away the test predictions of another ensemble in the folder."""
    from skinlesion.files import write_json

    path = folder / "ensemble.json"
    before = path.read_bytes() if path.is_file() else None
    write_json(path, contents)
    if before is not None and path.read_bytes() != before:
        for table in folder.rglob("predictions_test.csv"):
            table.unlink(missing_ok=True)


def _open_test(voting: "Sequence[TrainedModel]", folder: Path, config: EnsembleConfig) -> None:
    """Check the protocol, and record its fixing or the reading of the test part, which comes next."""
    from skinlesion.inference.ensemble import read_ensemble, unique_names
    from skinlesion.inference.ledger import Examined
    from skinlesion.inference.protocol import open_protocol

    file = folder / "ensemble.json"
    examined = Examined.of(file, unique_names(voting), voting, root=config.data.root)
    digest = open_protocol(
        config.protocol,
        config.split,
        examined,
        configs=[model.config for model in voting],
        tta=config.tta,
        posthoc=read_ensemble(file).posthoc,
    )
    examined.note(config.split, "ensemble", protocol=digest)


def _write_tables(
    tables: "dict[str, list[Predictions]]",
    plain: "dict[str, Predictions]",
    names: Sequence[str],
    folder: Path,
    *,
    fitted: dict[str, Any],
    correction: "_Correction | None",
) -> "dict[str, Predictions]":
    """Write the predictions of the vote, which are returned by part, of all members and of the specialist."""
    from skinlesion.inference.posthoc import with_decision

    vote = {}
    for part, each in tables.items():
        final = plain[part] if correction is None else correction.apply(plain[part], cast("Part", part))
        vote[part] = with_decision(final, fitted["decision"], fitted["calibration"])
        if correction is not None:
            correction.table(cast("Part", part)).write(folder / "specialist" / f"predictions_{part}.csv")
        vote[part].write(folder / f"predictions_{part}.csv")
        for name, predictions in zip(names, each, strict=True):
            predictions.write(folder / "members" / name.replace("/", "-") / f"predictions_{part}.csv")
    return vote


@dataclass(frozen=True)
class _Correction:
    """A specialist, with the rule by which it corrects the vote."""

    specialist: "TrainedModel"
    first: "TrainedModel"  # of the members: names the images of a part
    config: EnsembleConfig
    rule: "Correction"
    tables: "dict[Part, Predictions]"  # of the specialist, as far as they were needed

    @classmethod
    def fit(
        cls, specialist: "TrainedModel", first: "TrainedModel", vote: "Predictions", config: EnsembleConfig
    ) -> Self:
        from skinlesion.inference.specialist import fit_correction, roles

        tables: dict[Part, Predictions] = {}
        own = cls(specialist, first, config, {"target": "", "against": [], "weight": 0, "images": 0}, tables)
        return replace(own, rule=fit_correction(vote, own.table("val"), roles(specialist, first.taxonomy)))

    def table(self, part: "Part") -> "Predictions":
        """The specialist's predictions for the members' images of a part."""
        from skinlesion.inference.predictor import Predictor
        from skinlesion.inference.specialist import specialist_table
        from skinlesion.inference.split_part import read_part

        if part not in self.tables:
            images = read_part(self.first, part, self.config.data)
            predictor = Predictor.of([self.specialist], tta=self.config.tta, accelerator=self.config.accelerator)
            caches, batch = images.caches(predictor.members), self.config.loader.batch_size
            label = f"predicting {self.specialist.name}"
            found = predictor.predict_frame(images.frame, caches=caches, batch=batch, label=label)
            self.tables[part] = specialist_table(found, self.specialist, self.first.taxonomy)
        return self.tables[part]

    def apply(self, vote: "Predictions", part: "Part") -> "Predictions":
        from skinlesion.inference.specialist import correct

        return correct(vote, self.table(part), self.rule)


def _predict(models: "Sequence[TrainedModel]", part: "Part", config: EnsembleConfig) -> "list[Predictions]":
    """The predictions of each member: those beside its checkpoint, where they are without test-time augmentation."""
    from skinlesion.inference.ensemble import own_predictions
    from skinlesion.inference.predictor import Predictor
    from skinlesion.inference.split_part import read_part

    found = [own_predictions(model, part) if config.tta == "none" else None for model in models]
    images = read_part(models[0], part, config.data) if None in found else None

    def predict(model: "TrainedModel") -> "Predictions":
        assert images is not None
        predictor = Predictor.of([model], tta=config.tta, accelerator=config.accelerator)
        caches, batch = images.caches(predictor.members), config.loader.batch_size
        return predictor.predict_frame(images.frame, caches=caches, batch=batch, label=f"predicting {model.name}")

    return [predict(model) if each is None else each for model, each in zip(models, found, strict=True)]


def _choose(val: "Sequence[Predictions]", config: EnsembleConfig) -> list[int]:
    """Positions of the members of the subset with the best macro-F1 on validation."""
    import numpy as np

    from skinlesion.inference.subset_search import search

    smallest, largest = min(config.smallest, len(val)), min(config.largest, len(val))
    stacked = np.stack([each.probabilities for each in val])  # (M, N, K)
    return list(search(stacked, val[0].targets, smallest=smallest, largest=largest)[0].members)


def _mean(tables: "Sequence[Predictions]", chosen: Sequence[int]) -> "Predictions":
    from skinlesion.inference.predictions import Predictions

    return Predictions.soft_vote([tables[k] for k in chosen])


def _fit(vote: "Predictions", config: EnsembleConfig, *, part: "Part") -> dict[str, Any]:
    """Fit on a part what ensemble.json keeps of the vote: calibration, decision, operating points, prediction sets."""
    import numpy as np

    from skinlesion.inference.calibration import prior_of
    from skinlesion.inference.posthoc import (
        better_scaling,
        cross_fitted,
        fit_calibration,
        fit_decisions,
        with_calibration,
    )

    calibration = fit_calibration(vote, method=config.calibration, bins=config.bins)
    if "note" in calibration:
        log.warning("Not calibrated: %s", calibration["note"])
    elif better := better_scaling(calibration):
        log.warning(
            "calibration=%s is worse than %s on left-out lesions by more than noise; compare `folds` in ensemble.json, "
            "and consider calibration=%s",
            *(config.calibration, better, better),
        )
    decisions = fit_decisions(
        with_calibration(vote, calibration),
        sensitivities=config.sensitivities,
        alphas=config.alphas,
        score=cast("Score", config.conformal),
        held_out=cross_fitted(vote, calibration["method"]),
    )
    prior = prior_of(np.bincount(vote.targets, minlength=len(vote.taxonomy)).tolist(), vote.taxonomy.codes)
    decision = {"rule": config.decision, "prior": prior}
    return {
        "calibration": {**calibration, "part": part},
        "decision": decision,
        "operating_points": decisions["operating_points"],
        "conformal": [{**each, "part": part} for each in decisions["conformal"]],
    }


def _fit_ood(models: "list[TrainedModel]", folder: Path, config: EnsembleConfig) -> dict[str, Any] | None:
    """Write novelty.npz, fitted to training images; None where that is not asked for, or they are not there."""
    from skinlesion.files import file_digest
    from skinlesion.inference import ood
    from skinlesion.inference.posthoc import fit_ood
    from skinlesion.inference.predictor import Predictor
    from skinlesion.inference.split_part import read_part

    if config.id_pass_rate is None:
        return None
    predictor = Predictor.of(models, accelerator=config.accelerator)
    try:
        train, val = (
            read_part(models[0], part, config.data, images=ood.IMAGES, seed=config.seed).frame
            for part in ("train", "val")
        )
        fitted = fit_ood(predictor, train=train, val=val, id_pass_rate=config.id_pass_rate)
    except DataError as error:
        log.warning("Out-of-distribution images will not be flagged: %s", str(error).splitlines()[0])
        return None
    ood.write(fitted, folder / NOVELTY)
    threshold, digest = float(fitted["threshold"]), file_digest(folder / NOVELTY)
    return {"file": NOVELTY, "sha256": digest, "passing": config.id_pass_rate, "threshold": threshold}


def _show(found: "EnsembleMetrics", part: str, *, over: str) -> None:
    from skinlesion.commands.console import show_metrics, show_table, with_interval
    from skinlesion.metrics.classification import HEADLINE_NAMES

    rows = [(name, parts[part].metrics) for name, parts in found.members.items()]
    if several := len(rows) > 1:
        rows.append((f"mean of all {len(rows)}", found.all_members[part].metrics))
        rows.append((f"chosen on validation: {len(found.chosen)}", found.vote[part].metrics))
    title = "Test part" if part == "test" else "Validation, which chose the members: too high"
    show_metrics(f"{title}, {found.config.level:.0%} intervals over {over} ({found.config.method})", rows)
    if part == "test" and several:
        gains = [
            (title, with_interval(found.gains[part][metric], sign=True)) for metric, title in HEADLINE_NAMES.items()
        ]
        show_table(f"{title}, gain over {found.best_member}, the best member on validation", ("metric", "gain"), gains)


def _show_correction(found: "EnsembleMetrics", rule: "Correction") -> None:
    from skinlesion.commands.console import show_table, with_interval
    from skinlesion.metrics.classification import HEADLINE_NAMES

    target, against = rule["target"], ", ".join(rule["against"])
    log.info("Specialist: %s against %s, weight %.3f of its log-odds", target, against, rule["weight"])
    shown = {**HEADLINE_NAMES, f"auroc_{target}": f"AUROC of {target}", f"recall_{target}": f"sensitivity to {target}"}
    shown |= {"nll": "log-loss"}
    for part, metrics in found.correction.items():
        title = "Test part" if part == "test" else "Validation, which chose the weight: too good"
        rows = [(name, with_interval(metrics[key], sign=True)) for key, name in shown.items()]
        show_table(f"{title}, corrected minus plain vote", ("metric", "difference"), rows)

"""Other diagnoses than HAM10000's, two of them and three, from a table to the answer of a bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import SMALL, composed
from public_sets import milk10k, pad_ufes20

from skinlesion.commands import compare, ensemble, evaluate, explain, export, report, robustness, train
from skinlesion.config.deploy import ExportConfig
from skinlesion.config.inference import CompareConfig, EnsembleConfig, EvaluateConfig
from skinlesion.config.studies import ExplainConfig, ReportConfig, RobustnessConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import DataError
from skinlesion.inference.predictor import Predictor
from skinlesion.taxonomy import Taxonomy
from skinlesion.training.checkpoint import load_model
from skinlesion.training.module import LesionClassifier

FAST = ("resamples=100", "interval=percentile")


def isic2020(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of ISIC 2020: of most benign lesions nothing more is known."""
    is_melanoma = table["dx"] == "mel"
    words = table["dx"].map({"mel": "melanoma", "nv": "nevus"}).fillna("unknown")
    return pd.DataFrame(
        {
            "image_name": table["image_id"],
            "sex": table["sex"],
            "age_approx": table["age"],
            "anatom_site_general_challenge": "torso",
            "diagnosis": words,
            "benign_malignant": is_melanoma.map({True: "malignant", False: "benign"}),
            "target": is_melanoma.astype(int),
        }
    )


def three_kinds(table: pd.DataFrame) -> pd.DataFrame:
    """A clinic's own words for three of the seven diagnoses."""
    words = {"nv": "Mole", "bkl": "old-age wart", "vasc": "Angioma"}
    return table[table["dx"].isin(words)].assign(dx=lambda rows: rows["dx"].map(words))


def training(root: Path, folder: Path, *overrides: str) -> TrainConfig:
    parts = ",".join(f"{root}/HAM10000_images_part_{part}" for part in (1, 2))
    places = (f"data.root={folder}", "data.table=table.csv", f"data.images=[{parts}]", "data.extra_images=ignore")
    cache = f"data.cache_dir={folder / 'cache'}"
    return composed(
        "train", TrainConfig, *SMALL, "schedule=head_only", "split.policy=grouped", *places, cache, *overrides
    )


@pytest.mark.parametrize(
    ("make", "overrides", "codes", "targets"),
    [
        (isic2020, ("taxonomy=isic2020", "data.classes={}"), ["mel", "other"], {"mel"}),
        pytest.param(
            *(three_kinds, ("taxonomy=infer",), ["angioma", "mole", "old_age_wart"], set()),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_two_diagnoses_and_three_go_all_the_way(
    make: Callable[[pd.DataFrame], pd.DataFrame],
    overrides: tuple[str, ...],
    codes: list[str],
    targets: set[str],
    synthetic_root: Path,
    tmp_path: Path,
) -> None:
    table = pd.read_csv(synthetic_root / "HAM10000_metadata")
    made = make(table)
    made.to_csv(tmp_path / "table.csv", index=False)
    runs = tmp_path / "runs"
    for seed in (1, 2):
        out = runs / f"m{seed}"
        train.run(training(synthetic_root, tmp_path, *overrides, f"seed={seed}", f"out={out}"))
    assert LesionClassifier.load_from_checkpoint(runs / "m1" / "best.ckpt").taxonomy.codes == tuple(codes)
    ensemble.run(composed("ensemble", EnsembleConfig, f"members={runs}", "split=test", *FAST))
    folder = runs / "ensemble"
    evaluate.run(
        composed("evaluate", EvaluateConfig, f"ensemble={folder}", "split=test", f"out={tmp_path / 'e'}", *FAST)
    )
    studied = ("split=val", "images=10", f"ensemble={folder}", "resamples=100")
    others = (f"~steps.{name}" for name in composed("robustness", RobustnessConfig, *studied).steps if name != "jpeg")
    robustness.run(composed("robustness", RobustnessConfig, *studied, "steps.jpeg=[30]", *others))
    explain.run(composed("explain", ExplainConfig, *studied))
    report.run(composed("report", ReportConfig, f"ensemble={folder}", *FAST))
    said = (folder / "report" / "report.html").read_text()
    assert "Robustness" in said
    assert "Explanations" in said
    tables = [f"{runs}/{name}/predictions_test.csv" for name in ("m1", "m2")]
    compare.run(composed("compare", CompareConfig, f"tables=[{','.join(tables)}]", *FAST))
    export.run(composed("export", ExportConfig, f"ensemble={folder}", f"out={tmp_path / 'bundle'}", "images=5"))

    predicted = pd.read_csv(folder / "predictions_test.csv")
    accuracy = (predicted["actual"] == predicted["predicted"]).mean()
    numbers = json.loads((tmp_path / "e" / "metrics_test.json").read_text())["numbers"]
    assert numbers["accuracy"]["value"] == pytest.approx(accuracy)
    assert {
        each["target"] for each in json.loads((folder / "ensemble.json").read_text())["operating_points"]
    } == targets
    found = json.loads((folder / "report" / "report.json").read_text())["confusion"]
    assert found["codes"] == codes
    assert [sum(row) for row in found["counts"]] == [int((predicted["actual"] == code).sum()) for code in codes]
    page = (folder / "report" / "report.html").read_text()
    assert "HAM10000" not in page.partition("<body")[2].partition("Checklist")[0]

    bundle = Predictor.load(tmp_path / "bundle")
    assert bundle.taxonomy == Predictor.load(folder).taxonomy
    assert bundle.about is not None
    assert bundle.about.licence == "licence: that of the data which the weights were trained on (table.csv)"
    image = next(synthetic_root.glob("HAM10000_images_part_1/*.jpg"))
    answers: list[Any] = [each.predict([image]).probabilities for each in (bundle, Predictor.load(folder))]
    assert answers[0].shape == (1, len(codes))
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_diagnoses_without_an_image_are_named_with_the_ways_on(synthetic_root: Path, tmp_path: Path) -> None:
    table = pd.read_csv(synthetic_root / "HAM10000_metadata")
    table[table["dx"].isin(["bkl", "mel", "nv", "bcc", "akiec", "vasc"])].to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(DataError) as caught:
        train.run(training(synthetic_root, tmp_path, f"out={tmp_path / 'run'}"))
    assert "no training image of df (dermatofibroma)" in str(caught.value)
    assert "'~taxonomy.diagnoses.df'" in str(caught.value)
    assert "taxonomy=infer" in str(caught.value)
    config = training(synthetic_root, tmp_path, f"out={tmp_path / 'run'}", "~taxonomy.diagnoses.df")
    train.run(config)
    classes = LesionClassifier.load_from_checkpoint(tmp_path / "run" / "best.ckpt").taxonomy.codes
    assert classes == ("akiec", "bcc", "bkl", "mel", "nv", "vasc")


@pytest.mark.parametrize(
    ("name", "n", "groups"),
    [
        ("pad_ufes20", 96, "patient_id"),
        ("milk10k", 66, "lesion_id"),
        pytest.param("pad_ufes20", 2298, "patient_id", marks=pytest.mark.exhaustive),  # as many as are published
        pytest.param("milk10k", 5240, "lesion_id", marks=pytest.mark.exhaustive),
    ],
)
def test_a_public_layout_trains_by_one_word(name: str, n: int, groups: str, tmp_path: Path) -> None:
    {"pad_ufes20": pad_ufes20, "milk10k": milk10k}[name](tmp_path / "set", n)
    places = (f"data.root={tmp_path / 'set'}", f"data.cache_dir={tmp_path / 'cache'}", f"out={tmp_path / 'run'}")
    small = (*SMALL, "schedule=head_only", "schedule.phases.head.epochs=1", "split.val_fraction=0.25")
    config = composed("train", TrainConfig, f"data={name}", *small, *places)
    train.run(config)
    model = load_model(tmp_path / "run")
    assert model.taxonomy.codes == Taxonomy.load(name).codes
    assert model.encoder.names == tuple(config.data.facts)
    found = pd.concat(pd.read_csv(tmp_path / "run" / f"predictions_{part}.csv") for part in ("val", "test"))
    table = next((tmp_path / "set").glob("*etadata.csv"))
    rows = pd.read_csv(table).rename(columns={"img_id": "image_id", "isic_id": "image_id"})
    rows["image_id"] = rows["image_id"].str.removesuffix(".png")
    split = pd.read_csv(tmp_path / "run" / "split.csv")[["image_id", "split"]]
    split = split.merge(rows[["image_id", groups]], on="image_id")
    assert len(split) == len(rows)
    assert split.groupby(groups)["split"].nunique().max() == 1
    assert set(found["image_id"]) == set(split.loc[split["split"] != "train", "image_id"])

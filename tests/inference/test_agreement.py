"""All commands and the service give one image of one patient the same probabilities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from fastapi.testclient import TestClient
from service_doubles import limits

import skinlesion
from skinlesion.commands.ensemble import run as ensemble
from skinlesion.commands.evaluate import run as evaluate
from skinlesion.commands.explain import run as explain
from skinlesion.commands.export import run as export
from skinlesion.commands.predict import run as predict
from skinlesion.config.deploy import ExportConfig
from skinlesion.config.inference import EnsembleConfig, EvaluateConfig, PredictConfig
from skinlesion.config.studies import ExplainConfig
from skinlesion.deploy.service.app import build
from skinlesion.inference.predictor import Predictor

FAST = ("resamples=100", "interval=percentile")


@pytest.fixture(
    scope="module", params=["checkpoint", "ensemble", pytest.param("specialist", marks=pytest.mark.exhaustive)]
)
def model(request: pytest.FixtureRequest, sweep_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "checkpoint":
        return f"checkpoint={sweep_folder / 'second' / 'best.ckpt'}"
    members, out = (
        f"{sweep_folder / 'first'},{sweep_folder / 'second'}",
        tmp_path_factory.mktemp(f"{request.param}_agreement") / "pair",
    )
    more: tuple[str, ...] = ()
    if request.param == "specialist":
        more = (f"specialist={request.getfixturevalue('nevus_specialist')}",)
    run = (*more, f"members=[{members}]", f"out={out}", "smallest=2", "calibration=temperature", *FAST)
    ensemble(composed("ensemble", EnsembleConfig, *run))
    return f"ensemble={out / 'ensemble.json'}"


def test_all_commands_and_the_service_agree(
    model: str, synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(composed("evaluate", EvaluateConfig, model, "split=test", f"out={tmp_path / 'evaluation'}", *FAST))
    calibrated = "_calibrated" if model.startswith("ensemble") else ""
    table = pd.read_csv(tmp_path / "evaluation" / f"predictions_test{calibrated}.csv").set_index("image_id")
    known = pd.read_csv(synthetic_root / "HAM10000_metadata").set_index("image_id").loc[table.index]
    facts = known[["age", "sex", "localization"]].dropna()
    facts = facts[~facts[["sex", "localization"]].isin(["unknown"]).any(axis=1)].iloc[0]
    (image,) = synthetic_root.rglob(f"{facts.name}.jpg")
    expected = table.loc[facts.name, list(CODES)].to_dict()
    given = (f"image={image}", f"age={facts['age']}", f"sex={facts['sex']}", f"localization='{facts['localization']}'")

    def predicted(model: str) -> dict[str, Any]:
        capsys.readouterr()
        predict(composed("predict", PredictConfig, model, *given, "format=json"))
        (row,) = json.loads(capsys.readouterr().out)["predictions"]
        return row["probabilities"]

    explain(composed("explain", ExplainConfig, model, *given, f"out={tmp_path / 'explained'}"))
    (explained,) = (tmp_path / "explained").glob("*.json")
    bundle = tmp_path / "bundle"
    export(composed("export", ExportConfig, model, f"out={bundle}", "images=4"))
    with TestClient(build(Predictor.load(bundle), limits())) as client:
        files = [("image", (image.name, image.read_bytes(), "image/jpeg"))]
        answer = client.post("/v1/predict", files=files, data={name: str(value) for name, value in facts.items()})
    (row,) = skinlesion.load(model.partition("=")[2]).predict(image, facts.to_dict()).probabilities
    found = {
        "predict": predicted(model),
        "explain": json.loads(explained.read_text())["probabilities"],
        "bundle": predicted(f"bundle={bundle}"),
        "service": answer.json()["images"][0]["probabilities"],
        "python": dict(zip(CODES, row.tolist(), strict=True)),
    }
    if "specialist_agreement" in model:
        about, members = json.loads(Path(model.partition("=")[2]).read_text()), answer.json()["images"][0]["members"]
        plain = sum(np.array(list(each["probabilities"].values())) for each in members) / len(members)
        assert about["specialist"]["weight"] > 0.1
        uncalibrated = answer.json()["images"][0]["uncalibrated"]
        card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
        assert "vote: none. The specialist nevus corrects the vote on melanocytic nevus" in card
        assert np.abs(np.array(list(uncalibrated.values())) - plain).max() > 0.01, "the service corrects the vote too"
    for name, probabilities in found.items():
        tolerance = 1e-4 if name in ("bundle", "service") else 2e-6  # onnxruntime adds up in another order
        assert probabilities == pytest.approx(expected, abs=tolerance), name
    assert found["service"] == pytest.approx(found["bundle"], abs=2e-6)

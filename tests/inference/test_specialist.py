"""A specialist corrects the vote: the rule and its weight, what is refused, and the command from end to end."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CODES, composed
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from skinlesion.commands.ensemble import run as ensemble
from skinlesion.commands.report import run as report
from skinlesion.config.inference import EnsembleConfig
from skinlesion.config.studies import ReportConfig
from skinlesion.data.metadata import CATEGORY, FactSpec, MetadataEncoder
from skinlesion.data.transforms import normalise
from skinlesion.data.treatment import Treatment
from skinlesion.deploy.graph import VotingModule
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.ensemble import read_ensemble
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.specialist import check_specialist, correct, corrected, fit_correction, roles
from skinlesion.inference.torch_members import TorchMembers
from skinlesion.metrics.classification import headline
from skinlesion.studies.report.sources import describe_provenance, read_sources
from skinlesion.taxonomy import Taxonomy
from skinlesion.training.checkpoint import TrainedModel, load_model

OTHERS = [code for code in CODES if code != "mel"]
FAST = ("resamples=100", "interval=percentile", "id_pass_rate=null")


@pytest.fixture(scope="module")
def specialist(nevus_specialist: Path) -> Path:
    return nevus_specialist.parent


@pytest.fixture(scope="module")
def pair(sweep_folder: Path, specialist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ensemble that has the specialist."""
    out = tmp_path_factory.mktemp("corrected") / "pair"
    members = f"members=[{sweep_folder / 'first'},{sweep_folder / 'second'}]"
    keys = (f"out={out}", f"specialist={specialist / 'best.ckpt'}", "calibration=temperature", "split=test", *FAST)
    ensemble(composed("ensemble", EnsembleConfig, members, *keys))
    return out


def tables(seed: int, *, truth: float) -> tuple[Predictions, Predictions]:
    """A vote on 400 images and a specialist that knows `truth` logits more of the target."""
    rng = np.random.default_rng(seed)
    vote = rng.dirichlet(np.ones(7), 400)
    actual = [CODES[rng.choice(7, p=row)] for row in vote]
    ids = [f"image{place:03}" for place in range(400)]
    is_target = np.array([code == "mel" for code in actual])
    score = expit(rng.normal(size=400) + truth * is_target - 1)
    two = Taxonomy.load("ham10000_melanoma")
    named = np.where(is_target, "mel", "rest").tolist()
    return (
        Predictions.build(ids, probabilities=vote, actual=actual),
        Predictions.build(ids, probabilities=np.stack([score, 1 - score], axis=1), actual=named, taxonomy=two),
    )


def rule(weight: float, against: list[str] = OTHERS) -> dict[str, Any]:
    return {"target": "mel", "against": against, "weight": weight, "images": 1}


def test_the_rule_mixes_log_odds_and_keeps_the_proportions_of_the_others() -> None:
    rng = np.random.default_rng(1)
    vote, score = rng.dirichlet(np.ones(7), 50), rng.uniform(0.01, 0.99, 50)
    found = corrected(vote, score, rule(0.3), CODES)
    target, rest = CODES.index("mel"), [CODES.index(code) for code in OTHERS]
    np.testing.assert_allclose(found[:, target], expit(0.7 * logit(vote[:, target]) + 0.3 * logit(score)), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    proportions = [each[:, rest] / each[:, rest].sum(axis=1, keepdims=True) for each in (vote, found)]
    np.testing.assert_allclose(*proportions, atol=1e-12)
    np.testing.assert_array_equal(corrected(vote, score, rule(0), CODES), vote)
    np.testing.assert_allclose(corrected(vote, score, rule(1), CODES)[:, target], score, atol=1e-12)


def test_diagnoses_that_the_specialist_does_not_know_keep_their_probability() -> None:
    rng = np.random.default_rng(2)
    vote, score = rng.dirichlet(np.ones(7), 50), rng.uniform(0.01, 0.99, 50)
    found = corrected(vote, score, rule(0.5, ["nv", "bkl"]), CODES)
    others = [CODES.index(code) for code in ("akiec", "bcc", "df", "vasc")]
    np.testing.assert_array_equal(found[:, others], vote[:, others])
    three = [CODES.index(code) for code in ("mel", "nv", "bkl")]
    within = vote[:, three[0]] / vote[:, three].sum(axis=1)
    np.testing.assert_allclose(
        found[:, three[0]] / found[:, three].sum(axis=1), expit((logit(within) + logit(score)) / 2), atol=1e-12
    )


@pytest.mark.parametrize(("seed", "truth"), [(0, 2.5), (1, 0.7), (2, 0.0), (3, -3.0)])
def test_the_weight_is_that_of_the_least_log_loss(seed: int, truth: float) -> None:
    vote, own = tables(seed, truth=truth)
    fitted = fit_correction(vote, own, {"mel": "mel", **dict.fromkeys(OTHERS, "rest")})

    def loss(weight: float) -> float:
        values = corrected(vote.probabilities, own.probabilities[:, 0], rule(weight), CODES)
        return float(-np.log(values[np.arange(len(vote)), vote.targets]).mean())

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-8})
    assert loss(fitted["weight"]) <= best.fun + 1e-9
    assert fitted["weight"] == pytest.approx(float(best.x), abs=1e-3)
    assert (fitted["target"], fitted["against"], fitted["images"]) == ("mel", OTHERS, 400)
    if truth == 0:
        assert fitted["weight"] < 0.35
    if truth < 0:
        assert fitted["weight"] == 0, "a specialist that misleads is left out"


def test_the_report_shows_what_the_specialist_changes(pair: Path) -> None:
    out = pair.parent / "report"
    report(composed("report", ReportConfig, f"ensemble={pair}", f"out={out}", *FAST[:2]))
    expected = json.loads((pair / "metrics.json").read_text())["against_plain_vote"]["test"]
    rows = pd.read_csv(out / "tables" / "correction.csv").set_index("metric")["difference"]
    for name, key in (("macro-F1", "macro_f1"), ("AUROC of nv", "auroc_nv"), ("sensitivity to nv", "recall_nv")):
        ends = [expected[key][end] for end in ("value", "low", "high")]
        assert [float(each) for each in re.findall(r"[+-]\d\.\d+", rows[name])] == pytest.approx(ends, abs=6e-4)
    page = (out / "report.html").read_text()
    assert "Corrected minus plain vote (paired, test part)" in page
    assert "The specialist changes the macro-F1 of the vote by" in page


def test_the_command_stores_prints_and_judges_the_correction(pair: Path, specialist: Path, sweep_folder: Path) -> None:
    about = json.loads((pair / "ensemble.json").read_text())
    assert about["format"] == 2
    assert about["specialist_member"]["name"] == "nevus"
    assert about["specialist"]["target"] == "nv"
    assert about["specialist"]["against"] == [code for code in CODES if code != "nv"]
    chosen = [about["members"][place]["name"] for place in about["chosen"]]
    metrics = json.loads((pair / "metrics.json").read_text())
    for part in ("val", "test"):
        plain = Predictions.soft_vote(
            [Predictions.read(sweep_folder / name / f"predictions_{part}.csv") for name in chosen]
        )
        own = Predictions.read(specialist / f"predictions_{part}.csv", taxonomy=load_model(specialist).taxonomy)
        vote = Predictions.read(pair / f"predictions_{part}.csv")
        expected = correct(plain, own, about["specialist"])
        np.testing.assert_allclose(vote.probabilities, expected.probabilities, atol=1e-6)
        gain = headline(vote)["macro_f1"] - headline(plain)["macro_f1"]
        assert metrics["against_plain_vote"][part]["macro_f1"]["value"] == pytest.approx(gain, abs=1e-12)
        found = metrics["against_plain_vote"][part]["macro_f1"]
        assert found["low"] <= gain <= found["high"]
    assert 0 < about["specialist"]["weight"] <= 1
    assert {*read_sources(pair, metadata=None).members} == {"first", "second"}, (
        "the report finds vote and members agree"
    )
    weight, images = about["specialist"]["weight"], about["specialist"]["images"]
    said = describe_provenance(read_sources(pair, metadata=None))
    assert said.specialist == (
        "The specialist nevus corrects the vote on melanocytic nevus: its log-odds against akiec, bcc, bkl, df, mel, "
        f"vasc are {1 - weight:.2f} of the vote's and {weight:.2f} of the specialist's, fitted to {images} images"
    )
    assert said.facts == "age, sex and localization"
    table = pair / "specialist" / "predictions_val.csv"
    shutil.copy(pair / "specialist" / "predictions_test.csv", table)
    with pytest.raises(DataError, match="images"):
        read_sources(pair, metadata=None)


def edited(specialist: Path, **changes: Any) -> TrainedModel:
    return replace(load_model(specialist), **changes)


def test_a_specialist_that_cannot_be_used_is_refused(sweep_folder: Path, specialist: Path) -> None:
    first, model = load_model(sweep_folder / "first"), load_model(specialist)
    check_specialist(model, [first])
    assert roles(model, first.taxonomy) == {
        "nv": "nv",
        **dict.fromkeys([code for code in CODES if code != "nv"], "rest"),
    }
    leaked, test = model.split["train"] + model.split["test"][:2], model.split["test"][2:]
    with pytest.raises(
        CheckpointError, match=r"2 of its \d+ images are not in the same part .* split.file=.*split.csv"
    ):
        check_specialist(edited(specialist, split={**model.split, "train": leaked, "test": test}), [first])
    with pytest.raises(
        CheckpointError, match=r"tells akiec, .* apart; expected one of akiec, .* and a class of others"
    ):
        check_specialist(first, [first])
    itch = replace(model.encoder, facts=(*model.encoder.facts, FactSpec("itch", CATEGORY)))
    with pytest.raises(CheckpointError, match=r"takes itch, which .* does not; .* or with model.fusion=none"):
        check_specialist(edited(specialist, encoder=itch), [first])
    given = edited(specialist, config={"data": {"classes": {"bcc": "drop"}}})
    assert "bcc" not in roles(given, first.taxonomy), "data.classes counts too"
    with pytest.raises(CheckpointError, match=r"data.hair=remove; its members have keep"):
        check_specialist(edited(specialist, spec=replace(model.spec, treatment=Treatment("remove"))), [first])


def test_a_specialist_encodes_facts_as_it_learned_them(sweep_folder: Path, specialist: Path) -> None:
    """Its mean and words are those of its own images: with the members, and in the graph, as alone."""
    first, model = load_model(sweep_folder / "first"), load_model(specialist)
    age, sex, place = model.encoder.facts
    assert model.encoder == first.encoder
    place = replace(place, categories=(*place.categories[:-1][::-1], "unknown"))  # in another order
    model = edited(specialist, encoder=MetadataEncoder((replace(age, mean=age.mean - 7, std=age.std * 2), sex, place)))
    check_specialist(model, [first])
    pixels = np.random.default_rng(1).integers(0, 256, (3, *model.spec.size, 3), dtype=np.uint8)
    facts = {"age": [61, None, 20], "sex": ["female", "male", None], "localization": ["back", None, "face"]}
    with torch.inference_mode():
        logits = model.network(normalise(pixels, model.spec), torch.from_numpy(model.encoder.encode(facts)))
    expected = logits.softmax(dim=1)[:, model.classes.index("nv")].numpy()
    encoded = first.encoder.encode(facts)
    members = TorchMembers([first], specialist=model, target="nv", accelerator="cpu")
    found = members.run([[each] for each in pixels], encoded, embed=False)
    np.testing.assert_allclose(found.specialist, expected, atol=1e-5)
    graph = VotingModule([first], tta="none", specialist=model, target="nv").eval()
    with torch.inference_mode():
        (score,) = graph(torch.from_numpy(encoded), [torch.from_numpy(pixels)])[-1]
    np.testing.assert_allclose(score, expected, atol=1e-5)


def test_an_ensemble_file_with_a_damaged_specialist_is_refused(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "copy" / "pair"))
    path = folder / "ensemble.json"
    about = json.loads(path.read_text())
    for member in (*about["members"], about["specialist_member"]):
        member["checkpoint"] = str((pair / member["checkpoint"]).resolve())

    def refused(said: str, **changes: Any) -> None:
        path.write_text(json.dumps({**about, **changes}))
        with pytest.raises(CheckpointError, match=said):
            read_ensemble(path)

    path.write_text(json.dumps(about))
    assert read_ensemble(path).specialist is not None
    refused("specialist.weight: 1.5: expected 0 to 1", specialist={**about["specialist"], "weight": 1.5})
    refused("specialist: does not fit", specialist={**about["specialist"], "target": "nothing"})
    refused("expected its rule and its specialist_member", specialist=None)
    refused("missing, or has changed", specialist_member={**about["specialist_member"], "sha256": "0" * 64})
    refused("1 of its 3 members have moved: nevus", specialist_member={**about["specialist_member"], "checkpoint": "x"})
    refused("format 3, made by a newer skinlesion; this one reads up to 2", format=3)

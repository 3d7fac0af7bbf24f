"""`explain`: a page and numbers that agree with `predict`, the effect of each fact, and invalid settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CODES, composed
from matplotlib.image import imread
from matplotlib.text import Text

from skinlesion.commands.explain import run
from skinlesion.commands.predict import run as predict
from skinlesion.config.inference import PredictConfig
from skinlesion.config.studies import ExplainConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.image_io import read
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.torch_members import TorchMembers
from skinlesion.plots.saliency import explanation_page
from skinlesion.studies.explain.explanation import Explanation, explain, metadata_ablation
from skinlesion.taxonomy import HAM10000
from skinlesion.training.checkpoint import TrainedModel, load_model

FACTS = {"age": 70.0, "sex": "female", "localization": None}


@pytest.fixture
def image(synthetic_root: Path) -> Path:
    return sorted((synthetic_root / "HAM10000_images_part_1").iterdir())[3]


def explained(model: str, image: Path, out: Path, *overrides: str) -> dict[str, Any]:
    run(composed("explain", ExplainConfig, model, f"image={image}", f"out={out}", *overrides))
    (numbers,) = out.glob("*.json")
    return json.loads(numbers.read_text())


def test_a_page_and_its_numbers(
    trained: TrainConfig, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, facts = f"checkpoint={trained.out}", ("age=70", "sex=female")
    found = explained(model, image, tmp_path, *facts, "class=mel")
    predict(composed("predict", PredictConfig, model, f"image={image}", "format=json", *facts))
    (own,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["predicted"] == own["predicted"]
    assert found["probabilities"] == pytest.approx(own["probabilities"], abs=2e-6)
    assert found["class"] == "mel"
    assert set(found["maps"]) == {"mel", found["predicted"]}
    assert set(found["gate_response"]) == {"age", "sex"}, "unknown facts have no effect"
    page = imread(tmp_path / f"{image.stem}.mel.png")
    assert page.shape[1] == 1400
    assert page[..., :3].std() > 0.1


def test_the_effect_of_a_fact_is_the_difference_of_two_predictions(
    trained: TrainConfig, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"checkpoint={trained.out}"
    found = explained(model, image, tmp_path, "age=70", "sex=female")["gate_response"]["age"]
    answers = []
    for facts in (("age=70", "sex=female"), ("sex=female",)):
        predict(composed("predict", PredictConfig, model, f"image={image}", "format=json", *facts))
        answers.append(json.loads(capsys.readouterr().out)["predictions"][0]["probabilities"])
    expected = {code: answers[0][code] - answers[1][code] for code in CODES}
    assert found == pytest.approx(expected, abs=3e-6)
    assert sum(found.values()) == pytest.approx(0, abs=1e-5)


def test_facts_have_no_effect_through_a_gate_of_alpha_zero(trained: TrainConfig, image: Path) -> None:
    predictor = Predictor.load(str(trained.out), accelerator="cpu")
    before = metadata_ablation(predictor, read(image), FACTS)
    assert all(np.abs(change).max() > 0 for change in before.values())
    predictor.networks.models[0].network.head.gate.alpha.data.zero_()
    after = metadata_ablation(predictor, read(image), FACTS)
    assert set(after) == {"age", "sex"}
    assert all((change == 0).all() for change in after.values())


def test_members_are_shown_and_averaged(sweep_folder: Path, image: Path, tmp_path: Path) -> None:
    models = [load_model(sweep_folder / name) for name in ("first", "second")]

    def explained_by(members: list[TrainedModel]) -> Explanation:
        predictor = Predictor(TorchMembers(members, accelerator="cpu"), tmp_path, PostHoc())
        return explain(predictor, read(image), FACTS, name="x", target="bcc")

    found, alone = explained_by(models), [explained_by([model]) for model in models]
    assert list(found.members) == ["first", "second"]
    np.testing.assert_allclose(found.maps["bcc"], np.mean(list(found.members.values()), axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.probabilities, np.mean([each.probabilities for each in alone], axis=0), atol=1e-7)
    np.testing.assert_allclose(found.members["second"], alone[1].maps["bcc"], atol=1e-5)


def example(**changes: Any) -> Explanation:
    rng = np.random.default_rng(0)
    maps = {name: rng.random((30, 40)).astype(np.float32) for name in ("a", "b")}
    found = Explanation(
        name="x.jpg",
        image=np.zeros((30, 40, 3), np.uint8),
        facts={"age": 40.0, "sex": None, "localization": None},
        taxonomy=HAM10000,
        probabilities=np.array([0.1, 0.1, 0.1, 0.1, 0.4, 0.1, 0.1], np.float32),
        target="mel",
        maps={"mel": maps["a"]},
        members=maps,
        spatial=maps["b"],
        fact_effects={"age": np.linspace(-0.1, 0.1, 7, dtype=np.float32)},
    )
    return replace(found, **changes)


def texts(explanation: Explanation) -> str:
    figure = explanation_page(explanation)
    figure.draw_without_rendering()
    found = [text.get_text() for text in figure.findobj(Text)]
    return "\n".join(found)


def test_the_page_names_prediction_facts_and_maps() -> None:
    shown = texts(example())
    for said in (
        "melanoma (mel), probability 40%",
        "age 40, sex unknown",
        "evidence for mel\n(predicted)",
        "factor",
    ):
        assert said in shown
    assert "not a medical device" in shown


def test_the_page_warns_of_out_of_distribution_images() -> None:
    assert "is unlike the training images" in texts(example(ood=(3.2, 1.1)))
    assert "is unlike the training images" not in texts(example(ood=(0.2, 1.1)))


def test_the_page_names_missing_maps_and_facts() -> None:
    flat = np.zeros((30, 40), np.float32)
    shown = texts(example(spatial=None, fact_effects={}, maps={"mel": flat}, members={"a": flat}))
    for said in ("no spatial attention", "no facts about the patient", "no evidence"):
        assert said in shown


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["class=melanoma"], "class=melanoma: expected one of akiec"),
        (["sex=men"], "sex=men: not known to the model"),
        (["age=200"], "age=200"),
        (["ensemble=e.json"], "2 models given"),
    ],
)
def test_invalid_settings_are_refused(
    overrides: list[str], said: str, trained: TrainConfig, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        explained(f"checkpoint={trained.out}", image, tmp_path, *overrides)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unreadable_images_are_refused(trained: TrainConfig, image: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        explained(f"checkpoint={trained.out}", tmp_path / "none.jpg", tmp_path)
    with pytest.raises(DataError, match="is a folder; expected one image"):
        explained(f"checkpoint={trained.out}", image.parent, tmp_path)
    (tmp_path / "a.jpg").write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable image"):
        explained(f"checkpoint={trained.out}", tmp_path / "a.jpg", tmp_path)


def test_a_reserved_word_is_a_key() -> None:
    with pytest.raises(ConfigError, match=r"class__: unknown key; did you mean class\\?"):
        composed("explain", ExplainConfig, "checkpoint=a", "image=b", "+class__=mel")

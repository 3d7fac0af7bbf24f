"""The trials against the camera: their weights, losses and reversed gradient by hand, and a planted shortcut."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import CODES

from benchmarks import source_shortcut
from benchmarks.source_shortcut import TRIALS, Images, compared, images_of, run_trial
from skinlesion.inference.predictions import Predictions

MEL, NV = CODES.index("mel"), CODES.index("nv")


def planted(n: int = 1200) -> Images:
    """Melanomas and nevi: a weak sign of the diagnosis, and one source that has nearly all of the nevi."""
    generator = torch.Generator().manual_seed(0)
    mel = torch.rand(n, generator=generator) < 0.5
    molemax = torch.rand(n, generator=generator) < torch.where(mel, 0.1, 0.9)
    sign = torch.randn(n, generator=generator) + 0.8 * mel
    columns = torch.stack([sign, 2.0 * molemax], dim=1).repeat(1, 50)
    frame = pd.DataFrame(
        {
            "image_id": [f"I{number:05d}" for number in range(n)],
            "lesion_id": [f"L{number:05d}" for number in range(n)],
            "diagnosis": np.where(mel, "mel", "nv"),
            "dataset": np.where(molemax, "molemax", "other"),
        }
    )
    return images_of(frame, columns + 0.1 * torch.randn(n, 100, generator=generator), torch.zeros(n, 1))


def test_reweighing_makes_source_and_diagnosis_independent() -> None:
    images = planted(300)
    weights = source_shortcut.independence_weights(images.source, images.target)
    for row in range(0, 300, 37):
        same_source, same = images.source == images.source[row], images.target == images.target[row]
        expected = same_source.double().mean() * same.double().mean() / (same_source & same).double().mean()
        assert float(weights[row]) == pytest.approx(float(expected), rel=1e-5)
    joint = torch.zeros(2, len(CODES)).index_put_((images.source, images.target), weights, accumulate=True) / 300
    torch.testing.assert_close(joint, joint.sum(1, keepdim=True) * joint.sum(0))


def test_the_gradient_is_reversed_and_the_values_are_not() -> None:
    hidden = torch.tensor([1.0, -2.0], requires_grad=True)
    turned = source_shortcut.reverse(hidden, 0.3)
    (turned**2).sum().backward()
    torch.testing.assert_close(turned, hidden)
    torch.testing.assert_close(hidden.grad, -0.3 * 2 * hidden.detach())


def test_label_smoothing_is_that_of_torch_and_focuses_each_term() -> None:
    logits, target = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 6, 3, 3, 1])
    ones = torch.ones(7)
    plain = source_shortcut.smoothed_focal(logits, target, weights=ones, gamma=0.0, smoothing=0.1)
    torch.testing.assert_close(plain, F.cross_entropy(logits, target, label_smoothing=0.1))
    weights, p = torch.arange(1.0, 8.0), logits.softmax(dim=1)
    terms = [
        -float(weights[t]) * (0.1 / 7 + 0.9 * (k == t)) * (1 - float(p[i, k])) ** 2 * np.log(float(p[i, k]))
        for i, t in enumerate(target.tolist())
        for k in range(7)
    ]
    focal = source_shortcut.smoothed_focal(logits, target, weights=weights, gamma=2.0, smoothing=0.1)
    assert float(focal) == pytest.approx(sum(terms) / 5, rel=1e-5)


def test_a_planted_source_is_leant_on_until_source_and_diagnosis_are_balanced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_shortcut, "EPOCHS", 30)
    images, told, within = planted(), {}, {}
    parts = [(np.arange(0, 1200, 2), np.arange(1, 1200, 2))]
    for name in ("plain", "reweighed", "drawn by the same weights", "standardised within source"):
        torch.manual_seed(0)
        table, known = run_trial(TRIALS[name], (), images, parts)
        source = np.array(images.frame["dataset"])[parts[0][1]]
        nevi = table.actual == "nv"
        score = table.probabilities[:, MEL]
        within[name] = score[nevi & (source == "other")].mean() - score[nevi & (source == "molemax")].mean()
        told[name] = known["logits"]
    assert within["plain"] > 0.3  # the same nevi, ranked by their camera
    assert max(abs(within[name]) for name in within if name != "plain") < 0.15
    assert told["plain"] > 0.9


def test_differences_are_means_over_seeds_of_paired_differences() -> None:
    generator, n = np.random.default_rng(2), 40
    actual = ["mel" if number % 3 == 0 else "nv" for number in range(n)]
    names = [f"I{number:02d}" for number in range(n)]

    def table() -> Predictions:
        return Predictions.build(names, names, probabilities=generator.dirichlet(np.ones(7), n), actual=actual)

    ours, theirs = [table(), table()], [table(), table()]
    found = compared(source_shortcut._areas, ours, theirs)
    own = np.array(actual) == "mel"

    def area(each: Predictions) -> float:  # pairs by hand
        score = each.probabilities[:, MEL]
        return float(np.mean([above > below for above in score[own] for below in score[~own]]))

    seeds = [area(one) - area(other) for one, other in zip(ours, theirs, strict=True)]
    assert found["seeds"]["auroc_mel"] == pytest.approx(seeds)
    assert found["difference"]["auroc_mel"][0] == pytest.approx(np.mean(seeds))
    assert found["value"]["auroc_mel"][0] == pytest.approx(np.mean([area(each) for each in ours]))


def test_the_page_says_what_the_file_says() -> None:
    page = Path("docs/history.md").read_text(encoding="utf-8")
    found = json.loads(source_shortcut.RESULT.read_text(encoding="utf-8"))
    parts = source_shortcut.tables(found).split("\n\n")
    assert len(parts) == 4
    assert [part for part in parts if part not in page] == []

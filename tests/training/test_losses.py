"""The focal loss against an independent reference, other libraries and its limits; mixup against blends by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import DataError
from skinlesion.training.feature_cache import FeatureBatch
from skinlesion.training.losses import FocalLoss, focal_loss, inverse_frequency_weights, mix, mixup_loss

GAMMAS = [0.0, 0.3, 1.0, 2.0, 5.0]
SMOOTHINGS = [0.0, 0.1, 1.0]
ONES = torch.ones(7)


def batch(rows: int = 12, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (rows,), generator=generator)
    weights = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    return logits, target, weights


def reference(logits, target, weights, gamma, smoothing) -> float:
    """The definition, term by term, in float64 and without any of the implementation's devices."""
    losses = []
    for row, true in zip(np.asarray(logits), np.asarray(target), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        y = [(1 - smoothing) * (k == true) + smoothing / len(row) for k in range(len(row))]
        p_t = sum(y_k * p_k for y_k, p_k in zip(y, p, strict=True))
        losses.append(-float(weights[true]) * (1 - p_t) ** gamma * math.log(p_t))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_loss_equals_the_definition(gamma, smoothing):
    logits, target, weights = batch()
    found = focal_loss(logits, target, weights=weights, gamma=gamma, smoothing=smoothing)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(reference(logits, target, weights, gamma, smoothing), rel=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_gradient_equals_finite_differences(gamma, smoothing):
    logits, target, weights = batch(rows=4)

    def loss(x):
        return focal_loss(x, target, weights=weights, gamma=gamma, smoothing=smoothing)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


def test_without_focus_smoothing_and_weights_it_is_cross_entropy():
    logits, target, _ = batch()
    weights = inverse_frequency_weights([5, 1, 9, 2, 7, 100, 3], alpha=0.0)
    found = focal_loss(logits, target, weights=weights, gamma=0.0, smoothing=0.0)
    torch.testing.assert_close(found, F.cross_entropy(logits, target), rtol=1e-12, atol=0)


def test_without_focus_it_is_weighted_cross_entropy_averaged_over_the_batch():
    logits, target, weights = batch()
    found = focal_loss(logits, target, weights=weights, gamma=0.0, smoothing=0.0)
    expected = F.cross_entropy(logits, target, weight=weights, reduction="none").mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_classes_equal_torchvision(gamma):
    logits, target, _ = batch(classes=2)
    found = focal_loss(logits, target, weights=torch.ones(2), gamma=gamma, smoothing=0.0)
    log_odds = logits[:, 1] - logits[:, 0]
    expected = sigmoid_focal_loss(log_odds, target.double(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(found, expected)


def test_focusing_by_hand():
    logits = torch.tensor([[0.9, 0.1]]).log()
    found = focal_loss(logits, torch.tensor([0]), weights=torch.tensor([3.0, 1.0]), gamma=2.0, smoothing=0.0)
    assert found.item() == pytest.approx(3 * 0.1**2 * -math.log(0.9), rel=1e-5)


def test_smoothing_by_hand():
    # y = (0.95, 0.05), p_t = 0.95 * 0.8 + 0.05 * 0.2 = 0.77
    logits = torch.tensor([[0.8, 0.2]]).log()
    found = focal_loss(logits, torch.tensor([0]), weights=torch.ones(2), gamma=2.0, smoothing=0.1)
    assert found.item() == pytest.approx(0.23**2 * -math.log(0.77))


def test_smoothing_bounds_the_loss_of_certain_mistakes():
    logits = torch.full((1, 7), -1000.0)
    logits[0, 0] = 1000.0
    found = focal_loss(logits, torch.tensor([3]), weights=ONES, gamma=2.0, smoothing=0.1)
    assert found.item() == pytest.approx((1 - 0.1 / 7) ** 2 * -math.log(0.1 / 7))


def test_smoothing_is_the_forward_correction_for_labels_drawn_at_random():
    logits, target = torch.randn(5, 7, dtype=torch.float64), torch.arange(5)
    noise = 0.9 * torch.eye(7, dtype=torch.float64) + 0.1 / 7  # (true, given): Patrini et al. 2017
    expected = F.nll_loss((logits.softmax(dim=1) @ noise).log(), target)
    assert focal_loss(logits, target, gamma=0.0, smoothing=0.1).item() == pytest.approx(expected.item())


def test_smoothing_does_not_temper_confidence_as_label_smoothing_does():
    p = torch.linspace(0.01, 0.999, 500)
    logits, target = torch.stack([p, 1 - p], dim=1).log(), torch.zeros(1, dtype=torch.int64)
    own = [focal_loss(row[None], target, gamma=0.0, smoothing=0.1).item() for row in logits]
    smoothed = [F.cross_entropy(row[None], target, label_smoothing=0.1).item() for row in logits]
    assert p[min(range(500), key=own.__getitem__)] == p[-1]
    assert p[min(range(500), key=smoothed.__getitem__)].item() == pytest.approx(0.95, abs=0.002)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_extreme_logits_have_finite_loss_and_gradient(dtype, gamma, smoothing):
    far = float(torch.finfo(torch.float16).max)
    logits = torch.zeros(4, 7)
    logits[0, 2], logits[1, 5], logits[2, 2], logits[3] = far, far, -far, -far
    logits = logits.to(dtype).requires_grad_()
    loss = focal_loss(logits, torch.full((4,), 2), weights=ONES, gamma=gamma, smoothing=smoothing)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss >= 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits_by_hand(gamma):
    certain = torch.tensor([[60000.0, 0.0, 0.0]], dtype=torch.float16, requires_grad=True)
    right = focal_loss(certain, torch.tensor([0]), weights=torch.ones(3), gamma=gamma, smoothing=0.0)
    wrong = focal_loss(certain, torch.tensor([1]), weights=torch.ones(3), gamma=gamma, smoothing=0.0)
    assert right.item() == 0
    assert wrong.item() == 60000
    (gradient,) = torch.autograd.grad(right, certain)
    assert gradient.tolist() == [[0, 0, 0]]
    (gradient,) = torch.autograd.grad(wrong, certain)
    assert gradient.tolist() == [[1, -1, 0]]


def gradient_at(margin: float, gamma: float) -> float:
    logits = torch.tensor([[margin, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0]), weights=torch.ones(2), gamma=gamma, smoothing=0.0).backward()
    return logits.grad[0, 0].item()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("margin", [-30.0, -3.0, 0.0, 4.0, 8.0])
def test_gradient_by_hand(margin, gamma):
    # with u = 1 - p, du / dlogit = -p u: dFL / dlogit = gamma u^gamma p log p - u^(gamma + 1)
    u = 1 / (1 + math.exp(margin))
    expected = gamma * u**gamma * (1 - u) * math.log1p(-u) - u ** (gamma + 1)
    assert gradient_at(margin, gamma) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("gamma", [1e-3, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("margin", [14.0, 15.5, 16.0, 16.6, 17.0, 20.0, 87.0, 88.0, 103.0, 104.0])
def test_gradient_vanishes_where_float32_runs_out_of_digits(margin, gamma):
    assert -1e-5 < gradient_at(margin, gamma) <= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_nothing_further(dtype):
    logits, target, weights = batch()
    half = logits.to(dtype)
    found = focal_loss(half, target, weights=weights.float(), gamma=2.0, smoothing=0.1)
    assert found.item() == pytest.approx(reference(half.double(), target, weights, 2.0, 0.1), rel=1e-5)


def test_module_is_the_function_with_the_published_settings():
    logits, target, _ = batch()
    counts = [5, 1, 9, 2, 7, 100, 3]
    loss = FocalLoss(counts)
    weights = inverse_frequency_weights(counts, alpha=0.5)
    assert loss(logits, target) == focal_loss(logits, target, weights=weights, gamma=2.0, smoothing=0.1)
    assert list(loss.state_dict()) == ["weights"]
    assert not list(loss.parameters())
    assert repr(loss) == "FocalLoss(gamma=2.0, smoothing=0.1)"


def test_without_counts_all_classes_weigh_the_same():
    logits, target, _ = batch()
    assert FocalLoss(gamma=1.5)(logits, target) == focal_loss(logits, target, weights=ONES, gamma=1.5, smoothing=0.1)
    assert not FocalLoss().state_dict()


def test_weights_by_hand():
    # N / (K n_k) = 4 / 2 and 4 / 6, whose mean is 4 / 3
    assert inverse_frequency_weights([1, 3], alpha=1.0).tolist() == pytest.approx([1.5, 0.5])
    assert inverse_frequency_weights([1, 3], alpha=0.0).tolist() == [1, 1]
    rare, frequent = inverse_frequency_weights([100, 400], alpha=0.5).tolist()
    assert rare / frequent == pytest.approx(2)


def test_weights_equal_sklearns_up_to_the_mean():
    counts = [327, 514, 1099, 115, 1113, 6705, 142]
    balanced = compute_class_weight("balanced", classes=np.arange(7), y=np.repeat(np.arange(7), counts))
    found = inverse_frequency_weights(counts, alpha=1.0)
    np.testing.assert_allclose(found, balanced / balanced.mean(), rtol=1e-6)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("alpha", [0.25, 1.0, 2.0])
def test_weights_have_mean_one_and_do_not_depend_on_the_size_of_the_data_set(alpha):
    weights = inverse_frequency_weights([10, 20, 500], alpha=alpha)
    assert weights.mean().item() == pytest.approx(1)
    torch.testing.assert_close(weights, inverse_frequency_weights([100, 200, 5000], alpha=alpha))


def test_class_without_images_is_named():
    with pytest.raises(DataError, match=r"index 1, 3 .*\[5, 0, 2, 0\]"):
        inverse_frequency_weights([5, 0, 2, 0], alpha=1.0)


def mixup_batch(size: int = 5) -> FeatureBatch:
    generator = torch.Generator().manual_seed(3)
    return {
        "feature_map": torch.randn(size, 2, 3, 3, generator=generator),
        "metadata": torch.randn(size, 4, generator=generator),
        "target": torch.arange(size) % 3,
        "image_id": [str(row) for row in range(size)],
    }


def mixup_logits(given_batch: FeatureBatch) -> torch.Tensor:
    return given_batch["feature_map"].flatten(1)[:, :3] + given_batch["metadata"][:, :3]


@given(st.floats(0, 1))
def test_a_blend_is_the_weighted_sum(share: float) -> None:
    plain, partner = mixup_batch(), torch.tensor([3, 0, 1, 2, 4])
    blended = mix(plain, share, partner)
    for key in ("feature_map", "metadata"):
        for row, other in enumerate(partner.tolist()):
            expected = share * plain[key][row] + (1 - share) * plain[key][other]  # type: ignore[literal-required]
            torch.testing.assert_close(blended[key][row], expected)  # type: ignore[literal-required]
    assert blended["image_id"] == plain["image_id"]
    assert torch.equal(blended["target"], plain["target"])


def test_of_equal_items_nothing_changes() -> None:
    plain = mixup_batch()
    same = {key: value[:1].repeat(5, *[1] * (value.ndim - 1)) for key, value in plain.items() if key != "image_id"}
    same_batch: FeatureBatch = {**same, "image_id": plain["image_id"]}  # type: ignore[typeddict-item]
    loss = mixup_loss(F.cross_entropy, mixup_logits, same_batch, concentration=0.4)
    torch.testing.assert_close(loss, F.cross_entropy(mixup_logits(same_batch), same_batch["target"]))


def test_cross_entropy_of_a_blend_is_that_of_soft_targets() -> None:
    torch.manual_seed(5)
    loss = mixup_loss(F.cross_entropy, mixup_logits, mixup_batch(), concentration=0.4)
    torch.manual_seed(5)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    partner = torch.randperm(5)
    onehot = F.one_hot(mixup_batch()["target"], 3).float()
    soft = share * onehot + (1 - share) * onehot[partner]
    torch.testing.assert_close(loss, F.cross_entropy(mixup_logits(mix(mixup_batch(), share, partner)), soft))


@pytest.mark.parametrize("views", [pytest.param(0, marks=pytest.mark.exhaustive), 2])
def test_a_run_with_it_depends_on_its_seed_alone(
    views: int, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    histories = []
    for name, mixup in (("one", 0.3), ("two", 0.3), ("plain", 0)):
        key = "schedule.phases.head"
        settings = (f"{key}.mixup={mixup}", f"{key}.cached_views={views}", f"{key}.epochs=2", f"out={tmp_path / name}")
        run(small_config("schedule=head_only", *settings))
        histories.append(pd.read_csv(tmp_path / name / "metrics.csv")["train/loss"].tolist())
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]

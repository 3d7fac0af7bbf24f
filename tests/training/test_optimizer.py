"""Learning rates: the curve by hand, which weights decay, and the rates of real steps."""

import itertools
import math

import numpy as np
import pytest
from lightning import Callback, LightningModule, Trainer
from training.test_module import classifier, fit_trainer, module_data

from skinlesion.data.datamodule import LesionDataModule
from skinlesion.training.optimizer import lr_factor, parameter_groups


def test_the_rate_warms_up_then_decays_to_a_tenth() -> None:
    factors = [lr_factor(step, steps=110, warmup=10, final=0.1) for step in range(111)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert factors[10] == 1
    np.testing.assert_allclose(factors[60], (1 + 0.1) / 2)  # the cosine's middle
    np.testing.assert_allclose(factors[110], 0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_without_decay_the_rate_stays() -> None:
    assert {lr_factor(step, steps=9, warmup=0, final=1.0) for step in range(9)} == {1.0}


def test_norms_biases_and_alpha_do_not_decay() -> None:
    network = classifier(unfreeze="layer4").network
    groups = parameter_groups(network, lr=1e-3, backbone_lr=1e-4, weight_decay=1e-2)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert network.head.gate is not None
    assert decays[id(network.head.gate.alpha)] == 0
    for name, parameter in network.named_parameters():
        if name.startswith("head.") or "layer4" in name:
            norm = "Norm" in type(network.get_submodule(name.rpartition(".")[0])).__name__
            assert decays[id(parameter)] == (0 if norm or name.endswith(("bias", "alpha")) else 1e-2), name
            assert rates[id(parameter)] == (1e-3 if name.startswith("head.") else 1e-4)
        else:
            assert id(parameter) not in rates, name


def test_lower_stages_learn_more_slowly() -> None:
    network = classifier(unfreeze="layer2").network
    groups = parameter_groups(network, lr=1e-3, backbone_lr=1e-4, weight_decay=1e-2, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    expected = {"head": 1e-3, "backbone.net.layer4": 1e-4, "backbone.net.layer3": 5e-5, "backbone.net.layer2": 2.5e-5}
    for name, parameter in network.named_parameters():
        (rate,) = [rate for start, rate in expected.items() if name.startswith(start)] or [None]
        assert rates.get(id(parameter)) == (None if rate is None else pytest.approx(rate)), name
    assert len(rates) == sum(len(group["params"]) for group in groups)
    alike = parameter_groups(network, lr=1e-3, backbone_lr=1e-4, weight_decay=1e-2)
    assert [group["name"] for group in alike] == ["head", "head_without_decay", "backbone", "backbone_without_decay"]


class Rates(Callback):
    """Notes each group's rate at each step of the optimizer, before it is taken."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        groups = trainer.optimizers[0].param_groups
        self.steps.append({group["name"]: group["lr"] for group in groups})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_real_steps_follow_the_curve(accumulate: int, datamodule: LesionDataModule) -> None:
    """Over 4 epochs, the first of warm-up: a step is `accumulate` batches, the last one of an epoch may be fewer."""
    batches, epochs = len(datamodule.train_dataloader()), 4
    noted = Rates()
    module = classifier(
        datamodule, unfreeze="layer4", lr=1e-3, backbone_lr=1e-4, warmup_epochs=1.0, final_lr_fraction=0.1
    )
    fit_trainer(epochs, noted, accumulate_grad_batches=accumulate).fit(module, datamodule=datamodule)
    an_epoch = math.ceil(batches / accumulate)
    steps = an_epoch * epochs
    assert len(noted.steps) == steps
    warm = [(step + 1) / an_epoch for step in range(an_epoch)]
    cosine = [0.55 + 0.45 * math.cos(math.pi * step / (steps - an_epoch)) for step in range(steps - an_epoch)]
    for name, rate in (("head", 1e-3), ("head_without_decay", 1e-3), ("backbone", 1e-4)):
        np.testing.assert_allclose([step[name] for step in noted.steps], rate * np.array(warm + cosine), rtol=1e-12)


datamodule = pytest.fixture(module_data)

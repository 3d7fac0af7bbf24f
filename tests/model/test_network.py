"""The network: which inputs reach the logits, and that its parts are put together in order."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skinlesion import CBAM, DenseFunnel, FusionGate
from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Head, Network

MISSING = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
FACTS = torch.tensor([0, 0, 1, 1, 1])
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 12, 4, 5, generator=GENERATOR)
METADATA, OTHER = torch.randn(2, 6, 5, generator=GENERATOR)


def head(channels: int = 12, **changes) -> Head:
    torch.manual_seed(0)
    settings = {
        "missing": MISSING,
        "fact_of_column": FACTS,
        "fact_dropout": 0.1,
        "fusion": "gate",
        "gate_hidden": 8,
        "gate_noise": 0.05,
        "gate_alpha": 1.0,
        "attention": "cbam",
        "reduction": 4,
        "spatial_kernel": 3,
        "funnel": [10, 8],
        "dropout": 0.5,
    }
    return Head(channels, 7, **{**settings, **changes})


@pytest.mark.parametrize("fusion", ["gate", "film", "metablock", "concatenate", "none"])
@pytest.mark.parametrize("attention", ["cbam", "channel", "none"])
@pytest.mark.parametrize("funnel", [[10, 8], []])
def test_every_combination_gives_logits_and_trains(fusion, attention, funnel):
    module = head(fusion=fusion, attention=attention, funnel=funnel, dropout=0.1)
    logits = module(X, METADATA)
    assert logits.shape == (6, 7)
    F.cross_entropy(logits, torch.arange(6)).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_parts_in_their_order():
    module = head().eval()
    x = module.gate(X, METADATA)
    x = module.attention.spatial(module.attention.channel(x))
    torch.testing.assert_close(module(X, METADATA), module.funnel(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@pytest.mark.parametrize("fusion", ["gate", "film", "metablock", "concatenate", "none"])
def test_the_funnel_narrows_the_pooled_features(fusion):
    module = head(fusion=fusion, funnel=[10]).eval()
    logits, pooled = module.embed(X, METADATA)
    assert torch.equal(logits, module(X, METADATA))
    x = module.attention(X if module.gate is None else module.gate(X, METADATA))
    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(x, 1).flatten(1))
    features = torch.cat((pooled, METADATA), dim=1) if fusion == "concatenate" else pooled
    torch.testing.assert_close(logits, module.funnel(features))


def test_concatenation_comes_after_pooling():
    module = head(fusion="concatenate", attention="none").eval()
    expected = module.funnel(torch.cat((F.adaptive_avg_pool2d(X, 1).flatten(1), METADATA), dim=1))
    torch.testing.assert_close(module(X, METADATA), expected)


@pytest.mark.parametrize("fusion", ["gate", "concatenate"])
def test_metadata_reach_the_logits(fusion):
    module = head(fusion=fusion).eval()
    assert not torch.allclose(module(X, METADATA), module(X, OTHER), atol=1e-4)


def test_image_only_head_never_sees_metadata():
    module = head(fusion="none").eval()
    assert torch.equal(module(X, METADATA), module(X, OTHER))
    assert torch.equal(module(X, METADATA), module(X, torch.full_like(METADATA, torch.nan)))
    assert {name.split(".")[0] for name in module.state_dict()} == {"attention", "funnel"}


def test_gate_with_alpha_zero_is_the_image_only_head():
    gated, plain = head(gate_alpha=0.0).eval(), head(fusion="none").eval()
    plain.load_state_dict({key: value for key, value in gated.state_dict().items() if key in plain.state_dict()})
    assert torch.equal(gated(X, METADATA), plain(X, OTHER))


@pytest.mark.parametrize("fusion", ["gate", "concatenate"])
def test_all_facts_dropped_is_nothing_known(fusion):
    module = head(fusion=fusion, fact_dropout=1.0, gate_noise=0.0, dropout=0.0).train()
    expected = module(X, MISSING.expand(6, -1))
    torch.testing.assert_close(module(X, METADATA), expected)
    module.eval()
    assert not torch.allclose(module(X, METADATA), module(X, OTHER), atol=1e-4)


def test_evaluation_is_deterministic_and_training_is_not():
    module = head()
    assert not torch.equal(module(X, METADATA), module(X, METADATA))
    module.eval()
    assert torch.equal(module(X, METADATA), module(X, METADATA))


def test_rows_do_not_see_each_other_in_evaluation():
    module = head().eval()
    torch.testing.assert_close(module(X, METADATA)[2:3], module(X[2:3], METADATA[2:3]))


def test_channel_attention_has_no_spatial_part():
    assert head(attention="channel", spatial_kernel=4).attention.spatial is None
    assert head(attention="none").attention is None


@pytest.mark.parametrize(("key", "value"), [("fusion", "gated"), ("fusion", ""), ("attention", "spatial")])
def test_unknown_words_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"{key} must be one of .*none, not '{value}'"):
        head(**{key: value})


def test_the_blocks_stand_alone_with_published_defaults():
    gate, attention, funnel = FusionGate(12, 5), CBAM(12), DenseFunnel(12, 7)
    logits = funnel(attention(gate(X, METADATA)).mean(dim=(2, 3)))
    assert logits.shape == (6, 7)
    whole = Head(12, 7, missing=MISSING, fact_of_column=FACTS).state_dict()
    parts = {"gate": gate, "attention": attention, "funnel": funnel}
    shapes = {f"{name}.{key}": value.shape for name, part in parts.items() for key, value in part.state_dict().items()}
    assert shapes == {key: value.shape for key, value in whole.items() if not key.startswith("fact_dropout.")}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", feature_level="layer3")
    return Network(backbone, head(backbone.channels))


IMAGE = torch.randn(6, 3, 32, 32, generator=GENERATOR)


def test_network_is_head_after_backbone(network):
    network.eval()
    stored: Tensor = network.backbone(IMAGE)
    assert torch.equal(network(IMAGE, METADATA), network.head(stored, METADATA))


def test_a_network_embeds_an_image(network):
    network.eval()
    logits, pooled = network.embed(IMAGE, METADATA)
    assert torch.equal(logits, network(IMAGE, METADATA))
    assert pooled.shape == (6, network.backbone.channels)


def test_head_learns_while_the_backbone_is_frozen(network):
    network.backbone.freeze()
    network.train()
    F.cross_entropy(network(IMAGE, METADATA), torch.arange(6)).backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    assert network.head.training
    assert not network.backbone.net.training


def test_weights_survive_saving(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "network.pt")
    expected = network.eval()(IMAGE, METADATA)
    again = Network(Backbone("test_resnet", feature_level="layer3"), head(192, missing=MISSING + 1))
    again.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    assert torch.equal(again.eval()(IMAGE, METADATA), expected)
    assert torch.equal(again.head.fact_dropout.missing, MISSING)  # the encoding travels with the weights

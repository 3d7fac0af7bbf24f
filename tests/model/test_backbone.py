"""The backbone: feature maps against timm's own extractor, and what freezing does and does not change."""

import copy

import pytest
import timm
import torch
from torch import nn

from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TINY = "test_resnet"


def build(name: str = TINY, level: str | int | None = None, eps: float | None = None, **kwargs) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, kwargs=kwargs, feature_level=level, batch_norm_eps=eps)


def trained(backbone: Backbone) -> set[str]:
    """Names of the parameters that are trained, as torch sees them."""
    return {name for name, parameter in backbone.net.named_parameters() if parameter.requires_grad}


def within(backbone: Backbone, *modules: str) -> set[str]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name for name, _ in backbone.net.named_parameters() if name.startswith(prefixes)}


# The feature map


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [("test_resnet", 96, 32), ("test_efficientnet", 256, 32), ("test_convnext", 64, 32), ("test_nfnet", 192, 32)],
)
def test_feature_map_has_the_announced_channels(name, channels, stride):
    backbone = build(name)
    assert backbone.channels == channels
    assert backbone(IMAGE).shape == (2, channels, 64 // stride, 64 // stride)


@pytest.mark.parametrize(("level", "channels", "side"), [(None, 256, 2), ("stem", 16, 16)])  # 16: which is which?
def test_channels_last_maps_are_turned(level, channels, side):
    backbone = build("test_mambaout", level).eval()  # (B, H, W, C)
    expected = backbone.net(IMAGE).movedim(3, 1)
    assert backbone.channels == channels
    assert backbone(IMAGE).shape == (2, channels, side, side)
    assert torch.equal(backbone(IMAGE), expected)


def test_network_of_one_input_size_is_built_at_that_size():
    backbone = build("swin_tiny_patch4_window7_224", embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    assert backbone.input_size == 224
    assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 128, 7, 7)


def test_network_that_takes_no_square_image_is_built_at_its_own_size():
    small = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    backbone = build("swin_tiny_patch4_window7_224", img_size=(224, 112), **small)
    assert backbone(torch.zeros(1, 3, 224, 112)).shape == (1, 128, 7, 4)  # 3.5 columns are padded


# Tokens: timm's own `forward_intermediates(output_fmt="NCHW")` is the other route to the same map.

TOKENS = [
    ("vit_tiny_patch16_224", {"depth": 2}, (64, 96), 1),
    ("vit_small_patch14_dinov2", {"depth": 2}, (56, 84), 1),
    ("vit_small_patch16_dinov3", {"depth": 2}, (64, 96), 5),
    ("eva02_tiny_patch14_224", {"depth": 2}, (56, 84), 1),
    ("beit_base_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}, (64, 96), 1),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}, (64, 96), 0),
    ("swinv2_tiny_window8_256", {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}, (64, 96), 0),
]


@pytest.mark.parametrize(("name", "kwargs", "size", "prefix"), TOKENS)
def test_tokens_become_the_map_that_timm_makes_of_them(name, kwargs, size, prefix):
    backbone = Backbone(name, kwargs=kwargs, image_size=size).eval()
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        feature_map = backbone(image)
        (expected,) = backbone.net.forward_intermediates(
            image, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        embedding = backbone.embed(image)
    torch.testing.assert_close(feature_map, expected)
    assert embedding.shape == (2, backbone.channels * (2 if prefix else 1))
    torch.testing.assert_close(embedding[:, -backbone.channels :], expected.mean(dim=(2, 3)))


@pytest.mark.parametrize(("name", "kwargs", "size", "prefix"), TOKENS)
def test_phases_of_a_transformer_begin_at_a_block(name, kwargs, size, prefix):
    backbone = Backbone(name, kwargs=kwargs, image_size=size).eval()
    image = torch.rand(3, 3, *size)
    for start in (1, -1):
        backbone.unfreeze(start)
        trained = {leaf for leaf, is_trained in backbone.trainable().items() if is_trained}
        assert any("attn" in leaf or "mlp" in leaf for leaf in trained)  # a block, not its norm alone
        with torch.no_grad():
            below = backbone.frozen_prefix()(image)
            assert below.ndim == 4
            torch.testing.assert_close(backbone.forward_suffix(below), backbone(image))


def test_image_that_patches_do_not_fill_is_refused():
    with pytest.raises(
        ConfigError, match=r"squares of 16 pixels; give multiples of that, such as \[144, 192\] or \[160, 208"
    ):
        Backbone("vit_tiny_patch16_224", kwargs={"depth": 1}, image_size=(150, 200))


@pytest.mark.parametrize(("name", "level"), [(TINY, -1), (TINY, 2), (TINY, 0), ("test_efficientnet", 3)])
def test_levels_equal_timms_extractor(name, level):
    backbone = build(name, level).eval()
    extractor = timm.create_model(name, features_only=True, out_indices=(level % 5,)).eval()
    loaded = extractor.load_state_dict(backbone.net.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    (expected,) = extractor(IMAGE)
    torch.testing.assert_close(backbone(IMAGE), expected)
    assert backbone.channels == expected.shape[1] == extractor.feature_info.channels()[0]


def test_cut_within_a_stage():
    whole, cut = build("resnet18").eval(), build("resnet18", "layer3.0").eval()
    captured = []
    whole.net.layer3[0].register_forward_hook(lambda module, arguments, returned: captured.append(returned))
    whole(IMAGE)
    assert torch.equal(cut(IMAGE), captured[0])
    assert set(cut.net.state_dict()) == {
        key for key in whole.net.state_dict() if not key.startswith(("layer3.1.", "layer4."))
    }
    assert cut.stages()[-1] == [leaf for leaf in whole.stages()[3] if leaf.startswith("layer3.0.")]


def test_cut_draws_no_random_numbers_and_leaves_the_training_flags():
    build()
    expected = torch.get_rng_state()
    backbone = build(level="layer2")
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(module.training for module in backbone.modules())


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ("layer3.0.conv1", "more than a chain"),
        ("layer9", "no such module"),
        ("", "no such module"),
    ],
)
def test_impossible_cut_names_the_possible_ones(level, reason):
    with pytest.raises(ConfigError, match=rf"cannot be cut after '{level}'.*{reason}.*layer1, layer2, layer3, layer4"):
        build(level=level)


@pytest.mark.parametrize("level", [5, -6])
def test_unknown_level_names_the_known_ones(level):
    with pytest.raises(ConfigError, match=rf"no feature level {level}; its levels are: 0 \(act1\), 1 \(layer1\)"):
        build(level=level)


def test_xception_can_be_cut_where_its_weights_end():
    backbone = build("legacy_xception", "block12", 1e-3)
    assert backbone(IMAGE).shape == (2, 1024, 2, 2)
    assert {leaf.split(".")[0] for leaf in backbone.stages()[-1]} == {"block12"}


# What it is built with


@pytest.mark.parametrize(("name", "close"), [("resnet_50", "resnet50"), ("efficientnet-b1", "efficientnet_b1")])
def test_unknown_name_suggests_close_ones(name, close):
    with pytest.raises(ConfigError, match=rf"no network called '{name}'; did you mean .*\b{close}\b"):
        build(name)


@pytest.mark.parametrize("name", ["", "qqqqqqqq", "hf-hub:timm/test_resnet.r160_in1k"])
def test_name_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match="timm has no network called"):
        build(name)


@pytest.mark.parametrize(
    ("name", "kwargs", "reason"),
    [
        (TINY, {"colour": 1}, "colour"),
        (TINY, {"act_layer": "nope"}, "nope"),
        (TINY, {"output_stride": 5}, "AssertionError"),
        ("test_resnet.no_such_tag", {}, "has the tags r160_in1k"),
        (TINY, {"num_classes": 7, "global_pool": "avg"}, "num_classes, global_pool cannot be set"),
    ],
)
def test_unsuitable_arguments_are_refused(name, kwargs, reason):
    with pytest.raises(ConfigError, match=rf"{name}.*{reason}"):
        build(name, **kwargs)


def test_epsilon_reaches_every_batch_norm():
    def epsilons(backbone):
        return {module.eps for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)}

    assert epsilons(build("test_efficientnet", eps=1e-3)) == {1e-3}
    assert epsilons(build("test_efficientnet")) == {1e-5}


def test_preprocessing_comes_from_timm():
    backbone = build("efficientnet_b1")
    assert backbone.input_size == 240
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert backbone.pretrained_cfg["architecture"] == "efficientnet_b1"
    assert build("mobilenetv3_large_100").mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(("name", "stages"), [("resnet50", 5), ("efficientnet_b1", 8), ("mobilenetv3_large_100", 9)])
def test_stages_of_the_usual_networks(name, stages):
    assert len(build(name).stages()) == stages


# Freezing


def test_all_is_trained_at_first():
    backbone = build()
    assert not backbone.is_frozen
    assert all(backbone.trainable().values())
    assert list(backbone.trainable()) == [leaf for stage in backbone.stages() for leaf in stage]


@pytest.mark.parametrize(
    ("start", "modules"),
    [
        (1, ["layer4"]),
        (-1, ["layer4"]),
        (-2, ["layer3", "layer4"]),
        (2, ["layer3", "layer4"]),
        (4, ["layer1", "layer2", "layer3", "layer4"]),
        (5, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
        ("layer3", ["layer3", "layer4"]),
        ("layer3.1", ["layer3.1", "layer4"]),
        ("layer4.1.conv2", ["layer4.1.conv2", "layer4.1.bn2"]),
    ],
)
def test_what_is_unfrozen(start, modules):
    backbone = build("resnet18")
    backbone.unfreeze(start)
    assert trained(backbone) == within(backbone, *modules)
    assert {f"{leaf}.weight" for leaf, train in backbone.trainable().items() if train} <= trained(backbone)
    assert not backbone.is_frozen


def test_freezing_again():
    backbone = build()
    backbone.unfreeze(3)
    backbone.unfreeze(1)
    assert trained(backbone) == within(backbone, "layer4")
    backbone.freeze()
    assert trained(backbone) == set()
    assert backbone.is_frozen
    backbone.unfreeze(5)
    assert trained(backbone) == {name for name, _ in backbone.net.named_parameters()}


@pytest.mark.parametrize("start", [0, -5, 6, "layer9", "layer", "act1", ""])
def test_impossible_start_names_the_stages(start):
    backbone = build()
    with pytest.raises(ConfigError, match=rf"from {start!r}.*1 to 5.*conv1.0 to bn1, layer1.0, layer2.0"):
        backbone.unfreeze(start)
    assert all(backbone.trainable().values())


def test_stages_are_counted_after_the_cut():
    backbone = build(level="layer3")
    backbone.unfreeze(1)
    assert trained(backbone) == within(backbone, "layer3")
    with pytest.raises(ConfigError, match="1 to 4"):
        backbone.unfreeze(5)


def test_layer_scale_goes_with_its_stage():
    backbone = build("test_convnext")
    backbone.unfreeze("stages.2")
    gammas = {name: parameter.requires_grad for name, parameter in backbone.net.named_parameters() if "gamma" in name}
    assert {name.split(".")[1] for name, train in gammas.items() if train} == {"2", "3"}
    assert {name.split(".")[1] for name, train in gammas.items() if not train} == {"0", "1"}


def test_frozen_batch_norm_keeps_its_statistics_in_training():
    backbone = build("test_efficientnet")
    backbone.unfreeze("blocks.3")
    backbone.train()
    before = copy.deepcopy(backbone.net.state_dict())
    backbone(IMAGE)
    changed = {
        key.rpartition(".")[0] for key, value in backbone.net.state_dict().items() if not value.equal(before[key])
    }
    norms = {leaf for leaf, train in backbone.trainable().items() if train and ".bn" in f".{leaf}"}
    assert changed == norms


def test_frozen_layers_get_no_gradient_and_stay_while_the_rest_learns():
    backbone = build()
    backbone.unfreeze(2)
    backbone.train()
    before = copy.deepcopy(backbone.net.state_dict())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone(IMAGE).square().mean().backward()
    with_gradient = {name for name, parameter in backbone.net.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained(backbone)
    optimizer.step()
    changed = {key for key, value in backbone.net.state_dict().items() if not value.equal(before[key])}
    assert "layer4.0.bn2.weight" in changed
    assert "layer3.0.bn2.running_mean" in changed
    assert all(key.startswith(("layer3.", "layer4.")) for key in changed)


def test_frozen_backbone_is_deterministic_in_training():
    backbone = build("test_efficientnet", drop_path_rate=0.9, drop_rate=0.5)
    assert not torch.equal(backbone(IMAGE), backbone(IMAGE))  # in training, and not frozen
    backbone.freeze()
    backbone.train()
    frozen = backbone(IMAGE)
    assert not frozen.requires_grad
    assert torch.equal(frozen, backbone.eval()(IMAGE))


def test_modes_follow_train_and_eval():
    backbone = build()
    backbone.unfreeze(1)
    for _ in range(2):
        backbone.train()
        assert backbone.net.layer4.training
        assert backbone.net.layer4[0].bn1.training
        assert backbone.net.layer4[0].act1.training
        assert backbone.net.training  # it holds what is trained
        assert not any(module.training for module in backbone.net.layer3.modules())
        assert not any(module.training for module in (*backbone.net.conv1.modules(), backbone.net.bn1))
        backbone.eval()
        assert not any(module.training for module in backbone.modules())
    backbone.unfreeze(5)
    assert not any(module.training for module in backbone.modules())  # freezing does not start training
    backbone.train()
    assert all(module.training for module in backbone.modules())


def test_freezing_takes_effect_at_once():
    backbone = build().train()
    backbone.unfreeze(1)
    assert backbone.net.layer4[0].bn1.training
    assert not backbone.net.layer3[0].bn1.training
    backbone.unfreeze(2)
    assert backbone.net.layer3[0].bn1.training


def test_parent_sets_the_mode_and_copies_keep_it():
    backbone = build()
    backbone.freeze()
    parent = copy.deepcopy(nn.Sequential(backbone)).train()
    assert not any(module.training for module in parent[0].net.modules())
    assert parent[0].is_frozen

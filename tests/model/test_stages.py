"""Stages: every parameter in exactly one leaf, and the leaves in the order in which they run."""

import itertools

import pytest
import timm
import torch
from torch import Tensor, nn

from skinlesion.model.stages import Stages, own_parameters
from skinlesion.model.surgery import ancestors

SAM = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 64, "global_attn_indexes": (1,)}
NETWORKS = [
    ("test_resnet", {}),
    ("test_efficientnet", {}),
    ("test_convnext", {}),  # layer scale: parameters of a block itself
    ("test_byobnet", {}),
    ("test_nfnet", {}),
    ("densenet121", {}),
    ("mobilenetv3_large_100", {}),
    ("samvit_base_patch16", SAM),  # position embedding: a parameter of the network itself
]


def build(name: str, kwargs: dict) -> nn.Module:
    return timm.create_model(name, num_classes=0, global_pool="", **kwargs)


@pytest.mark.parametrize(("name", "kwargs"), NETWORKS)
def test_every_parameter_belongs_to_exactly_one_leaf(name, kwargs):
    net = build(name, kwargs)
    leaves = Stages.of(net, name=name).leaves
    found = [id(parameter) for leaf in leaves for parameter in own_parameters(net, leaf)]
    assert sorted(found) == sorted(id(parameter) for parameter in net.parameters())
    assert len(leaves) == len(set(leaves))


@pytest.mark.parametrize(("name", "kwargs"), NETWORKS)
def test_each_stage_runs_before_the_next(name, kwargs):
    net = build(name, kwargs).eval()
    order: list[str] = []
    for leaf, module in net.named_modules():
        module.register_forward_pre_hook(lambda module, arguments, leaf=leaf: order.append(leaf))
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    runs = [[order.index(leaf) for leaf in stage if leaf in order] for stage in Stages.of(net, name=name).groups]
    for this, following in itertools.pairwise(runs):
        assert max(this) < min(following)


def test_stages_of_a_small_resnet_by_hand():
    stages = Stages.of(build("resnet18", {}), name="resnet18")
    assert stages.groups[0] == ["conv1", "bn1"]
    assert stages.groups[1] == [
        f"layer1.{block}.{leaf}" for block in (0, 1) for leaf in ("conv1", "bn1", "conv2", "bn2")
    ]
    assert stages.titles == ["conv1 to bn1", "layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("name", "high", "middle", "last"),
    [  # the module from which -1, -2 and 1 train, as in the networks' papers and printed structures
        ("resnet18", "layer4", "layer3", "layer4"),
        ("regnety_002", "s4", "s3", "s4"),
        ("densenet121", "features.transition3", "features.transition2", "features.denseblock4"),
        ("efficientnet_b0", "blocks.5", "blocks.3", "blocks.6"),
        ("mobilenetv4_conv_small", "blocks.3", "blocks.2", "conv_head"),
        ("convnext_atto", "stages.3", "stages.2", "stages.3"),  # 1 is not the last norm alone
        ("edgenext_xx_small", "stages.3", "stages.2", "stages.3"),
        ("repvgg_a0", "stages.3", "stages.2", "stages.3"),
        ("ghostnet_050", "blocks.6", "blocks.4", "blocks.9"),
        ("poolformer_s12", "stages.3", "stages.2", "stages.3"),  # timm has no group_matcher for it
        ("vit_tiny_patch16_224", "blocks.10", "blocks.8", "blocks.11"),  # thirds of its depth, not of its norm
        ("swin_tiny_patch4_window7_224", "layers.3", "layers.2", "layers.3"),
        ("mvitv2_tiny", "stages.3", "stages.2", "stages.3"),  # timm has no feature levels of it
        ("mobilenetv2_050", "blocks.5", "blocks.3", "blocks.6"),
    ],
)
def test_stages_of_families_by_hand(name, high, middle, last):
    with torch.device("meta"):
        stages = Stages.of(build(name, {}), name=name)
    for start, module in ((-1, high), (-2, middle), (1, last)):
        position = stages.position(start)
        assert module in ancestors(stages.leaves[position])
        assert all(module not in ancestors(leaf) for leaf in stages.leaves[:position])


def test_position_embedding_goes_with_the_stem():
    stages = Stages.of(build("samvit_base_patch16", SAM), name="samvit_base_patch16")
    assert stages.groups[0] == ["patch_embed.proj", "pos_embed"]


class Bare(nn.Module):
    """Only the net itself owns a parameter that timm's matcher puts into no group of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.a = nn.Linear(1, 1)
        self.b = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.scale * x))

    def group_matcher(self, coarse: bool) -> dict[str, object]:
        return {"stem": r"^scale", "blocks": [(r"^a", (0,)), (r"^b", (1,))]}


def test_parameter_without_neighbours_goes_with_the_stem():
    assert Stages.of(Bare(), name="bare").groups == [["a", "scale"], ["b"]]


def test_what_was_cut_away_is_dropped():
    net = build("test_resnet", {})
    whole = Stages.of(net, name="test_resnet")
    stages = whole.groups
    net.layer4, net.layer3[0].bn2 = nn.Identity(), nn.Identity()
    kept = whole.within(net).groups
    assert kept[:3] == stages[:3]
    assert kept[3] == [leaf for leaf in stages[3] if leaf != "layer3.0.bn2"]
    assert len(kept) == 4
    assert whole.levels == ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert whole.within(net).levels == whole.levels[:4]


def test_ancestors():
    assert ancestors("layer3.0.conv1") == ["", "layer3", "layer3.0", "layer3.0.conv1"]


@pytest.mark.parametrize(
    ("name", "level", "first"),
    [
        ("resnet18", -1, "layer4.0.conv1"),
        ("resnet18", -2, "layer3.0.conv1"),
        ("resnet18", -4, "conv1"),  # level 0 has no parameters of its own
        ("efficientnet_b1", -1, "blocks.5.0.conv_pw"),  # the last level is stages 5 and 6, at one resolution
        ("test_convnext", -1, "stages.3.downsample.0"),
        ("densenet121", -1, "features.transition3.norm"),
    ],
)
def test_levels_counted_from_the_coarsest(name, level, first):
    stages = Stages.of(build(name, {}), name=name)
    assert stages.leaves[stages.position(level)] == first

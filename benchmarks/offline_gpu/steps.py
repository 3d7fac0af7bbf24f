"""The steps: which members are trained, which of them vote together, how long it may take."""

from dataclasses import dataclass

BACKBONES = ("lite2", "lite0")
LOSSES = ("a05_g20", "a04_g21", "a06_g19")


@dataclass(frozen=True)
class Member:
    """A training run.

    Args:
        group: The members of a group vote together.
        backbone: lite0 or lite2.
        loss: A choice of conf/loss.
        overrides: Beyond the recipe.
    """

    group: str
    backbone: str
    loss: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder, below the group's."""
        return f"efficientnet_{self.backbone}-{self.loss}"


@dataclass(frozen=True)
class Step:
    """What is done at one go.

    Args:
        seconds: It may take, unless another number is given.
        members: In the order of their worth; none: the step is the benchmarks.
        toy: Those of the members that a rehearsal trains.
        at_once: Members that train side by side.
        share: Training images, as a multiple of those of the published split.
    """

    seconds: float
    members: tuple[Member, ...] = ()
    toy: tuple[Member, ...] = ()
    at_once: int = 6
    share: float = 1.0


def _six(group: str, *overrides: str) -> tuple[Member, ...]:
    return tuple(Member(group, backbone, loss, overrides) for loss in LOSSES for backbone in BACKBONES)


def _folds(backbone: str) -> tuple[Member, ...]:
    policy = ("split.policy=file", "split.file={folds}", "split.val_fraction=0.1")
    return tuple(Member(f"fold{fold}", backbone, LOSSES[0], (*policy, f"split.fold={fold}")) for fold in range(5))


SIX = _six("published", "split.seed=666")
_FOLDS = tuple(member for backbone in BACKBONES for member in _folds(backbone))  # first one member a fold
_SEEDS = tuple(member for seed in (1, 2) for member in _six(f"seed{seed}", f"split.seed={seed}"))

STEPS = {
    "six": Step(480, SIX, SIX),
    "bench": Step(300),
    "folds": Step(540, _FOLDS, (_FOLDS[0], _FOLDS[1], _FOLDS[5]), at_once=5, share=1.15),
    "seeds": Step(540, _SEEDS, (*_SEEDS[:2], _SEEDS[6])),
}
BENCH_ROWS = (
    "gpu_input_mobilenetv2_100",
    "gpu_input_resnet50",
    "gpu_input_efficientnet_b1",
    "gpu_template_mobilenetv2_100",
    "gpu_template_resnet50",
    "gpu_template_efficientnet_b1",
    "gpu_sweep",  # takes longest
)
TOY_BENCH_ROWS = ("gpu_input_tiny_resnet", "gpu_template_tiny_resnet", "gpu_sweep")

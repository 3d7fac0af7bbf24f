"""A study that workers share: who holds a trial, who takes it up, and what is drawn."""

from pathlib import Path

import pytest

from skinlesion.errors import ConfigError
from skinlesion.studies.tune.space import Dimension

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")
from skinlesion.studies.tune.study import SharedStudy, make_pruner  # noqa: E402

SPACE = [Dimension("a", 0.0, 1.0), Dimension("b", 1, 9), Dimension("c", choices=("[1]", "[2]"))]


def study(out: Path, *, storage: str = "sqlite", settings: object = "these", name: str = "tune") -> SharedStudy:
    pruner = make_pruner("none", startup=3, warmup=0)
    keys = {"storage": storage, "name": name, "maximize": True, "seed": 1, "startup": 3, "pruner": pruner}
    return SharedStudy(out, {"space": settings}, **keys)


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_workers_hold_different_trials_and_take_up_what_one_leaves(tmp_path: Path, storage: str) -> None:
    first, second = study(tmp_path, storage=storage), study(tmp_path, storage=storage)
    with first.next_trial(SPACE, trials=2) as held, second.next_trial(SPACE, trials=2) as other:
        assert held is not None
        assert other is not None
        assert [held[0].number, other[0].number] == [0, 1]
        assert held[1] != other[1], "different draws"
        with study(tmp_path, storage=storage).next_trial(SPACE, trials=2) as third:
            assert third is None, "all trials have a worker"
        second.study.tell(other[0], 0.5)
    with study(tmp_path, storage=storage).next_trial(SPACE, trials=2) as again:
        assert again is not None
        assert (again[0].number, again[1]) == (0, held[1]), "left by its worker, with the same draw"
        second.study.tell(again[0], 0.7)
    with study(tmp_path, storage=storage).next_trial(SPACE, trials=2) as none:
        assert none is None
    assert [each.value for each in study(tmp_path, storage=storage).study.trials] == [0.7, 0.5]


def test_the_same_seed_draws_the_same_trials(tmp_path: Path) -> None:
    drawn = []
    for place in ("one", "two"):
        for _ in range(3):
            own = study(tmp_path / place)
            with own.next_trial(SPACE, trials=5) as held:
                assert held is not None
                drawn.append(held[1])
                own.study.tell(held[0], 0.5)
    assert drawn[:3] == drawn[3:]
    assert len({tuple(each) for each in drawn}) == 3
    for a, b, c in drawn:
        assert 0 <= float(a.removeprefix("a=")) <= 1
        assert 1 <= int(b.removeprefix("b=")) <= 9
        assert c in ("c=[1]", "c=[2]")


def test_the_storage_of_another_study_is_refused(tmp_path: Path) -> None:
    study(tmp_path)
    with pytest.raises(ConfigError, match=r"holds another study, of space=these, not those; give another out or study"):
        study(tmp_path, settings="those")
    study(tmp_path, settings="those", name="second")
    optuna.create_study(study_name="foreign", storage=f"sqlite:///{tmp_path}/study.db").ask()
    with pytest.raises(ConfigError, match=r"holds another study, made by another program"):
        study(tmp_path, name="foreign")

"""What is packed for an offline GPU machine, and the guard of its time: sizes, stops, what is left, going on."""

import csv
import gzip
import json
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

from benchmarks.offline_gpu import run as running
from benchmarks.offline_gpu.archives import Limits, fill, write_archives
from benchmarks.offline_gpu.half import halve, halve_checkpoint
from benchmarks.offline_gpu.jobs import Job, run_jobs
from benchmarks.offline_gpu.pace import EpochClock, affordable, epochs_of_phases, measured_pace
from benchmarks.offline_gpu.pack import check_sizes
from benchmarks.offline_gpu.place import Place, toy_data
from benchmarks.offline_gpu.steps import STEPS, Member, Step
from skinlesion.config.train import TrainConfig
from tests.conftest import composed

PAIR = (Member("published", "lite2", "a05_g20"), Member("published", "lite0", "a05_g20"))


def shell(name: str, script: str, result: Path) -> Job:
    return Job(name, ("sh", "-c", script), result)


# Sizes


def test_a_trip_over_its_limit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trip, size in (("trip1", 3000), ("trip2", 1000)):
        (tmp_path / trip / "weights").mkdir(parents=True)
        (tmp_path / trip / "weights" / "a").write_bytes(bytes(size))
        (tmp_path / trip / "b").write_bytes(bytes(10))
    assert check_sizes(tmp_path, limit=3010) == {"trip1": 3010, "trip2": 1010}
    assert "trip1: 0.0 MiB (b 0.0, weights 0.0)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^trip1 has 0.0 MiB, more than 0.0; move a part of it to the other trip"):
        check_sizes(tmp_path, limit=3009)


def test_what_fits_is_placed_in_order_and_the_rest_is_left_out() -> None:
    assert fill([6, 5, 4, 3, 2], limit=10, bins=2) == [[0, 2], [1, 3, 4]]
    assert fill([6, 6, 6, 11, 4], limit=10, bins=2) == [[0, 4], [1]]
    assert fill([1], limit=10, bins=0) == []


def files(folder: Path, *sizes: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.bin" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        path.write_bytes(torch.randint(256, (size,), dtype=torch.uint8, generator=generator(number)).numpy().tobytes())
    return paths


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("compress", [False, True])
def test_archives_keep_within_their_limits_and_are_whole(tmp_path: Path, compress: bool) -> None:
    paths = files(tmp_path / "work", 60_000, 50_000, 30_000, 200_000, 45_000, 90_000)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.tar").write_bytes(bytes(70_000))
    limits = Limits(files=4, each=120_000, together=300_000)
    left_out = write_archives(paths, tmp_path, tmp_path / "out", stem="a", compress=compress, limits=limits)
    written = sorted((tmp_path / "out").glob("a-*"))
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert len(sizes) <= 4
    assert max(sizes) <= 120_000
    assert sum(sizes) <= 300_000
    assert paths[3] in left_out  # larger than an archive
    found: dict[str, bytes] = {}
    for path in written:
        with tarfile.open(path) as archive:
            found |= {name: archive.extractfile(name).read() for name in archive.getnames()}
    kept = [path for path in paths if path not in left_out]
    assert found == {f"work/{path.name}": path.read_bytes() for path in kept}
    assert len(kept) >= 3


def test_archives_of_an_earlier_call_are_replaced(tmp_path: Path) -> None:
    paths = files(tmp_path / "work", 100, 200)
    for chosen in (paths, paths[:1]):
        assert write_archives(chosen, tmp_path, tmp_path / "out", stem="a", compress=True) == []
    (path,) = (tmp_path / "out").iterdir()
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["work/0.bin"]


# Half precision


def test_kernels_are_halved_and_nothing_is_lost_to_overflow() -> None:
    given = {"kernel": torch.tensor([[1.0, 0.1]]), "large": torch.tensor([[1e6]]), "bias": torch.tensor([1e-9])}
    kept = halve({**given, "count": torch.tensor(3)})
    assert {name: tensor.dtype for name, tensor in kept.items()} == {
        "kernel": torch.float16, "large": torch.float32, "bias": torch.float32, "count": torch.int64,
    }  # fmt: skip
    torch.testing.assert_close(kept["kernel"].float(), given["kernel"], rtol=1e-3, atol=0)


def test_a_halved_checkpoint_keeps_what_a_model_needs(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.rand(300, 300)}, "skinlesion": {"classes": ["mel"]}, "optimizer_states": [1]},
        tmp_path / "best.ckpt",
    )
    halve_checkpoint(tmp_path / "best.ckpt", tmp_path / "half" / "a.ckpt.gz")
    with gzip.open(tmp_path / "half" / "a.ckpt.gz") as file:
        kept = torch.load(file, weights_only=True)
    assert kept["skinlesion"] == {"classes": ["mel"]}
    assert kept["state_dict"]["a"].dtype == torch.float16
    assert "optimizer_states" not in kept
    assert (tmp_path / "half" / "a.ckpt.gz").stat().st_size < (tmp_path / "best.ckpt").stat().st_size / 1.8


# The guard of the time


def test_the_deadline_stops_jobs_and_their_children_and_leaves_what_is_finished(tmp_path: Path) -> None:
    jobs = [
        shell("quick", f"echo 1 > {tmp_path}/quick", tmp_path / "quick"),
        shell("slow", f"sleep 600 & echo $! > {tmp_path}/child; wait; echo 1 > {tmp_path}/slow", tmp_path / "slow"),
        shell("broken", "echo why >&2; exit 1", tmp_path / "broken"),
        shell("never", f"sleep 600; echo 1 > {tmp_path}/never", tmp_path / "never"),
    ]
    began = time.monotonic()
    ended = run_jobs(jobs, at_once=2, deadline=began + 2, logs=tmp_path / "logs")
    assert 2 <= time.monotonic() - began < 10
    outcomes = {one.name: one.outcome for one in ended}
    assert outcomes == {"quick": "finished", "slow": "stopped", "broken": "failed", "never": "stopped"}
    assert (tmp_path / "logs" / "broken.log").read_text() == "why\n"
    assert not is_alive(int((tmp_path / "child").read_text()))


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"  # a zombie waits for its parent alone


def test_finished_jobs_are_not_run_again_and_no_more_run_at_once_than_asked(tmp_path: Path) -> None:
    script = "date +%s.%N >> {0}/times; sleep 0.5; date +%s.%N >> {0}/times; echo 1 > {0}/{1}"
    jobs = [shell(name, script.format(tmp_path, name), tmp_path / name) for name in ("a", "b")]
    for expected in (["a", "b"], []):
        ended = run_jobs(jobs, at_once=1, deadline=time.monotonic() + 9, logs=tmp_path / "logs")
        assert [one.name for one in ended] == expected
    times = [float(line) for line in (tmp_path / "times").read_text().split()]
    assert times == sorted(times)  # a's end comes before b's start
    assert len(times) == 4


# Epochs that fit


def history(folder: Path, phases: str, *, is_finished: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.csv").write_text("epoch,phase\n" + "".join(f"0,{phase}\n" for phase in phases))
    if is_finished:
        (folder / "metrics.json").write_text("{}")


def test_the_clock_notes_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = EpochClock({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "epochs.csv")
    for second, a, b in ((10, "h", ""), (12, "hm", "h"), (15, "hmm", "hm"), (22, "hmm", "hmm")):
        now[0] = 100.0 + second
        history(tmp_path / "a", a, is_finished=second == 22)
        history(tmp_path / "b", b)
        clock()
    lines = (tmp_path / "epochs.csv").read_text().splitlines()[1:]
    assert [line for line in lines if line.startswith("a")] == ["a,h,10.0", "a,m,12.0", "a,m,15.0", "a,end,22.0"]
    assert [line for line in lines if line.startswith("b")] == ["b,h,12.0", "b,m,15.0", "b,m,22.0"]
    # only a came to its end: one epoch of 3 s; 10 s to the end of the first epoch and 7 s behind the last
    assert measured_pace(tmp_path / "epochs.csv") == (3.0, 17.0)


def test_no_pace_without_a_finished_run(tmp_path: Path) -> None:
    (tmp_path / "epochs.csv").write_text("run,phase,seconds\na,m,1.0\na,m,2.0\n")
    assert measured_pace(tmp_path / "epochs.csv") is None


def test_epochs_fit_into_the_time_with_a_margin() -> None:
    # 220 s less 20 s beside them, at 8 s and a quarter more: 20 epochs
    assert affordable(220, epoch=8, overhead=20, rounds=1) == 20
    assert affordable(220, epoch=8, overhead=20, rounds=2) == 9
    assert affordable(9999, epoch=8, overhead=20, rounds=1) == 28
    assert affordable(10, epoch=8, overhead=20, rounds=1) == 4


@pytest.mark.parametrize("total", range(4, 29))
def test_every_phase_has_epochs(total: int) -> None:
    phases = epochs_of_phases(total)
    assert sum(phases.values()) == total
    assert min(phases.values()) >= 1
    assert phases["middle"] >= phases["high"] >= phases["head"]


def test_the_most_epochs_are_those_of_the_recipe() -> None:
    recipe = composed("train", TrainConfig, "experiment=ham10000_gpu_lite", "model=efficientnet_lite0")
    assert {name: phase.epochs for name, phase in recipe.schedule.phases.items()} == epochs_of_phases(28)


# Steps


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.members])
def test_every_training_of_a_step_composes(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "work", tmp_path / "out")
    for trip, backbone in (("trip1", "lite0"), ("trip2", "lite2")):
        (tmp_path / trip / "weights").mkdir(parents=True)
        (tmp_path / trip / "weights" / f"tf_efficientnet_{backbone}.safetensors").touch()
    members = STEPS[name].members
    for member in (members[0], members[-1]):
        job = running._training(member, tmp_path / name, epochs_of_phases(28), place)
        config = composed("train", TrainConfig, *job.command[4:])
        assert config.model.backbone == f"tf_efficientnet_{member.backbone}"
        assert Path(str(config.model.pretrained)).exists()
        assert job.result == Path(config.out) / "metrics.json"
    assert len({running._folder(tmp_path, member) for member in members}) == len(members)


def test_a_place_without_the_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"tf_efficientnet_lite1.safetensors: in neither trip"):
        Place(tmp_path, tmp_path, tmp_path).weights("tf_efficientnet_lite1")


def test_the_toy_data_hold_lesions_of_each_diagnosis_and_fold(tmp_path: Path) -> None:
    source = tmp_path / "whole"
    rows = [(f"L{n // 2}", f"I{n:03d}", ("nv", "mel")[n // 2 % 2], n // 4 % 3) for n in range(120)]
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        (source / part).mkdir(parents=True)
    for number, (_, image, _, _) in enumerate(rows):
        (source / f"HAM10000_images_part_{1 + number // 60}" / f"{image}.jpg").touch()
    table = "".join(f"{lesion},{image},{dx}\n" for lesion, image, dx, _ in rows)
    (source / "HAM10000_metadata").write_text("lesion_id,image_id,dx\n" + table)
    folds = "".join(f"{image},{lesion},{fold}\n" for lesion, image, _, fold in rows)
    (source / "folds.csv").write_text("image_id,lesion_id,fold\n" + folds)
    (tmp_path / "toy").mkdir()
    toy_data(source, tmp_path / "toy")
    images = {path.stem for path in (tmp_path / "toy").glob("*/*.jpg")}
    assert len(images) == 2 * 3 * 5 * 2  # diagnoses, folds, lesions, images of each
    for name, column in (("folds.csv", 0), ("HAM10000_metadata", 1)):
        lines = (tmp_path / "toy" / name).read_text().splitlines()[1:]
        assert {line.split(",")[column] for line in lines} == images


# A step with stand-ins for training and voting


STAND_IN = """
import json, pathlib, sys, time
verb, words = sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])
out = pathlib.Path(words["out"])
out.mkdir(parents=True, exist_ok=True)
with (out / "calls").open("a") as calls:
    calls.write("x")
if verb == "train":
    trial, seconds = "trial" in out.parts, {seconds}
    phases = ["head", "high", "middle", "middle"]
    (out / "metrics.csv").write_text("epoch,phase\\n" + "".join(f"0,{{phase}}\\n" for phase in phases[:3]))
    time.sleep(0.3)
    (out / "metrics.csv").write_text("epoch,phase\\n" + "".join(f"0,{{phase}}\\n" for phase in phases))
    time.sleep(0.3 if trial else seconds.get(words["model"], 0))
    (out / "predictions_test.csv").write_text("image_id\\n")
    (out / "best.ckpt").write_bytes(pathlib.Path(__file__).with_name("best.ckpt").read_bytes())
else:
    members = words["members"].strip("[]").split(",")
    (out / "ensemble.json").write_text(json.dumps({{"members": members}}))
(out / "metrics.json").write_text("{{}}")
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "trip1" / "weights").mkdir(parents=True)
    for backbone in ("lite0", "lite2"):
        (tmp_path / "trip1" / "weights" / f"tf_efficientnet_{backbone}.safetensors").touch()
    return Place(tmp_path, tmp_path / "work", tmp_path / "out", toy=True)


def stand_in(monkeypatch: pytest.MonkeyPatch, place: Place, seconds: dict[str, float]) -> None:
    script = place.packed / "stand_in.py"
    torch.save({"state_dict": {"a": torch.zeros(9, 9)}, "skinlesion": {}}, place.packed / "best.ckpt")
    script.write_text(STAND_IN.format(seconds=seconds))
    monkeypatch.setattr(running, "_skinlesion", lambda *words: (sys.executable, str(script), *words))
    monkeypatch.setattr(running, "prepare", lambda _: {})
    monkeypatch.setattr(running, "PACKING", 0.2)
    monkeypatch.setitem(STEPS, "six", Step(9, PAIR, PAIR))


def archived(place: Place) -> set[str]:
    names: set[str] = set()
    for path in place.out.iterdir():
        with tarfile.open(path) as archive:
            names |= set(archive.getnames())
    return names


def calls(place: Place, name: str) -> int:
    return len((place.work / name / "calls").read_text())


@pytest.mark.slow
def test_a_step_out_of_time_is_complete_and_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, place, {"efficientnet_lite0": 60})
    began = time.monotonic()
    running.run("six", place, seconds=9)
    assert time.monotonic() - began < 10
    lite2, lite0 = (f"six/published/{member.name}" for member in PAIR)
    names = archived(place)
    assert {f"{lite2}/predictions_test.csv", f"{lite2}/metrics.json", "six/plan.json", "six/jobs.csv"} <= names
    assert f"{lite0}/metrics.json" not in names
    assert "published-efficientnet_lite2-a05_g20.ckpt.gz" in names
    # one member alone has no ensemble: those of the trial vote
    assert "trial/published/ensemble-none/metrics.json" in names

    stand_in(monkeypatch, place, {})
    running.run("six", place, seconds=9)
    assert (calls(place, lite2), calls(place, lite0)) == (1, 2)
    assert calls(place, f"trial/published/{PAIR[0].name}") == 1
    assert {f"{lite0}/predictions_test.csv", "six/published/ensemble-none/metrics.json"} <= archived(place)
    listed = json.loads((place.work / "six" / "published" / "ensemble-none" / "ensemble.json").read_text())
    assert [Path(member).parent.name for member in listed["members"]] == [member.name for member in PAIR]
    with (place.work / "six" / "jobs.csv").open() as file:
        outcomes = [(row["name"], row["outcome"]) for row in csv.DictReader(file)]
    assert (f"published-{PAIR[1].name}", "stopped") in outcomes
    assert (f"published-{PAIR[1].name}", "finished") in outcomes


def test_a_step_that_finishes_nothing_says_where_to_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, place, {})
    monkeypatch.setattr(running, "_skinlesion", lambda *_: ("sh", "-c", "echo no such key >&2; exit 1"))
    with pytest.raises(SystemExit, match=r"six: nothing was finished; see .*logs"):
        running.run("six", place, seconds=5)
    assert "trial/logs/published-efficientnet_lite2-a05_g20.log" in archived(place)

"""One step on the GPU machine: train and vote, or measure, until it is done or time is up; then pack the results."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.offline_gpu.archives import write_archives
from benchmarks.offline_gpu.half import halve_checkpoint
from benchmarks.offline_gpu.jobs import Ended, Job, run_jobs
from benchmarks.offline_gpu.pace import LEAST, MOST, EpochClock, affordable, epochs_of_phases, measured_pace
from benchmarks.offline_gpu.place import Place, prepare
from benchmarks.offline_gpu.steps import BENCH_ROWS, SIX, STEPS, TOY_BENCH_ROWS, Member, Step

PACKING = 20.0  # seconds that writing the archives may take
VOTING = 45.0  # seconds that the ensembles may take
TOY = (
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.limit_train_batches=3",
    "model.image_size=[48,64]",
    "loader.batch_size=16",
)


def run(name: str, place: Place, *, seconds: float) -> None:
    """Do a step, or go on with it.

    What is finished when the time is up is packed and complete in itself; the rest is gone on with by another call on
    the same machine.

    Args:
        name: One of STEPS.
        place: The machine's folders.
        seconds: The step takes no longer.

    Raises:
        SystemExit: Nothing was finished.
    """
    deadline = time.monotonic() + seconds
    environment = prepare(place)
    (place.work / name).mkdir(parents=True, exist_ok=True)
    _describe_machine(place.work / name / "machine.json")
    step = STEPS[name]
    finished = (
        _bench(place, deadline, environment) if not step.members else _train(name, step, place, deadline, environment)
    )
    if not finished:
        raise SystemExit(f"{name}: nothing was finished; see {place.work / name / 'logs'}, or give more --seconds")


def _bench(place: Place, deadline: float, environment: dict[str, str]) -> bool:
    folder = place.work / "bench"
    toy = ("--toy",) if place.toy else ()
    places = ("--images", str(place.data), "--data", str(folder / "images"), "--out", str(folder / "rows"))

    def job(row: str) -> Job:
        command = (sys.executable, "-m", "benchmarks", "--gpu", *toy, *places, row)
        return Job(row, command, folder / "rows" / f"{row}.json")

    jobs = [job(row) for row in (TOY_BENCH_ROWS if place.toy else BENCH_ROWS)]
    ended = run_jobs(jobs, at_once=1, deadline=deadline - PACKING, logs=folder / "logs", environment=environment)
    _note(ended, folder)
    _pack_tables("bench", place)
    return any(one.result.exists() for one in jobs)


def _train(name: str, step: Step, place: Place, deadline: float, environment: dict[str, str]) -> bool:
    members, folder = step.toy if place.toy else step.members, place.work / name
    voting = min(VOTING, (deadline - time.monotonic()) / 4)
    training = deadline - PACKING - voting
    epochs = _plan(name, step, members, place, training, environment)
    finished: list[Path] = []
    if epochs is not None:
        _train_members(members, folder, epochs, place, training, environment, at_once=_at_once(step, place))
        _pack_tables(name, place)  # before the vote, so that they are there whatever comes
        finished = [run for member in members if (run := _folder(folder, member)) and _is_finished(run)]
    _vote(name, members, place, deadline - PACKING, environment)
    _pack_tables(name, place)
    _pack_checkpoints(name, finished, place)
    return bool(finished)


def _plan(
    name: str, step: Step, members: Sequence[Member], place: Place, training: float, environment: dict[str, str]
) -> dict[str, int] | None:
    """Epochs of each phase: those of an earlier call, or as many as a trial says that there is time for."""
    path = place.work / name / "plan.json"
    if path.exists():
        return {str(phase): int(count) for phase, count in json.loads(path.read_text())["epochs"].items()}
    pace = _trial(step, place, training, environment)
    if pace is None:
        return None
    epoch, overhead = pace
    total = affordable(
        training - time.monotonic(),
        epoch=epoch * step.share,
        overhead=overhead,
        rounds=len(members) / _at_once(step, place),
        most=LEAST if place.toy else MOST,
    )
    epochs = epochs_of_phases(total)
    print(f"{name}: {total} epochs a member; the slowest took {epoch:.1f} s an epoch and {overhead:.0f} s beside them")
    _write_json({"epochs": epochs, "seconds_an_epoch": epoch, "seconds_beside_epochs": overhead}, path)
    return epochs


def _trial(step: Step, place: Place, deadline: float, environment: dict[str, str]) -> tuple[float, float] | None:
    """Train the six for four epochs each, side by side; complete runs, which vote if no others end."""
    folder = place.work / "trial"
    table = folder / "epochs.csv"
    if not (table.exists() and measured_pace(table)):
        members = SIX[:2] if place.toy else SIX
        _train_members(
            members, folder, epochs_of_phases(LEAST), place, deadline, environment, at_once=_at_once(step, place)
        )
    return measured_pace(table)


def _train_members(
    members: Sequence[Member],
    folder: Path,
    epochs: dict[str, int],
    place: Place,
    deadline: float,
    environment: dict[str, str],
    *,
    at_once: int,
) -> None:
    jobs = [_training(member, folder, epochs, place) for member in members]
    clock = EpochClock({job.name: job.result.parent for job in jobs}, folder / "epochs.csv")
    ended = run_jobs(
        jobs, at_once=at_once, deadline=deadline, logs=folder / "logs", environment=environment, watch=clock
    )
    _note(ended, folder)


def _training(member: Member, folder: Path, epochs: dict[str, int], place: Place) -> Job:
    out = _folder(folder, member)
    overrides = [
        "experiment=ham10000_gpu_lite",
        f"model=efficientnet_{member.backbone}",
        f"loss={member.loss}",
        f"out={out}",
        f"data.root={place.data}",
        f"data.cache_dir={place.work / 'cache'}",
        f"model.pretrained={place.weights(f'tf_efficientnet_{member.backbone}')}",
        "trainer.enable_progress_bar=false",
        "judge=[val,test]",
        *(f"schedule.phases.{phase}.epochs={count}" for phase, count in epochs.items()),
        *(override.format(folds=place.folds) for override in member.overrides),
        *(TOY if place.toy else ()),
    ]
    return Job(f"{member.group}-{member.name}", _skinlesion("train", *overrides), out / "metrics.json")


def _vote(name: str, members: Sequence[Member], place: Place, deadline: float, environment: dict[str, str]) -> None:
    """The finished members of each group vote, with flips and without; in step six those of the trial if need be."""
    folder = place.work / name
    groups = {group: [m for m in members if m.group == group] for group in dict.fromkeys(m.group for m in members)}
    runs = {folder / group: [_folder(folder, member) for member in those] for group, those in groups.items()}
    if name == "six" and sum(map(_is_finished, runs[folder / "published"])) < 2:
        trial = place.work / "trial"
        runs = {trial / "published": [_folder(trial, member) for member in SIX]}
    jobs = [
        _ensemble([run for run in those if _is_finished(run)], group, tta, place)
        for tta in ("none", "flips")
        for group, those in runs.items()
        if sum(map(_is_finished, those)) >= 2
    ]
    _note(run_jobs(jobs, at_once=6, deadline=deadline, logs=folder / "logs", environment=environment), folder)


def _ensemble(runs: Sequence[Path], group: Path, tta: str, place: Place) -> Job:
    out = group / f"ensemble-{tta}"
    listed = out / "ensemble.json"
    if listed.exists() and len(json.loads(listed.read_text())["members"]) != len(runs):
        shutil.rmtree(out)  # of an earlier call, since when members have been finished
    overrides = [
        f"members=[{','.join(str(run / 'best.ckpt') for run in runs)}]",
        f"out={out}",
        f"tta={tta}",
        "split=test",
        "id_pass_rate=null",
        *(("resamples=100", "accelerator=cpu") if place.toy else ()),
    ]
    return Job(f"{group.name}-ensemble-{tta}", _skinlesion("ensemble", *overrides), out / "metrics.json")


def _skinlesion(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "skinlesion", *words)


def _folder(folder: Path, member: Member) -> Path:
    return folder / member.group / member.name


def _is_finished(run_folder: Path) -> bool:
    return (run_folder / "metrics.json").exists()


def _at_once(step: Step, place: Place) -> int:
    return 2 if place.toy else step.at_once


def _pack_tables(name: str, place: Place) -> None:
    """All but checkpoints and images: predictions, metrics, configurations, histories, times, logs."""
    folders = [place.work / name, *([place.work / "trial"] if STEPS[name].members else [])]
    kept = {".csv", ".json", ".yaml", ".log", ".png"}
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in kept]
    paths = [path for path in paths if path.is_file() and "images" not in path.parts]
    paths.sort(key=lambda path: path.suffix in (".log", ".png"))
    _report(write_archives(paths, place.work, place.out, stem=f"{name}-tables", compress=True), place)


def _pack_checkpoints(name: str, runs: Iterable[Path], place: Place) -> None:
    halves = place.work / name / "half"

    def half(folder: Path) -> Path:
        target = halves / f"{folder.parent.name}-{folder.name}.ckpt.gz"
        if not target.exists():
            halve_checkpoint(folder / "best.ckpt", target)
        return target

    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(half, runs))
    if paths:
        _report(write_archives(paths, halves, place.out, stem=f"{name}-checkpoints", compress=False), place)


def _report(left_out: Sequence[Path], place: Place) -> None:
    for path in left_out:
        print(f"no room for {path.relative_to(place.work)} among the results; it stays in {place.work}")


def _note(ended: Sequence[Ended], folder: Path) -> None:
    """Add to jobs.csv how the jobs of this call ended."""
    path = folder / "jobs.csv"
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["name", "outcome", "started", "seconds"], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(one) for one in ended)
    for one in ended:
        print(f"{folder.name}: {one.name} {one.outcome} after {one.seconds:.0f} s", flush=True)


def _describe_machine(path: Path) -> None:
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        gpu = "none"
    packages = {one.metadata["Name"]: one.version for one in distributions()}
    _write_json({"gpu": gpu, "python": sys.version, "packages": dict(sorted(packages.items()))}, path)


def _write_json(value: object, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

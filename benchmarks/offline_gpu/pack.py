"""Pack wheels, images, weights, folds and the project for an offline GPU machine, in two trips of limited size."""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.offline_gpu.archives import MIB
from benchmarks.offline_gpu.half import halve

ROOT = Path(__file__).resolve().parents[2]
TRIP_LIMIT = 60 * MIB
PROJECT = ("skinlesion", "conf", "benchmarks", "docs/performance.md", "pyproject.toml", "Makefile", "LICENSE")

# What training, voting and the benchmarks import goes first; what explaining and auditing need beside it, second.
WHEELS = {
    "trip1": (
        "hydra-core", "omegaconf", "antlr4-python3-runtime", "hydra-joblib-launcher", "albumentations", "albucore",
        "stringzilla", "simsimd", "pydantic", "pydantic_core", "annotated-types", "typing-inspection",
    ),
    "trip2": ("ImageHash", "PyWavelets", "grad-cam", "ttach"),
}  # fmt: skip
SOURCES = ("antlr4-python3-runtime", "grad-cam")  # published without a wheel: built here, they hold no compiled code
WEIGHTS = {
    "trip1": ("tf_efficientnet_lite2", "tf_efficientnet_lite0"),
    "trip2": ("tf_efficientnet_lite1", "legacy_xception"),
}
CLASSIFIERS = ("classifier.", "fc.")  # of ImageNet's 1,000 classes: no backbone reads them
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def pack(folder: Path, *, data: Path, weights: Path, folds: Path, limit: int = TRIP_LIMIT) -> dict[str, int]:
    """Write FOLDER/trip1 and FOLDER/trip2 anew and return their sizes in bytes.

    Args:
        folder: In which the trips lie; its folder `work`, if there is one, is left alone.
        data: HAM10000's images and table.
        weights: Folder of safetensors files, named as timm names the networks.
        folds: CSV of public folds.
        limit: Bytes of a trip, at most.

    Raises:
        SystemExit: A source is missing, or a trip is over the limit.
    """
    _refuse_missing([data / "HAM10000_metadata", folds, *(weights / f"{name}.safetensors" for name in _all(WEIGHTS))])
    for trip in ("trip1", "trip2"):
        shutil.rmtree(folder / trip, ignore_errors=True)
        _wheels(WHEELS[trip], folder / trip / "wheels")
        for name in WEIGHTS[trip]:
            _weights(weights / f"{name}.safetensors", folder / trip / "weights" / f"{name}.safetensors")
    _archive(_project_files(), ROOT, folder / "trip1" / "project.tar.xz")
    _archive(_image_files(data), data, folder / "trip1" / "ham10000.tar.xz")
    shutil.copyfile(folds, folder / "trip1" / "folds.csv")
    return check_sizes(folder, limit=limit)


def check_sizes(folder: Path, *, limit: int = TRIP_LIMIT) -> dict[str, int]:
    """Sizes in bytes of both trips, printed with those of their parts.

    Raises:
        SystemExit: A trip is over the limit.
    """
    sizes: dict[str, int] = {}
    for trip in ("trip1", "trip2"):
        parts = {part.name: size_of(part) for part in sorted((folder / trip).iterdir())}
        sizes[trip] = sum(parts.values())
        listed = ", ".join(f"{name} {size / MIB:.1f}" for name, size in parts.items())
        print(f"{folder / trip}: {sizes[trip] / MIB:.1f} MiB ({listed})")
    over = [f"{trip} has {size / MIB:.1f} MiB" for trip, size in sizes.items() if size > limit]
    if over:
        raise SystemExit(f"{' and '.join(over)}, more than {limit / MIB:.1f}; move a part of it to the other trip")
    return sizes


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _refuse_missing(paths: Iterable[Path]) -> None:
    absent = [str(path) for path in paths if not path.is_file()]
    if absent:
        raise SystemExit(f"not there: {', '.join(absent)}; give the folders and files as --data, --weights and --folds")


def _all(trips: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [name for names in trips.values() for name in names]


def _wheels(names: tuple[str, ...], folder: Path) -> None:
    """Wheels for Python 3.12 on x86-64, in the versions of constraints.txt, without what they depend on."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    ready = [f"{name}=={pins[name]}" for name in names if name not in SOURCES]
    built = [f"{name}=={pins[name]}" for name in names if name in SOURCES]
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    python = ("--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12")
    _pip("download", "--no-deps", *python, *platforms, "--dest", str(folder), *ready)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), *built)


def _pip(*arguments: str) -> None:
    answer = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"pip {arguments[0]} failed:\n{answer.stderr[-2000:]}")


def _weights(source: Path, target: Path) -> None:
    import safetensors.torch

    tensors = safetensors.torch.load_file(source)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIERS)}
    target.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(halve(kept), target)


def _project_files() -> list[Path]:
    """Files of the working tree that git knows, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PROJECT],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    files = [ROOT / line for line in listed.stdout.splitlines()]
    if not files:
        raise SystemExit(f"{ROOT}: no files of the project that git knows; pack from a clone")
    return [path for path in files if path.is_file()]


def _image_files(data: Path) -> list[Path]:
    return [data / "HAM10000_metadata", *sorted(data.glob("HAM10000_images_part_*/*.jpg"))]


def _archive(paths: list[Path], root: Path, target: Path) -> None:
    """An archive packed as one: what JPEGs share, such as their tables, is then stored once."""
    with tarfile.open(target, "w:xz") as archive:
        for path in paths:
            archive.add(path, path.relative_to(root).as_posix(), recursive=False)

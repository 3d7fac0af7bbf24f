"""`python -m benchmarks [--toy] [--gpu] [NAME ...]`: measure, write JSON, bring the table up to date."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

from benchmarks import tables
from benchmarks.measuring import Outcome, Setting
from skinlesion.files import write_json
from skinlesion.terminal import quiet

Measure = Callable[[Setting], Outcome]

CPU = ("input_pipeline", "head_calibration", "subset_search", "memory", "scale", "bundle", "sweep")
GPU = ("mobilenetv2_100", "resnet50", "efficientnet_b1")
TOY_GPU = ("tiny_resnet",)


def main() -> None:
    """Measure what is asked for, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CPU)}; none: all")
    parser.add_argument("--toy", action="store_true", help="small and short, to see that it runs; nothing is kept")
    parser.add_argument("--gpu", action="store_true", help="what needs a GPU instead")
    parser.add_argument("--images", type=Path, help="HAM10000 in place of synthetic images; GPU rows only")
    parser.add_argument("--data", type=Path, help="folder of the images at benchmark size, kept for the next row")
    parser.add_argument("--out", type=Path, help="folder of the JSON files; the page is then left alone")
    arguments = parser.parse_args()
    quiet(0)
    chosen = gpu_rows(arguments.names, toy=arguments.toy) if arguments.gpu else cpu_rows(arguments.names or CPU)
    for name, measure in chosen.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            outcome = measure(Setting(Path(folder), arguments.toy, images=arguments.images, data=arguments.data))
        print(tables.line(outcome.as_plain()), flush=True)
        if arguments.out:
            write_json(arguments.out / f"{name}.json", outcome.as_plain())
        elif not arguments.toy:
            tables.keep(name, outcome)
            tables.rewrite(all_names())


def cpu_rows(names: tuple[str, ...] | list[str]) -> dict[str, Measure]:
    """The rows that need no GPU."""
    from benchmarks import bundle, head_calibration, input_pipeline, memory, scale, subset_search, sweep

    known: dict[str, Measure] = {
        "input_pipeline": input_pipeline.measure,
        "head_calibration": head_calibration.measure,
        "subset_search": subset_search.measure,
        "sweep": sweep.measure,
        "memory": memory.measure,
        "scale": scale.measure,
        "bundle": bundle.measure,
    }
    return _chosen(known, names)


def gpu_rows(names: list[str], *, toy: bool) -> dict[str, Measure]:
    """The rows that need one, or those of them that are named; at toy size they run anywhere.

    Raises:
        SystemExit: There is no GPU, or no such row.
    """
    import torch

    from benchmarks import gpu_epoch, sweep

    if not toy and not torch.cuda.is_available():
        raise SystemExit("no GPU here; `make bench-gpu BENCH=toy` shows on a CPU that these run")
    rows: dict[str, Measure] = {}
    for model in TOY_GPU if toy else GPU:
        rows[f"gpu_input_{model}"] = partial(gpu_epoch.measure_input, name=model)
        rows[f"gpu_template_{model}"] = partial(gpu_epoch.measure_template, name=model)
    rows["gpu_sweep"] = sweep.measure
    return _chosen(rows, names or rows)


def _chosen(known: dict[str, Measure], names: Iterable[str]) -> dict[str, Measure]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no benchmark {unknown[0]!r}; expected some of {', '.join(known)}")
    return {name: known[name] for name in names}


def all_names() -> list[str]:
    """Of all rows of the table, in order."""
    return [*CPU, *(f"gpu_{kind}_{model}" for model in GPU for kind in ("input", "template")), "gpu_sweep"]


if __name__ == "__main__":
    main()

"""`python -m benchmarks.offline_gpu pack | run STEP`: what goes to an offline GPU machine, and what happens there."""

import argparse
import os
import time
from pathlib import Path

from benchmarks.offline_gpu.steps import STEPS


def main() -> None:
    """Pack, or run a step."""
    started = time.monotonic()
    arguments = _parser().parse_args()
    if arguments.verb == "pack":
        from benchmarks.offline_gpu.pack import pack

        pack(arguments.folder, data=arguments.data, weights=arguments.weights, folds=arguments.folds)
        print(f"packed in {time.monotonic() - started:.0f} s")
        return
    from benchmarks.offline_gpu.place import Place
    from benchmarks.offline_gpu.run import run

    out = arguments.out or Path(os.environ.get("OUT") or arguments.folder / "results")
    place = Place(arguments.folder, arguments.work or arguments.folder / "work", out, toy=arguments.toy)
    run(arguments.step, place.absolute(), seconds=arguments.seconds or STEPS[arguments.step].seconds)
    print(f"{arguments.step}: {time.monotonic() - started:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline_gpu", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write trip1 and trip2 for the other machine")
    packing.add_argument("--data", type=Path, required=True, help="folder of HAM10000's images and table")
    packing.add_argument("--weights", type=Path, required=True, help="folder of safetensors files, by timm's names")
    packing.add_argument("--folds", type=Path, required=True, help="CSV of public folds: image_id, fold")
    running = verbs.add_parser("run", help="do one step on the machine")
    running.add_argument("step", choices=STEPS)
    running.add_argument(
        "--seconds", type=float, help="the step takes no longer; by default as long as it is planned for"
    )
    running.add_argument("--toy", action="store_true", help="tiny and on the CPU, to see that it runs")
    running.add_argument("--work", type=Path, help="folder of unfinished work, to go on from; FOLDER/work")
    running.add_argument("--out", type=Path, help="folder of the archives of results; $OUT or FOLDER/results")
    for verb in (packing, running):
        verb.add_argument("--folder", type=Path, default=Path("gpu"), help="that holds the two trips; gpu")
    return parser


if __name__ == "__main__":
    main()

"""`python -m benchmarks.fusion RUNS DATA FEATURES`: what the facts are worth, and how they should enter, on the folds.

As `benchmarks.recipe`: heads on the features of each fold's tuned backbone, here with each fusion (FusionGate, FiLM,
MetaBlock, concatenation) and with none, judged on the folds themselves. The backbones were tuned with the gate.
"""

from pathlib import Path
from typing import get_args

from benchmarks.recipe import SHOWN, Trial, fitted, parsed, table
from skinlesion.model.network import Fusion

RESULT = Path(__file__).parent / "results" / "fusion.json"
ALONE = "image alone"
TRIALS = {ALONE: Trial(fusion="none")} | {each: Trial(fusion=each) for each in get_args(Fusion) if each != "none"}


def main() -> None:
    """Measure, print the table and write all as JSON."""
    found = fitted(TRIALS, parsed(__doc__, "fusion", RESULT), part="test")
    print(table(found["trials"], "fusion", ALONE, SHOWN))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.publish RUNS DATA`: pool the predictions of folds into the tables that are shipped.

RUNS/fold0 and so on, as far as they are finished, hold one folder a member, as `skinlesion folds` makes them; each
member gives a table of its name, all of them together `vote`. RUNS/seed666 and so on hold the same of the published
split at other split seeds; each gives tables of its own, since their test parts share images. The baselines know no
image: `camera` the source alone, `metadata` age, sex and localization, each a logistic regression fitted to the other
folds.
"""

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.readers import read_data
from skinlesion.files import replacing
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.baselines import BASELINES, cross_fitted
from skinlesion.taxonomy import HAM10000

_DIGITS = "%.6g"


def main() -> None:
    """Write NAME.csv.gz for each member and baseline, NAME_val.csv.gz of the validation parts, and epochs.csv."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of fold0, fold1, ...")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("--out", type=Path, default=Path("docs/predictions"))
    arguments = parser.parse_args()
    audit = configuration("audit", AuditConfig, f"data.root={arguments.data}")
    facts = read_data(audit.data).set_index("image_id", drop=False)
    folds = sorted({path.parent.parent for path in arguments.runs.glob("fold*/*/predictions_test.csv")})
    if not folds:
        raise SystemExit(
            f"{arguments.runs}: no fold*/MEMBER/predictions_test.csv; the test part is read only when one asks: train "
            "each fold with judge=[val,test], or skinlesion evaluate checkpoint=RUN split=test out=RUN"
        )
    numbers = [int(fold.name.removeprefix("fold")) for fold in folds]
    members = sorted({path.parent.name for path in folds[0].glob("*/predictions_test.csv")} - {"ensemble"})
    histories = [
        pd.read_csv(fold / name / "metrics.csv").assign(member=name, fold=number)
        for name in members
        for fold, number in zip(folds, numbers, strict=True)
    ]
    pd.concat(histories).to_csv(arguments.out / "epochs.csv", index=False)
    for seed in sorted(arguments.runs.glob("seed*")):
        for name, (table,) in voted([seed], members, "test").items():
            write(table.to_frame().assign(fold=0), facts, arguments.out / f"{seed.name}_{name}.csv.gz")
    judged: dict[str, str] = {}
    for part, suffix in (("test", ""), ("val", "_val")):
        for name, tables in voted(folds, members, part).items():
            of_image = np.repeat(numbers, [len(table) for table in tables])
            frame = pd.concat([table.to_frame() for table in tables]).assign(fold=of_image)
            write(frame, facts, arguments.out / f"{name}{suffix}.csv.gz")
            if part == "test":
                judged = dict(zip(frame["image_id"], frame["fold"], strict=True))
    folds_of = facts["image_id"].map(judged).fillna(-1).to_numpy(dtype=np.int64)
    about = facts[["image_id", "lesion_id"]].assign(actual=facts["diagnosis"], fold=folds_of)
    for name, columns in BASELINES.items():
        values = pd.DataFrame(cross_fitted(facts, folds_of, columns), columns=list(HAM10000.codes), index=facts.index)
        write(about.join(values)[folds_of >= 0], facts, arguments.out / f"{name}.csv.gz")


def voted(folders: Sequence[Path], members: Sequence[str], part: str) -> dict[str, list[Predictions]]:
    """The predictions of each member in each folder, and the means of all members as `vote`."""
    found = {name: [Predictions.read(each / name / f"predictions_{part}.csv") for each in folders] for name in members}
    if len(members) > 1:
        found["vote"] = [Predictions.soft_vote(each) for each in zip(*found.values(), strict=True)]
    return found


def write(frame: pd.DataFrame, facts: pd.DataFrame, path: Path) -> None:
    """Write a table as `verify` reads it; the same predictions give the same bytes."""
    known = facts.loc[frame["image_id"]]
    about = {"source": known["dataset"].to_numpy(), "confirmation": known["dx_type"].to_numpy()}
    decided = ["predicted", "likeliest"] if "likeliest" in frame else []  # where they differ
    table = frame.assign(**about)[["image_id", "lesion_id", "fold", *about, "actual", *decided, *HAM10000.codes]]
    text = (
        table.reset_index(drop=True)
        .sort_values("image_id")
        .to_csv(index=False, float_format=_DIGITS, lineterminator="\n")
    )
    with replacing(path) as beside:
        beside.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(path)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.skin CHECKPOINT DATA`: hairs painted over, and how light the skin is, on real images.

How many pixels `data.hair=remove` changes and which tone `skin_tone` finds, by diagnosis and source, on drawn images; a
member, trained with hairs, on validation images with their hairs and without: paired differences over lesions.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import pandas as pd
import torch

from benchmarks.measuring import machine
from skinlesion.config.data import SourceConfig
from skinlesion.config.studies import AuditConfig
from skinlesion.config.validation import configuration
from skinlesion.data.image_io import read
from skinlesion.data.readers import read_data
from skinlesion.data.skin import BLUE_CAST, TONES, UNKNOWN, remove_hair, skin_tone
from skinlesion.data.treatment import Treatment
from skinlesion.files import write_json
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part
from skinlesion.metrics.compare import compare_tables
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.studies.verify.pages import markdown
from skinlesion.training.checkpoint import load_model

RESULT = Path(__file__).parent / "results" / "skin.json"
SHOWN = ("accuracy", "macro_f1", "balanced_accuracy", "auroc_mel", "nll")


def main() -> None:
    """Measure, print the tables and write all as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skin", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of a member trained with data.hair=keep")
    parser.add_argument("data", help="folder of HAM10000")
    parser.add_argument("--images", type=int, default=300, help="validation images that are predicted")
    parser.add_argument("--described", type=int, default=1500, help="images whose pixels and tones are counted")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.checkpoint)
    part = read_part(model, "val", SourceConfig(arguments.data, None), images=arguments.images)
    tables = {
        hair: Predictor.of([replace(model, spec=replace(model.spec, treatment=Treatment(hair)))]).predict_frame(
            part.frame
        )
        for hair in ("keep", "remove")
    }
    same = float((tables["keep"].predicted_targets == tables["remove"].predicted_targets).mean())
    comparison = compare_tables(tables, BootstrapConfig(), bins=10)
    rows = [["keep", *(comparison.tables["keep"][name].text() for name in SHOWN)]]
    rows += [["remove minus keep", *(comparison.differences["remove"][name].text("+.3f") for name in SHOWN)]]
    print(markdown(["hair", *SHOWN], rows), f"\npredicted alike: {same:.1%}", flush=True)
    frame = read_data(configuration("audit", AuditConfig, f"data.root={arguments.data}").data)
    described = describe(frame.sample(min(arguments.described, len(frame)), random_state=1))
    by = {column: summary(described, column) for column in ("diagnosis", "dataset")}
    for column, each in by.items():
        print(markdown([column, *each.columns], [[str(name), *map(str, row)] for name, *row in each.itertuples()]))
    written = {column: each.to_dict(orient="index") for column, each in by.items()}
    about = {"machine": machine(), "images": len(part.frame), "predicted_alike": same}
    write_json(arguments.out, {**about, **written, **comparison.to_dict()})


def describe(frame: pd.DataFrame) -> pd.DataFrame:
    """The share of changed pixels and the skin tone of each image, with its diagnosis and source."""

    def measure(path: str) -> tuple[float, str, float, float]:
        image = read(Path(path))
        changed = (remove_hair(image) != image).any(axis=2).mean()
        tone = skin_tone(image)
        return float(changed), tone.name, tone.ita, tone.error

    found = pd.DataFrame(map(measure, frame["path"]), columns=["changed", "tone", "ita", "error"], index=frame.index)
    return pd.concat([frame[["diagnosis", "dataset"]], found], axis=1)


def summary(described: pd.DataFrame, column: str) -> pd.DataFrame:
    """Changed pixels, angle and classes of the images of each value of a column, and of all."""

    def of(rows: pd.DataFrame) -> dict[str, object]:
        shares = {name: f"{(rows['tone'] == name).mean():.1%}" for name in (*TONES, BLUE_CAST, UNKNOWN)}
        return {
            "images": len(rows),
            "pixels changed": f"{rows['changed'].mean():.2%}",
            "images with over 1 % changed": f"{(rows['changed'] > 0.01).mean():.1%}",
            "median angle": f"{np.nanmedian(rows['ita']):.0f}",
            "median error": f"{np.nanmedian(rows['error']):.0f}",
            **shares,
        }

    values = {str(name): of(rows) for name, rows in described.groupby(column)}
    return pd.DataFrame.from_dict({**values, "all": of(described)}, orient="index")


if __name__ == "__main__":
    main()

"""MODEL_CARD.md of a bundle: what it is, what it is for and what it is not, for whoever is handed the folder."""

from skinlesion.deploy.manifest import Manifest

_CARD = """# Model card of a skinlesion bundle

**{note}.** No diagnosis may rest on it.

An ensemble of {count} that tells seven skin diagnoses apart from a dermoscopic image and, where known, the patient's
age, sex and localization. Bundle format {format}, precision {precision}, ONNX opset {opset}.

## Intended use

Research on dermoscopic images like those of HAM10000. Not for clinical use, not for photographs that are not
dermoscopic, not for skin or lesions that the data lack: HAM10000 is of few centres, mostly of fair skin, and holds
seven diagnoses alone, so every image is given one of them.

## Answers

| code | diagnosis | category |
|---|---|---|
{classes}

Calibration: {calibration}. Prediction sets: {conformal}. Operating points: {operating}. Images that do not look like
the training images: {novelty}. `bundle.json` holds the numbers; how well the ensemble does on its test part is in the
report that `skinlesion report` makes of it.

## Members

| name | backbone | image, height x width |
|---|---|---|
{members}

Turns of an image that vote: {tta}.

## Agreement with PyTorch

{agreement}

## Use

`skinlesion predict bundle=FOLDER image=FILE`, or in Python `skinlesion.deploy.runtime.Bundle.load(FOLDER)`, or the
graph `{graph}` in any ONNX runtime: `bundle.json` states its inputs, its outputs and the preprocessing.

## Licence

{licence}.
"""


def model_card(about: Manifest) -> str:
    """The card of a bundle, Markdown."""
    return _CARD.format(
        note=about.note[0].upper() + about.note[1:],
        count=f"{len(about.members)} members" if len(about.members) > 1 else "one member",
        format=about.format,
        precision=about.precision,
        opset=about.graph.opset,
        classes="\n".join(f"| {each.code} | {each.name} | {each.category} |" for each in about.classes),
        calibration="none" if about.calibration is None else f"{about.calibration.get('method')} scaling",
        conformal="none" if not about.conformal else ", ".join(f"risk {entry['alpha']}" for entry in about.conformal),
        operating="none" if not about.operating_points else f"{len(about.operating_points)}",
        novelty="not told" if about.novelty is None else "told",
        members="\n".join(
            f"| {each.name} | {each.backbone} | {each.size[0]} x {each.size[1]} |" for each in about.members
        ),
        tta=about.tta,
        agreement="\n".join(sentence(name, found) for name, found in about.parity.items()),
        graph=about.graph.file,
        licence=about.licence,
    )


def sentence(precision: str, found: dict[str, float]) -> str:
    """How a graph agrees with PyTorch, in words."""
    novel = f" {found['taken_for_novel']:.1%} of them are taken for novel." if "taken_for_novel" in found else ""
    return (
        f"{precision}: the same likeliest diagnosis for {found['same_diagnosis']:.1%} of {found['images']} "
        f"validation images; probabilities differ by {found['largest_difference']:.2g} at most, by "
        f"{found['mean_difference']:.2g} on average.{novel}"
    )

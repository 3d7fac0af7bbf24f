"""How each diagnosis looks in synthetic dermoscopy: a recipe of dermoscopic structures.

The recipes overlap, so that no single structure gives a diagnosis away.
"""

from dataclasses import dataclass

from skinlesion.synthetic.structures import (
    Structure,
    blotches,
    cysts,
    globules,
    keratin,
    lacunae,
    moth_eaten,
    nests,
    network,
    pigment,
    pores,
    redness,
    regression,
    rim,
    scales,
    scar,
    strawberry,
    streaks,
    ulcer,
    veil,
    vessels,
)


@dataclass(frozen=True)
class Recipe:
    """How one diagnosis looks: ranges to draw from uniformly."""

    radius: tuple[float, float]  # of the lesion, in widths of the image
    elongation: tuple[float, float]  # longer axis over shorter
    wander: tuple[float, float]  # how far the outline leaves an ellipse, in radii
    soft: tuple[float, float]  # width of the border, in radii
    sun: tuple[float, float]  # how blotchy sunlight has made the skin around
    structures: tuple[tuple[Structure, float, tuple[float, float]], ...]  # which, how often, how strong


RECIPES: dict[str, Recipe] = {
    "akiec": Recipe(
        radius=(0.14, 0.32), elongation=(1.0, 1.6), wander=(0.15, 0.4), soft=(0.1, 0.3), sun=(0.5, 1.3),
        structures=(
            (redness, 1.0, (0.08, 0.4)), (strawberry, 0.6, (0.15, 0.5)), (moth_eaten, 0.6, (0.15, 0.7)),
            (scales, 0.7, (0.3, 0.9)), (vessels, 0.2, (0.2, 0.5)), (network, 0.15, (0.2, 0.5)),
        ),
    ),
    "bcc": Recipe(
        radius=(0.08, 0.28), elongation=(1.0, 1.7), wander=(0.1, 0.35), soft=(0.08, 0.3), sun=(0.3, 1.1),
        structures=(
            (redness, 1.0, (0.06, 0.4)), (vessels, 0.7, (0.3, 0.9)), (nests, 0.65, (0.5, 2.0)),
            (ulcer, 0.35, (0.4, 1.2)), (regression, 0.3, (0.2, 0.5)), (pigment, 0.2, (0.2, 0.8)),
        ),
    ),
    "bkl": Recipe(
        radius=(0.15, 0.4), elongation=(1.0, 1.7), wander=(0.1, 0.3), soft=(0.06, 0.25), sun=(0.2, 1.0),
        structures=(
            (pigment, 1.0, (0.1, 0.8)), (moth_eaten, 0.55, (0.2, 0.7)), (keratin, 0.5, (0.15, 0.5)),
            (cysts, 0.5, (0.4, 0.9)), (pores, 0.4, (0.5, 1.4)), (network, 0.25, (0.2, 0.6)),
            (redness, 0.3, (0.05, 0.3)),
        ),
    ),
    "df": Recipe(
        radius=(0.13, 0.3), elongation=(1.0, 1.25), wander=(0.05, 0.18), soft=(0.2, 0.45), sun=(0.1, 0.5),
        structures=(
            (redness, 1.0, (0.08, 0.45)), (pigment, 0.7, (0.1, 0.5)), (network, 0.5, (0.2, 0.6)),
            (scar, 0.85, (0.25, 0.7)),
        ),
    ),
    "mel": Recipe(
        radius=(0.12, 0.4), elongation=(1.0, 1.8), wander=(0.2, 0.45), soft=(0.08, 0.25), sun=(0.1, 0.9),
        structures=(
            (pigment, 1.0, (0.4, 1.6)), (blotches, 0.85, (0.5, 1.7)), (veil, 0.5, (0.3, 1.0)),
            (network, 0.4, (0.3, 0.9)), (globules, 0.4, (0.5, 1.2)), (streaks, 0.35, (0.5, 1.2)),
            (redness, 0.3, (0.1, 0.4)), (regression, 0.3, (0.2, 0.6)),
        ),
    ),
    "nv": Recipe(
        radius=(0.1, 0.36), elongation=(1.0, 1.6), wander=(0.04, 0.22), soft=(0.12, 0.4), sun=(0.0, 0.5),
        structures=(
            (pigment, 1.0, (0.4, 1.4)), (network, 0.5, (0.2, 0.9)), (globules, 0.35, (0.3, 1.0)),
            (redness, 0.5, (0.05, 0.4)), (blotches, 0.2, (0.2, 0.8)),
        ),
    ),
    "vasc": Recipe(
        radius=(0.06, 0.28), elongation=(1.0, 1.4), wander=(0.04, 0.2), soft=(0.03, 0.1), sun=(0.0, 0.4),
        structures=(
            (lacunae, 1.0, (0.6, 1.6)), (redness, 0.5, (0.1, 0.6)), (rim, 0.4, (0.2, 0.6)),
            (veil, 0.2, (0.2, 0.6)),
        ),
    ),
}  # fmt: skip

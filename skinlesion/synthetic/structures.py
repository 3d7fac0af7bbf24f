"""Dermoscopic structures, painted as pigment maps onto a patch of synthetic skin.

Names and appearance follow Kittler et al., J Am Acad Dermatol 74:1093-1106 (2016), doi:10.1016/j.jaad.2015.12.038.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from skinlesion.synthetic.textures import Line, Map, Points, cells, noise, soft_step, spots, strokes, tree, walk


@dataclass
class Patch:
    """A patch of skin: pigment maps (side, side) and the geometry of its lesion."""

    side: int
    rng: np.random.Generator
    centre: Points  # x, y in 0..1 of the side
    radius: float  # of the lesion, as a fraction of the side
    reach: Map  # distance from the middle of the lesion in radii: 1 at its border
    inside: Map  # 1 in the lesion, 0 outside
    melanin: Map = field(init=False)
    blood: Map = field(init=False)
    blue: Map = field(init=False)  # melanin deep in the skin
    white: Map = field(init=False)  # scar and scales, as cover in 0..1
    yellow: Map = field(init=False)  # keratin, as cover in 0..1

    def __post_init__(self) -> None:
        for name in ("melanin", "blood", "blue", "white", "yellow"):
            setattr(self, name, np.zeros((self.side, self.side), np.float32))

    def points(self, least: int, most: int, spread: float) -> Points:
        """Draw `least` to `most` - 1 points (n, 2) around the lesion's middle; `spread` in radii of the lesion."""
        count = int(self.rng.integers(least, most))
        angles = self.rng.uniform(0, 2 * np.pi, count)
        radii = self.radius * spread * np.sqrt(self.rng.uniform(0, 1, count))
        return np.asarray(self.centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1))

    def noise(self, scale: float, octaves: int, stretch: float = 1.0) -> Map:
        """Draw `textures.noise` with features of `scale` radii of the lesion."""
        return noise(self.side, self.rng, scale=scale * self.radius, octaves=octaves, stretch=stretch)

    def area(self, scale: float, share: float) -> Map:
        """Draw an irregular part of the lesion: about `share` of its pixels, in pieces of `scale` radii."""
        pieces = self.noise(scale, 6)
        least = np.float32(np.quantile(pieces, 1 - share))
        return soft_step(pieces - least, self.rng.uniform(0.5, 1.4)) * self.inside


Structure = Callable[[Patch, float], None]


def pigment(patch: Patch, strength: float) -> None:
    """Brown all over, mottled, a little darker in the middle or at the border."""
    mottle = 0.22 * patch.noise(0.5, 6)
    slope = patch.rng.uniform(-0.35, 0.35) * (1 - np.minimum(patch.reach, 1) * 2)
    patch.melanin += strength * patch.inside * np.clip(1 + mottle + slope, 0.1, 2)


def blotches(patch: Patch, strength: float) -> None:
    """Dark areas without symmetry."""
    patch.melanin += strength * patch.area(patch.rng.uniform(0.6, 1.4), patch.rng.uniform(0.25, 0.5))


def moth_eaten(patch: Patch, strength: float) -> None:
    """Brown in patches with holes between them."""
    patch.melanin += strength * patch.area(patch.rng.uniform(0.35, 0.8), patch.rng.uniform(0.35, 0.65))


def network(patch: Patch, strength: float) -> None:
    """Pigment network: brown lines around paler holes."""
    mesh = cells(patch.side, patch.rng, spacing=patch.rng.uniform(0.018, 0.032))
    patch.melanin += strength * patch.inside * np.clip(mesh - 0.35, -0.35, 0.65)


def globules(patch: Patch, strength: float) -> None:
    """Brown dots of one size."""
    dots = spots(patch.side, patch.points(15, 60, 0.95), radius=patch.rng.uniform(0.006, 0.012))
    patch.melanin += strength * patch.inside * dots


def streaks(patch: Patch, strength: float) -> None:
    """Dark projections that leave the border outwards."""
    lines: list[Line] = []
    for angle in patch.rng.uniform(0, 2 * np.pi, int(patch.rng.integers(15, 50))):
        start = patch.centre + patch.radius * 0.75 * np.asarray((np.cos(angle), np.sin(angle)))
        length = patch.rng.uniform(0.15, 0.3) * patch.radius
        path = walk(start, patch.rng, heading=angle, length=length, bend=0.12) * patch.side
        lines += [(path, 0.002 * patch.side), (path[:12], 0.004 * patch.side)]
    patch.melanin += strength * strokes((patch.side, patch.side), lines) * soft_step(1.35 - patch.reach, 0.4)


def nests(patch: Patch, strength: float) -> None:
    """Blue-grey ovoid nests and brown leaf-like areas, a few, well apart."""
    discs = spots(patch.side, patch.points(2, 9, 1.0), radius=patch.radius * patch.rng.uniform(0.12, 0.35))
    ragged = patch.noise(0.3, 4)
    shape = discs * soft_step(np.asarray(discs + 0.35 * ragged - 0.45, np.float32), 0.5)
    patch.blue += 0.6 * strength * shape
    patch.melanin += 0.55 * strength * shape


def veil(patch: Patch, strength: float) -> None:
    """Blue-white veil over a part of the lesion."""
    haze = np.clip(1 + 0.4 * patch.noise(0.3, 4), 0.1, 2)
    area = patch.area(1.2, patch.rng.uniform(0.2, 0.45)) * haze
    patch.blue += strength * area
    patch.white += 0.22 * area


def redness(patch: Patch, strength: float) -> None:
    """Pink to red with a border softer than the pigment's."""
    mottle = patch.noise(0.6, 6)
    patch.blood += strength * soft_step(1.1 - patch.reach, 0.35) * np.clip(1 + 0.3 * mottle, 0, 2)


def lacunae(patch: Patch, strength: float) -> None:
    """Blood-filled clods, sharply set apart by pale walls; dark where the blood stands still."""
    walls = cells(patch.side, patch.rng, spacing=patch.radius * patch.rng.uniform(0.3, 0.6))
    stagnant = patch.rng.uniform(0, 1) ** 2
    patch.blood += strength * patch.inside * np.clip(1.25 - 0.75 * walls, 0.2, 1.2)
    patch.blue += stagnant * strength * patch.area(1.0, 0.6) * np.clip(1.2 - walls, 0, 1)
    patch.white += 0.3 * patch.inside * np.clip(walls - 0.7, 0, 1)


def strawberry(patch: Patch, strength: float) -> None:
    """Red pseudo-network around pale follicles."""
    mesh = cells(patch.side, patch.rng, spacing=patch.rng.uniform(0.025, 0.045))
    wide = soft_step(1.15 - patch.reach, 0.4)
    patch.blood += strength * wide * np.clip(mesh, 0, 1)
    patch.white += 0.35 * wide * np.clip(0.4 - mesh, 0, 1)


def vessels(patch: Patch, strength: float) -> None:
    """Branching vessels."""
    lines: list[Line] = []
    length = 1.3 * patch.radius * patch.side
    for point in patch.points(2, 6, 1.1):
        thickness = patch.rng.uniform(0.0025, 0.0055) * patch.side
        lines += tree(point * patch.side, patch.rng, length=length, thickness=thickness)
    patch.blood += strength * strokes((patch.side, patch.side), lines)


def scar(patch: Patch, strength: float) -> None:
    """White patch in the middle."""
    middle = np.exp(-((patch.reach / patch.rng.uniform(0.3, 0.55)) ** 2))
    patch.white += strength * middle * np.clip(1 + 0.3 * patch.noise(0.2, 3, 3), 0, 1.5)
    patch.melanin *= 1 - 0.7 * middle


def regression(patch: Patch, strength: float) -> None:
    """Pale, scar-like part off the middle."""
    threads = 1 + 0.3 * patch.noise(0.2, 4)
    area = np.clip(patch.area(0.9, 0.25) * threads, 0, 1.2)
    patch.white += strength * area
    patch.melanin *= 1 - 0.8 * area


def cysts(patch: Patch, strength: float) -> None:
    """Milia-like cysts: small white dots."""
    dots = spots(patch.side, patch.points(8, 40, 0.9), radius=patch.rng.uniform(0.005, 0.009))
    patch.white += strength * patch.inside * dots


def pores(patch: Patch, strength: float) -> None:
    """Comedo-like openings: dark, sharp, round."""
    dots = spots(patch.side, patch.points(3, 12, 0.85), radius=patch.rng.uniform(0.008, 0.014))
    patch.melanin += strength * dots


def scales(patch: Patch, strength: float) -> None:
    """White and yellow flecks of horn on the surface."""
    flecks = noise(patch.side, patch.rng, scale=0.035, octaves=4, stretch=1.5)
    wide = soft_step(1.1 - patch.reach, 0.3)
    patch.white += strength * wide * soft_step(flecks - 1.4, 0.5)
    patch.yellow += 0.6 * strength * wide * soft_step(-1.2 - flecks, 0.6)


def keratin(patch: Patch, strength: float) -> None:
    """Yellow-tan, waxy, with fissures."""
    folds = np.abs(patch.noise(0.5, 3))
    patch.yellow += strength * patch.inside * np.clip(0.5 + 0.4 * folds, 0, 1)
    patch.melanin += 0.6 * strength * patch.inside * np.clip(0.25 - folds, 0, 0.25) * 4


def ulcer(patch: Patch, strength: float) -> None:
    """A small crust of dried blood."""
    crust = spots(patch.side, patch.points(1, 2, 0.5), radius=patch.radius * patch.rng.uniform(0.12, 0.3))
    crust *= np.clip(0.7 + 0.6 * noise(patch.side, patch.rng, scale=0.1, octaves=3), 0, 1.4)
    patch.blood += strength * crust
    patch.melanin += 0.6 * strength * crust


def rim(patch: Patch, strength: float) -> None:
    """Whitish collar just outside the border."""
    patch.white += strength * np.exp(-(((patch.reach - 1.12) / 0.07) ** 2))

"""The picture at the top of the README: what the bundle of the repository computes for one painted lesion, as SVG.

Nothing in it is invented: maps, gates, attention, activations and probabilities are those of the first member's graph.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import contourpy
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from matplotlib import colormaps

import skinlesion
from skinlesion.inference.predictions import Predictions
from skinlesion.synthetic.images import paint, photograph

Array = npt.NDArray[np.float64]

FACTS = {"age": 70, "sex": "female", "localization": "back"}
SHOWN = 48  # gates, of as many as the map has channels
LEVELS = 22  # of brightness, in which the photograph is drawn
HEAD = "members.0.network.head."
STYLE = """
svg {
  --card: #ffffff; --edge: #d0d7de; --ink: #1f2328; --soft: #59636e; --line: #6e7781;
  --up: #d55e00; --down: #0072b2; --box: #eef3f8;
}
@media (prefers-color-scheme: dark) {
  svg {
    --card: #161b22; --edge: #30363d; --ink: #e6edf3; --soft: #9aa4af; --line: #8b949e;
    --up: #ff8a3d; --down: #58a6ff; --box: #21303f;
  }
}
text { font-family: Helvetica, Arial, sans-serif; font-size: 17px; fill: var(--ink); }
.soft { font-size: 14px; fill: var(--soft); }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.bold { font-weight: bold; }
.arrow { stroke: var(--line); stroke-width: 2; fill: none; marker-end: url(#head); }
.box { fill: var(--box); stroke: var(--edge); }
"""


class Stages(NamedTuple):
    """The tensors of one image on its way through the first member."""

    feature_map: Array  # x (C, h, w), of the backbone
    gates: Array  # m (C,), in -1..1, of the facts
    gated: Array  # x * (1 + alpha * m)
    alpha: float
    attention: Array  # of CBAM by place (h, w), in 0..1
    funnel: list[Array]  # activations of the dense layers


def photograph_of(diagnosis: str) -> npt.NDArray[np.uint8]:
    """A synthetic photograph (150, 200, 3)."""
    rng = np.random.default_rng(3)
    patch = paint(diagnosis, "vidir_modern", width=200, rng=rng)
    return photograph(patch, "vidir_modern", image_size=(200, 150), rng=rng).image


def stages(bundle: Path, image: npt.NDArray[np.uint8]) -> Stages:
    """Run a bundle's graph on an image and `FACTS`, and read what its first member computes on the way."""
    graph = onnx.load(bundle / "model.onnx")
    nodes = list(graph.graph.node)
    maker = {name: node for node in nodes for name in node.output}
    gates = next(node.output[0] for node in nodes if node.op_type == "Tanh")
    gated = next(node.input[0] for node in nodes if node.op_type == "ReduceMean")  # CBAM's first step
    by_channel = next(node.output[0] for node in nodes if node.op_type == "Mul" and gated in node.input)
    by_place = next(node for node in nodes if node.op_type == "Mul" and by_channel in node.input)
    dense = [node for node in nodes if node.op_type == "Gemm" and node.input[2].startswith(f"{HEAD}funnel")]
    names = [maker[gated].input[0], gates, gated, by_place.input[1], *(node.input[0] for node in dense[1:])]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    predictor = skinlesion.load(bundle)
    (prepared,) = predictor.prepare(image)
    inputs = {"metadata": predictor.encoder.encode_patient(FACTS).reshape(1, -1), "image_150x200": prepared[None]}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x, m, gated_map, places, *funnel = (each[0] for each in session.run(names, inputs))
    (alpha,) = (
        onnx.numpy_helper.to_array(each) for each in graph.graph.initializer if each.name == f"{HEAD}gate.alpha"
    )
    return Stages(x, m.ravel(), gated_map, float(alpha), places.squeeze(), funnel)


def draw(image: npt.NDArray[np.uint8], found: Stages, table: Predictions) -> str:
    """The picture as SVG, 1200 wide, readable on light and dark ground."""
    spread = np.sort(found.gates)[:: -(found.gates.size // SHOWN)][:SHOWN]
    moved = found.gated.mean(axis=(1, 2)) - found.feature_map.mean(axis=(1, 2))
    first = np.argsort(moved)[[-1, 0, -2]]  # two channels that the facts amplify, and one that they damp
    depth, height, width = found.feature_map.shape
    top = max(float(found.feature_map[first].max()), float(found.gated[first].max()))
    attention = (found.attention - found.attention.min()) / max(float(np.ptp(found.attention)), 1e-9)
    about = f"EfficientNet-Lite0, {table.members.shape[0]} members, α = {found.alpha:.2f}"
    facts = " · ".join(f"{name} {value}" if name == "age" else str(value) for name, value in FACTS.items())
    parts = [
        _picture(image, 24, 62, 180),
        _label(114, 44, "dermoscopic image"), _label(114, 222, "painted, for this picture", soft=True),
        _arrow("M208 130H236"),
        '<path class="box" d="M240 76L330 100V160L240 184z"/>', _label(285, 126, "timm"), _label(285, 146, "backbone"),
        _arrow("M334 130H358"),
        *_stack(found.feature_map[first] / top, 364, 84), _label(418, 62, "map x"),
        _label(418, 214, f"{depth:,} × {height} × {width}", soft=True),
        _arrow("M478 130H520"), '<circle class="box" cx="540" cy="130" r="18"/>', _label(540, 137, "×"),
        _arrow("M560 130H600"), *_stack(found.gated[first] / top, 606, 84),
        _label(540, 62, "fusion gate", bold=True), _label(540, 84, "x · (1 + α · m)", soft=True),
        _label(660, 214, "facts amplify or damp", soft=True), _label(660, 232, "whole channels", soft=True),
        _label(923, 376, f"computed by data/bundle: {about}", soft=True),
        _arrow("M540 316V152"),
        '<rect class="box" x="24" y="306" width="250" height="66" rx="10"/>',
        _label(149, 334, "facts about the patient"), _label(149, 357, facts, soft=True),
        _arrow("M278 339H306"), '<rect class="box" x="310" y="312" width="84" height="54" rx="10"/>',
        _label(352, 344, "dense"), _arrow("M398 339H424"),
        *_gates(spread, 430, 339), _label(560, 396, f"gates m in (−1, 1): {SHOWN} of {depth:,}", soft=True),
        _arrow("M722 130H746"),
        *_cells(attention, 752, 92, 13, "magma"), _label(797, 62, "CBAM", bold=True),
        _label(797, 184, "which channels,", soft=True), _label(797, 202, "then where", soft=True),
        _arrow("M850 130H872"),
        *_funnel(found.funnel, 878), _label(923, 44, "dense funnel"),
        _label(923, 232, " – ".join(str(each.size) for each in found.funnel), soft=True),
        _arrow("M972 130H996"), *_votes(table, 1004, 66),
    ]  # fmt: skip
    return _frame(parts)


def _frame(parts: Iterable[str]) -> str:
    about = (
        "An image passes a timm backbone; facts about the patient become gates that scale its feature map, "
        "x times 1 plus alpha times m; CBAM attention and a dense funnel give probabilities; members vote, calibrated."
    )
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="var(--line)"/></marker>'
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 420" role="img" aria-label="{about}">',
            f"<style>{STYLE}</style><defs>{head}</defs>",
            '<rect x="1" y="1" width="1198" height="418" rx="16" fill="var(--card)" stroke="var(--edge)"/>',
            *parts,
            "</svg>\n",
        )
    )


def _label(x: float, y: float, text: str, *, soft: bool = False, bold: bool = False) -> str:
    kind = "middle" + (" soft" if soft else "") + (" bold" if bold else "")
    return f'<text class="{kind}" x="{x}" y="{y}">{text}</text>'


def _arrow(path: str) -> str:
    return f'<path class="arrow" d="{path}"/>'


def _picture(image: npt.NDArray[np.uint8], x: float, y: float, width: float) -> str:
    """A photograph as filled areas of like brightness, each in its mean colour."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.6)
    light = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float64)
    edges = np.unique(np.quantile(light, np.linspace(0, 1, LEVELS + 1)))
    lines = contourpy.contour_generator(z=light, fill_type="OuterOffset")
    areas = []
    for low, high in zip([-1.0, *edges[1:-1]], edges[1:], strict=True):
        inside = (light >= low) & (light <= high)
        colour = "#" + "".join(f"{round(channel):02x}" for channel in smooth[inside].mean(axis=0))
        polygons, offsets = lines.filled(low, 256.0)  # from here up: brighter areas lie above
        rings = [
            ring
            for points, starts in zip(polygons, offsets, strict=True)
            for ring in np.split(points, starts[1:-1])
            if len(ring) > 12
        ]
        path = "".join("M" + " ".join(f"{px:.0f},{py:.0f}" for px, py in _thin(ring)) + "z" for ring in rings)
        areas.append(f'<path fill="{colour}" d="{path}"/>')
    scale, (rows, columns) = width / image.shape[1], light.shape
    clip = f'<clipPath id="photo"><rect width="{columns - 1}" height="{rows - 1}" rx="9"/></clipPath>'
    placed = f'{clip}<g clip-path="url(#photo)" fill-rule="evenodd" transform="translate({x} {y}) scale({scale:.3f})">'
    return placed + "".join(areas) + "</g>"


def _thin(ring: Array) -> Array:
    """A ring without the points that lie within half a pixel of its line."""
    return cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), 0.5, True).reshape(-1, 2)


def _cells(values: Array, x: float, y: float, side: float, colours: str) -> list[str]:
    """A map (h, w) of values in 0..1 as squares."""
    shade = colormaps[colours]
    hexes = [["#" + bytes(shade(float(value), bytes=True)[:3]).hex() for value in row] for row in values]
    cells = [
        f'<rect x="{x + column * side:g}" y="{y + row * side:g}" width="{side}" height="{side}" fill="{colour}"/>'
        for row, line in enumerate(hexes)
        for column, colour in enumerate(line)
    ]
    return ['<g shape-rendering="crispEdges">', *cells, "</g>"]


def _stack(maps: Array, x: float, y: float) -> list[str]:
    """Channels (n, h, w) one behind the other, the first in front."""
    side = 11
    _, height, width = maps.shape
    drawn = []
    for depth in range(len(maps) - 1, -1, -1):
        left, upper = x + 14 * depth, y + 14 * (len(maps) - 1 - depth)
        drawn += _cells(maps[depth], left, upper, side, "viridis")
        drawn.append(
            f'<rect x="{left}" y="{upper}" width="{side * width}" height="{side * height}" fill="none" '
            'stroke="var(--card)" stroke-width="1.5"/>'
        )
    return drawn


def _gates(gates: Array, x: float, y: float) -> list[str]:
    """A bar a gate: up where its channel is amplified, down where it is damped."""
    scale = 30 / max(float(np.abs(gates).max()), 1e-9)
    return [
        f'<rect x="{x + 5.4 * place:g}" y="{y - max(value * scale, 0):.1f}" width="4" '
        f'height="{abs(value) * scale:.1f}" fill="var(--{"up" if value > 0 else "down"})"/>'
        for place, value in enumerate(sorted(gates, reverse=True))
    ]


def _funnel(layers: list[Array], x: float) -> list[str]:
    """A column of cells a layer, as tall as it is wide, each the mean of some activations."""
    drawn = []
    for place, layer in enumerate(layers):
        count = layer.size // 32
        means = np.abs(layer[: count * 32]).reshape(count, 32).mean(axis=1)
        drawn += _cells((means / means.max()).reshape(-1, 1), x + 10 + 36 * place, 130 - 4 * count, 8, "viridis")
    return drawn


def _votes(table: Predictions, x: float, y: float) -> list[str]:
    """The calibrated vote, a bar a diagnosis, and a mark a member."""
    codes, vote = table.taxonomy.codes, table.probabilities[0]
    members = table.members[:, 0] if table.members is not None else []
    drawn = [_label(x + 88, y - 22, "members vote", bold=True)]
    for row, (code, share) in enumerate(zip(codes, vote, strict=True)):
        line = y + 22 * row
        colour = "up" if code == table.predicted[0] else "down"
        drawn += [
            f'<text class="soft" x="{x}" y="{line + 12}">{code}</text>',
            f'<rect x="{x + 46}" y="{line}" width="{90 * share + 1:.1f}" height="14" rx="2" fill="var(--{colour})"/>',
            f'<text class="soft end" x="{x + 176}" y="{line + 12}">{100 * share:.0f} %</text>',
        ]
        drawn += [f'<path d="M{x + 46 + 90 * each[row]:.1f} {line - 1}v16" stroke="var(--ink)"/>' for each in members]
    drawn.append(_label(x + 88, y + 180, "bars: calibrated vote", soft=True))
    return [*drawn, _label(x + 88, y + 198, "marks: members", soft=True)]


def overview(bundle: Path, diagnosis: str = "mel") -> str:
    """The picture for a painted lesion of a diagnosis, as SVG."""
    image = photograph_of(diagnosis)
    return draw(image, stages(bundle, image), skinlesion.load(bundle).predict(image, FACTS))

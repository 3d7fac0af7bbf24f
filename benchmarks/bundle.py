"""A bundle of six MobileNets against the six PyTorch models in a row: one image, two threads."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnx_ir.passes.common as passes
import torch

from benchmarks.measuring import Outcome, Setting, in_turn, ratios
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.deploy import graph, manifest
from skinlesion.deploy.export import Recipe, describe
from skinlesion.deploy.manifest import Graph
from skinlesion.deploy.runtime import image_input as input_name
from skinlesion.deploy.runtime import open_session
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.torch_members import TorchMembers
from skinlesion.taxonomy import HAM10000
from skinlesion.training.build import architecture
from skinlesion.training.checkpoint import TrainedModel
from skinlesion.training.module import LesionClassifier

THREADS = 2
ENCODER = MetadataEncoder.from_state(
    {
        "age_mean": 52.0,
        "age_std": 16.0,
        "sexes": ["female", "male", "unknown"],
        "localizations": ["back", "face", "scalp", "unknown"],
    }
)
FACTS: dict[str, float | str | None] = {"age": 55, "sex": "female", "localization": "back"}

START = """
import sys, time
begin = time.perf_counter()
from pathlib import Path
import numpy as np
from skinlesion.inference.predictor import Predictor
bundle = Predictor.load(Path(sys.argv[1]), threads=2)
loaded = time.perf_counter() - begin
image = np.zeros((*bundle.sizes[0], 3), np.uint8)
bundle.predict([image] * 32)
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024  # ru_maxrss would hold the parent's, from before exec
print('{"import_and_load_s": %.3f, "peak_memory_mib": %.0f}' % (loaded, peak))
"""


def measure(setting: Setting) -> Outcome:
    """Wall-clock time of an image of 200x150 pixels, in turn."""
    backbones = ("tiny_resnet",) if setting.toy else ("mobilenetv2_100", "mobilenetv1_100")
    models = members(setting.folder, backbones, size=(32, 32) if setting.toy else (150, 200))
    apart = graph.translate(graph.VotingModule(models, tta="none").eval())
    onnx_ir.save(apart, setting.folder / "apart.onnx")
    folder = setting.folder / "bundle"
    folder.mkdir()
    onnx_ir.save(graph.merge(apart), folder / graph.FILE)
    written = Graph(file=graph.FILE, opset=graph.OPSET, inputs={}, outputs={})
    about = describe(Recipe(models, "none", "fp32"), folder, written, parity={})
    (folder / manifest.FILE).write_text(about.text(), encoding="utf-8")
    return _timed(models, folder, setting)


def members(folder: Path, backbones: Sequence[str], *, size: tuple[int, int]) -> list[TrainedModel]:
    """Three members a backbone, with random weights, each three on one frozen backbone as the sweep's are."""
    found: list[TrainedModel] = []
    for number, name in enumerate(backbone for backbone in backbones for _ in range(3)):
        config = configuration("train", TrainConfig, f"model={name}", f"model.image_size=[{size[0]},{size[1]}]")
        options = {**architecture(config.model), "pretrained": False}
        module = LesionClassifier(**options, encoder=ENCODER.state()).eval()
        network = module.network
        if number % 3:
            network.backbone.load_state_dict(found[-1].network.backbone.state_dict())
        path = folder / f"{number}.ckpt"
        path.write_bytes(b"")  # its digest is all that is asked for
        spec = module.image_input
        about = {"model": {"backbone": config.model.backbone}}
        found.append(TrainedModel(f"{name}-{number}", path, network, ENCODER, spec, about, HAM10000.codes, {}, ""))
    return found


def _timed(models: list[TrainedModel], folder: Path, setting: Setting) -> Outcome:
    bundle = Predictor.load(folder, threads=THREADS)
    networks = Predictor(TorchMembers(models, accelerator="cpu"), folder)
    image = np.random.default_rng(0).integers(0, 256, (*bundle.sizes[0], 3), dtype=np.uint8)

    def in_torch() -> None:
        networks.predict(image, FACTS)

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    rounds = 3 if setting.toy else 25
    mine, others = in_turn(lambda: bundle.predict(image, FACTS), in_torch, rounds=rounds, clock=time.perf_counter)
    notes = _other_shapes(image, setting.folder / "apart.onnx", in_torch, count=len(models), rounds=rounds)
    torch.set_num_threads(before)
    return Outcome(
        what=f"one image of {image.shape[1]}x{image.shape[0]}, bundle of {len(models)} members, {THREADS} threads",
        against="the PyTorch models in a row",
        goal=2.5,
        ratios=ratios(mine, others),
        ours=[1e3 * seconds for seconds in mine],
        theirs=[1e3 * seconds for seconds in others],
        unit="ms",
        notes={**notes, **_started(folder), "clock": "wall", "file_mb": _megabytes(folder)},
    )


def _other_shapes(image: Any, apart: Path, in_torch: Any, *, count: int, rounds: int) -> dict[str, Any]:
    """How many times as fast as PyTorch it is where nothing is merged: in one graph, and in one graph a member.

    The graphs of single members end at the pooled features, which is in their favour.
    """
    inputs = {"metadata": ENCODER.encode_patient(FACTS)[None], input_name(image.shape[:2]): image[None]}
    whole = open_session(apart, threads=THREADS)
    singles = [open_session(_alone(apart, member), threads=THREADS) for member in range(count)]

    def one_by_one() -> None:
        for session in singles:
            known = {each.name for each in session.get_inputs()}
            session.run(None, {name: value for name, value in inputs.items() if name in known})

    found = {}
    for name, work in (("one_graph_nothing_merged", lambda: whole.run(None, inputs)), ("graph_a_member", one_by_one)):
        mine, others = in_turn(work, in_torch, rounds=rounds, clock=time.perf_counter)
        found[f"ratio_of_{name}"] = round(float(np.median(ratios(mine, others))), 2)
    return found


def _alone(apart: Path, member: int) -> Path:
    model = onnx_ir.load(apart)
    outputs = [value for value in model.graph.outputs if value.name == f"pooled_{member}"]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    path = apart.with_name(f"member{member}.onnx")
    onnx_ir.save(passes.RemoveUnusedNodesPass()(model).model, path)
    return path


def _started(folder: Path) -> dict[str, float]:
    """Seconds to import and load in a fresh process, the middle of five, and its peak memory after 32 images."""
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", START, str(folder)], check=True, capture_output=True).stdout)
        for _ in range(5)
    ]
    return {key: sorted(run[key] for run in runs)[2] for key in runs[0]}


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1)

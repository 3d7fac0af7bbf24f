"""A preset's network survives the translation, with batches of several sizes: random weights, small images."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from untrained import write_member

from skinlesion.deploy.graph import write_graph
from skinlesion.deploy.voting_module import Voting
from skinlesion.training.checkpoint import load_model

PRESETS = ("convnext_tiny",)  # its linear layers' weights are stored transposed


@pytest.mark.exhaustive
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_translated(preset: str, synthetic_root: Path, tmp_path: Path) -> None:
    given = (f"model={preset}", "model.pretrained=false", "model.image_size=[64,64]")
    path, _ = write_member(tmp_path / "run", *given, root=synthetic_root, seed=1)
    model = load_model(path)
    voting = Voting([model], tta="dihedral").eval()
    graph = write_graph(voting, tmp_path, width=model.encoder.width)
    session = onnxruntime.InferenceSession(tmp_path / graph.file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for count in (1, 3):
        images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        metadata = np.stack([model.encoder.encode_patient({"age": 10.0 * row}) for row in range(count)])
        with torch.inference_mode():
            members, *_ = voting(torch.from_numpy(metadata), [torch.from_numpy(images)])
        (found,) = session.run(["members"], {"metadata": metadata, "image_64x64": images})
        np.testing.assert_allclose(found, members.numpy(), atol=1e-4)

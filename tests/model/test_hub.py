"""timm's hub: from the cache where possible, and a quick, quiet, helpful error where it cannot be reached."""

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from skinlesion.errors import CheckpointError
from skinlesion.model import hub
from skinlesion.model.backbone import Backbone
from skinlesion.model.pretrained import load_pretrained

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no proxy, and a hub that cannot be reached."""
    for name in ("all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


def build(level: str | None = None) -> Backbone:
    return Backbone("test_resnet", kwargs={}, feature_level=level, batch_norm_eps=None)


def test_unreachable_hub_is_told_quickly_and_quietly(caplog, capfd):
    begun = time.perf_counter()
    with caplog.at_level(logging.INFO), pytest.raises(CheckpointError) as raised:
        load_pretrained(build(), True, missing="error")
    assert time.perf_counter() - begun < hub.PATIENCE
    message = str(raised.value)
    assert f"'test_resnet' cannot be downloaded: {NOWHERE} cannot be reached" in message
    assert "model.pretrained=false" in message
    assert "model.pretrained=/path/to/weights.safetensors" in message
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_weights_at_an_address_outside_the_hub(monkeypatch):
    backbone = build()
    cfg = {"url": f"{NOWHERE}/weights.pth", "input_size": (3, 64, 64)}
    monkeypatch.setattr(backbone.net, "pretrained_cfg", cfg)
    with pytest.raises(CheckpointError, match=r"127.0.0.1:9/weights.pth cannot be reached"):
        hub.hub_weights(backbone)


def test_network_without_weights_is_named(monkeypatch):
    backbone = build()
    monkeypatch.setattr(backbone.net, "pretrained_cfg", {"url": "", "input_size": (3, 64, 64)})
    with pytest.raises(CheckpointError, match=r"no pretrained weights of 'test_resnet'.*model.pretrained=false"):
        hub.hub_weights(backbone)


def put_into_cache(cache: Path, repository: str, whole: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    (folder / "snapshots" / "0123abc").mkdir(parents=True)
    save_file(whole, folder / "snapshots" / "0123abc" / "model.safetensors")


@pytest.mark.parametrize("level", [None, "layer3"])
def test_cached_weights_need_no_hub(level, cache):
    torch.manual_seed(1)
    whole = dict(build().net.state_dict()) | {"fc.weight": torch.ones(1000, 96), "fc.bias": torch.ones(1000)}
    put_into_cache(cache, "timm/test_resnet.r160_in1k", whole)
    torch.manual_seed(2)
    backbone = build(level)
    match = load_pretrained(backbone, True, missing="error")
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, whole[key])
    assert {key.split(".")[0] for key in match.left_over} == ({"layer4"} if level else set())


def test_cached_weights_that_do_not_fit_are_refused(cache):
    whole = dict(build().net.state_dict()) | {"fc.weight": torch.ones(1000, 96), "fc.bias": torch.ones(1000)}
    put_into_cache(cache, "timm/test_resnet.r160_in1k", whole | {"bn1.weight": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"(?s)'test_resnet' cannot be loaded.*bn1.weight"):
        load_pretrained(build(), True, missing="error")


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_hub_that_answers_anything_is_reachable(server):
    hub.check_reachable(server, "test_resnet")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        hub.check_reachable(NOWHERE, "test_resnet")


def test_proxy_that_only_the_hubs_client_knows(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    hub.check_reachable(NOWHERE, "test_resnet")

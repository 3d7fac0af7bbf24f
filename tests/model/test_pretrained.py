"""Loading weights from files and from timm's hub: they fit bit by bit, or are refused and change nothing."""

import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from conftest import composed
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.model.backbone import Backbone
from skinlesion.model.pretrained import (
    HUB_TIMEOUT,
    Match,
    check_reachable,
    hub_weights,
    load_pretrained,
    read_weights,
    resolve_hub_name,
)
from skinlesion.training.build import image_input

shared = os.environ.get("SKINLESION_SHARED")
real_weights = pytest.mark.skipif(shared is None, reason="SKINLESION_SHARED is not set: real weights needed")


def build(seed: int, name: str = "test_resnet", level: str | None = None) -> Backbone:
    torch.manual_seed(seed)
    backbone = Backbone(name, feature_level=level)
    for key, value in backbone.net.state_dict().items():  # statistics too differ from seed to seed
        if "running" in key:
            value.uniform_(0.5, 1.5)
    return backbone


@pytest.fixture
def source() -> dict[str, Tensor]:
    return dict(build(1).net.state_dict())


@pytest.fixture
def backbone() -> Backbone:
    return build(2)


def assert_loaded(backbone: Backbone, source: dict[str, Tensor]) -> None:
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, source[key]), key


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def assert_refused(backbone: Backbone, path: Path, match: str, missing: str = "error") -> None:
    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        load_pretrained(backbone, str(path), missing=missing)
    assert_loaded(backbone, before)


def test_false_loads_nothing(backbone):
    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    assert load_pretrained(backbone, False, missing="error") == Match()
    assert_loaded(backbone, before)


def test_safetensors(backbone, source, tmp_path, caplog):
    save_file(source, tmp_path / "weights.safetensors")
    with caplog.at_level(logging.INFO):
        match = load_pretrained(backbone, str(tmp_path / "weights.safetensors"), missing="error")
    assert_loaded(backbone, source)
    assert match == Match(loaded=tuple(sorted(source)))
    assert f"loaded {len(source)} weights into the backbone test_resnet" in caplog.text


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net.", "model._orig_mod.network.backbone.net."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files_of_other_programs(prefix, wrapper, backbone, source, tmp_path):
    content: dict = {prefix + key: value for key, value in source.items()}
    if wrapper:
        content = {"epoch": 3, wrapper: content, "optimizer": {"state": {}}}
    match = load_pretrained(backbone, saved(tmp_path / "weights.pt", content), missing="error")
    assert_loaded(backbone, source)
    assert not match.missing
    assert not match.left_over


def test_checkpoint_with_a_head_beside_the_backbone(backbone, source, tmp_path):
    content = {f"network.backbone.net.{key}": value for key, value in source.items()}
    content |= {"network.head.funnel.weight": torch.ones(2), "bn1.weight": torch.ones(32), "fc.weight": torch.ones(3)}
    match = load_pretrained(backbone, saved(tmp_path / "last.ckpt", {"state_dict": content}), missing="error")
    assert_loaded(backbone, source)
    assert match.left_over == ("bn1.weight", "fc.weight", "network.head.funnel.weight")


def test_half_precision_becomes_the_networks_own(backbone, source, tmp_path):
    half = {key: value.half() if value.is_floating_point() else value for key, value in source.items()}
    load_pretrained(backbone, saved(tmp_path / "half.pt", half), missing="error")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert_loaded(backbone, {key: value.to(source[key].dtype) for key, value in half.items()})


def test_what_lies_behind_a_cut_is_left_over(source, tmp_path, caplog):
    cut = build(2, level="layer3")
    source["fc.weight"] = torch.ones(1000, 96)
    with caplog.at_level(logging.INFO):
        match = load_pretrained(cut, saved(tmp_path / "whole.pt", source), missing="error")
    assert_loaded(cut, source)
    expected = {key for key in source if key.startswith(("layer4.", "fc."))}
    assert set(match.left_over) == expected
    assert all(key in caplog.text for key in expected)
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_missing_weights_are_refused_or_initialised(backbone, source, tmp_path, caplog):
    own = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    gone = {key for key in source if key.startswith("layer4.0.conv1")} | {"bn1.running_mean"}
    path = saved(tmp_path / "part.pt", {key: value for key, value in source.items() if key not in gone})
    assert_refused(backbone, path, r"part.pt: lacks weights of the backbone 'test_resnet': bn1.running_mean, layer4.0")
    match = load_pretrained(backbone, path, missing="initialise")
    assert set(match.missing) == gone
    assert_loaded(backbone, source | {key: own[key] for key in gone})
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert all(key in warning.getMessage() for key in gone)


def test_missing_batch_counts_are_no_lack(backbone, source, tmp_path, caplog):
    path = saved(tmp_path / "w.pt", {key: value for key, value in source.items() if "num_batches" not in key})
    assert load_pretrained(backbone, path, missing="error").missing == ()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("missing", ["error", "initialise"])
def test_other_shapes_are_refused(missing, backbone, source, tmp_path):
    path = saved(tmp_path / "other.pt", source | {"layer4.0.bn2.bias": torch.ones(5)})
    assert_refused(backbone, path, r"other shape.*: layer4.0.bn2.bias is \(5,\) instead of \(96,\)", missing)


@pytest.mark.parametrize("missing", ["error", "initialise"])
def test_weights_of_another_network_are_refused(missing, backbone, tmp_path):
    path = saved(tmp_path / "vit.pt", {f"blocks.{n}.norm.gain": torch.ones(3) for n in range(9)})
    assert_refused(backbone, path, r"nothing in it fits .*blocks.0.norm.gain, .*\(9 in all\)", missing)


class Sprung:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.trap,))


def test_code_in_a_file_is_not_run(backbone, source, tmp_path):
    path = saved(tmp_path / "evil.pt", {"state_dict": source, "extra": Sprung(tmp_path / "trap")})
    assert_refused(backbone, path, r"evil.pt: not a readable weight file \(weights_only=True blocked")
    path = saved(tmp_path / "other.ckpt", {"state_dict": source, "folder": tmp_path})
    assert_refused(backbone, path, r"blocked .*Path.*, code that is not run.*save its weights alone")
    path.write_bytes(pickle.dumps(Sprung(tmp_path / "trap"), protocol=2))
    assert_refused(backbone, path, "not a readable weight file")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("damage", ["empty", "noise", "truncated"])
def test_damaged_files_are_refused(name, damage, backbone, source, tmp_path):
    path = tmp_path / name
    save_file(source, path) if path.suffix == ".safetensors" else torch.save(source, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": b"not weights" * 99, "truncated": whole[: len(whole) // 2]}[damage])
    assert_refused(backbone, path, rf"{name}: not a")


def test_a_changed_tensor_is_refused(backbone, source, tmp_path):
    path = saved(tmp_path / "weights.pt", source)
    whole, values = bytearray(path.read_bytes()), next(iter(source.values())).numpy().tobytes()
    whole[whole.index(values)] ^= 1
    path.write_bytes(whole)
    assert_refused(backbone, path, r"weights.pt: not a readable weight file \(.* is damaged: its CRC-32 is another")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(2)], torch.ones(2), {"model": {}}])
def test_files_without_named_weights_are_refused(content, backbone, tmp_path):
    assert_refused(backbone, saved(tmp_path / "w.pt", content), "no named weights")


def test_missing_file_is_named(backbone, tmp_path):
    assert_refused(backbone, tmp_path / "nowhere.safetensors", r"nowhere.safetensors: there is no such weight file")
    assert_refused(backbone, tmp_path, "no such weight file")


def test_home_folder_is_understood(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "w.pt", source)
    assert read_weights(Path("~/w.pt")).keys() == source.keys()


# timm's hub

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no proxy, and a hub that cannot be reached."""
    for name in ("all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_unreachable_hub_is_told_quickly_and_quietly(caplog, capfd):
    begun = time.perf_counter()
    with caplog.at_level(logging.INFO), pytest.raises(CheckpointError) as raised:
        load_pretrained(build(2), True, missing="error")
    assert time.perf_counter() - begun < HUB_TIMEOUT
    message = str(raised.value)
    assert f"'test_resnet' cannot be downloaded: {NOWHERE} cannot be reached" in message
    assert "model.pretrained=false" in message
    assert "model.pretrained=/path/to/weights.safetensors" in message
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cache")
def test_weights_at_an_address_outside_the_hub(monkeypatch):
    backbone = build(2)
    cfg = {"url": f"{NOWHERE}/weights.pth", "input_size": (3, 64, 64)}
    monkeypatch.setattr(backbone.net, "pretrained_cfg", cfg)
    with pytest.raises(CheckpointError, match=r"127.0.0.1:9/weights.pth cannot be reached"):
        hub_weights(backbone)


@pytest.mark.usefixtures("cache")
def test_network_without_weights_is_named(monkeypatch):
    backbone = build(2)
    monkeypatch.setattr(backbone.net, "pretrained_cfg", {"url": "", "input_size": (3, 64, 64)})
    with pytest.raises(CheckpointError, match=r"no pretrained weights of 'test_resnet'.*model.pretrained=false"):
        hub_weights(backbone)


def put_into_cache(cache: Path, repository: str, whole: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    (folder / "snapshots" / "0123abc").mkdir(parents=True)
    save_file(whole, folder / "snapshots" / "0123abc" / "model.safetensors")


@pytest.mark.parametrize("level", [None, "layer3"])
def test_cached_weights_need_no_hub(level, cache):
    whole = dict(build(1).net.state_dict()) | {"fc.weight": torch.ones(1000, 96), "fc.bias": torch.ones(1000)}
    put_into_cache(cache, "timm/test_resnet.r160_in1k", whole)
    backbone = build(2, level=level)
    match = load_pretrained(backbone, True, missing="error")
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, whole[key])
    assert {key.split(".")[0] for key in match.left_over} == ({"layer4"} if level else set())


def test_cached_weights_that_do_not_fit_are_refused(cache):
    whole = dict(build(2).net.state_dict()) | {"fc.weight": torch.ones(1000, 96), "fc.bias": torch.ones(1000)}
    put_into_cache(cache, "timm/test_resnet.r160_in1k", whole | {"bn1.weight": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"(?s)'test_resnet' cannot be loaded.*bn1.weight"):
        load_pretrained(build(2), True, missing="error")


def put_config(cache: Path, repository: str, config: object) -> None:
    (path,) = (cache / f"models--{repository.replace('/', '--')}").glob("snapshots/*")
    (path / "config.json").write_text(json.dumps(config))


def test_a_repository_of_the_hub_gives_network_weights_and_licence(cache, caplog):
    """As `timm.models.push_to_hf_hub` leaves it, in the cache of an earlier download; the hub is not asked."""
    caplog.set_level(logging.INFO)
    made = timm.create_model("test_resnet", num_classes=5, layers=(1, 1, 1, 2))
    put_into_cache(cache, "someone/skin", dict(made.state_dict()))
    record = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "license": "cc-by-nc-4.0"}
    config = {"architecture": "test_resnet", "num_classes": 5, "model_args": {"layers": [1, 1, 1, 2]}}
    put_config(cache, "someone/skin", {**config, "pretrained_cfg": {**record, "classifier": "fc", "num_classes": 5}})
    name, kwargs = resolve_hub_name("hf_hub:someone/skin", {"drop_rate": 0.1})
    assert (name, kwargs["layers"], kwargs["drop_rate"]) == ("test_resnet", [1, 1, 1, 2], 0.1)
    image = image_input({"backbone": name, "backbone_kwargs": kwargs})
    assert (image.size, image.mean, image.std) == ((96, 96), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    backbone = Backbone(name, kwargs=kwargs)
    load_pretrained(backbone, True, missing="error")
    pixels = torch.rand(1, 3, 96, 96)
    assert torch.equal(backbone.eval()(pixels), made.eval().forward_features(pixels))
    assert "licence cc-by-nc-4.0" in caplog.text
    put_config(cache, "someone/skin", {"architectures": ["ViTModel"]})
    with pytest.raises(ConfigError, match=r"hf-hub:someone/skin: no network of timm \(architecture: None\)"):
        resolve_hub_name("hf-hub:someone/skin", {})


@pytest.mark.usefixtures("cache")
def test_a_repository_of_the_hub_without_a_network_is_one_line():
    with pytest.raises(CheckpointError, match=rf"'someone/skin' cannot be downloaded: {NOWHERE} cannot be reached"):
        resolve_hub_name("hf_hub:someone/skin", {})
    assert resolve_hub_name("hf_hub:timm/resnet18.a1_in1k", {}) == ("resnet18.a1_in1k", {})
    assert resolve_hub_name("resnet18", {"drop_rate": 0.1}) == ("resnet18", {"drop_rate": 0.1})


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


@pytest.mark.usefixtures("cache")
def test_hub_that_answers_anything_is_reachable(server):
    check_reachable(server, "test_resnet")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        check_reachable(NOWHERE, "test_resnet")


@pytest.mark.usefixtures("cache")
def test_proxy_that_only_the_hubs_client_knows(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    check_reachable(NOWHERE, "test_resnet")


# Real weights

TENSORFLOW = {"pad_type": "same", "act_layer": "relu6", "bn_eps": 1e-3}


@real_weights
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "kwargs", "level", "eps", "channels"),
    [
        ("mobilenetv2_100", TENSORFLOW, None, None, 1280),
        ("mobilenetv1_100", TENSORFLOW, None, None, 1024),
        ("legacy_xception", {}, "block12", 1e-3, 1024),
    ],
)
def test_real_weights(name, kwargs, level, eps, channels):
    backbone = Backbone(name, kwargs=kwargs, feature_level=level, batch_norm_eps=eps).eval()
    match = load_pretrained(backbone, Path(shared, "weights", f"{name}.safetensors"), missing="error")
    assert not match.missing
    assert {key.split(".")[0] for key in match.left_over} <= {"classifier", "bn3", "bn4"}
    assert {module.eps for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 96, 96) * 2 - 1)
    assert features.shape == (2, channels, 3, 3)
    assert features.isfinite().all()
    assert 0.01 < features.std() < 10


@real_weights
@pytest.mark.real_data
def test_real_xception_without_the_cut_lacks_its_last_layers():
    whole = Backbone("legacy_xception", batch_norm_eps=1e-3)
    path = Path(shared, "weights", "legacy_xception.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks weights .*conv3"):
        load_pretrained(whole, path, missing="error")
    match = load_pretrained(whole, path, missing="initialise")
    assert {key.split(".")[0] for key in match.missing} == {"conv3", "conv4"}


# Transformers at another image size, and weights under other names


def test_position_embeddings_are_resampled_to_the_image_size(tmp_path):
    kwargs = {"depth": 1}
    whole = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **kwargs)  # 37 x 37 positions
    torch.nn.init.normal_(whole.pos_embed)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone("vit_small_patch14_dinov2", kwargs=kwargs, image_size=(56, 84))
    assert not load_pretrained(backbone, tmp_path / "weights.pth").missing
    expected = resample_abs_pos_embed(whole.pos_embed, (4, 6), num_prefix_tokens=1)
    torch.testing.assert_close(backbone.net.pos_embed, expected)
    assert torch.equal(backbone.net.blocks[0].attn.qkv.weight, whole.blocks[0].attn.qkv.weight)


PANDERM = composed("train", TrainConfig, "model=panderm").model.backbone_kwargs
"""Arguments with which timm's BEiT is the encoder of CAE, as PanDerm's is."""


def test_the_encoder_of_a_checkpoint_with_a_decoder_is_found(tmp_path):
    """As PanDerm's files have it: under "model", the encoder beside a regressor and a teacher's embedding."""
    kwargs = {**PANDERM, "depth": 2, "embed_dim": 48, "num_heads": 3}
    encoder = timm.create_model("beit_base_patch16_224", num_classes=0, global_pool="", **kwargs)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    stored = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    others = {"regresser.norm.weight": torch.ones(48), "rd_linear.weight": torch.ones(3, 48)}
    torch.save({"model": {**stored, **others}, "epoch": 499}, tmp_path / "checkpoint.pth")
    backbone = Backbone("beit_base_patch16_224", kwargs=kwargs, image_size=(224, 224)).eval()
    match = load_pretrained(backbone, tmp_path / "checkpoint.pth")
    assert set(match.left_over) == set(others)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        tokens = encoder.eval().forward_features(image)  # (1, 197, 48)
        torch.testing.assert_close(backbone(image).flatten(2).transpose(1, 2), tokens[:, 1:])

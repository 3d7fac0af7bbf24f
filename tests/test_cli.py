"""The command line as a whole: what it refuses, what it prints, and that it stays light."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skinlesion import __version__
from skinlesion.cli import COMMANDS, main

COMMANDS_FOLDER = Path(__file__).parent.parent / "skinlesion" / "commands"


def run_cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinlesion", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


def spoken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["skinlesion", *words])
    main()
    return capsys.readouterr().out


def test_each_command_has_a_module() -> None:
    assert {*COMMANDS} <= {path.stem for path in COMMANDS_FOLDER.glob("*.py")}


def test_version_and_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoken(capsys, monkeypatch, "--version") == f"skinlesion {__version__}\n"
    assert spoken(capsys, monkeypatch) == spoken(capsys, monkeypatch, "--help") == spoken(capsys, monkeypatch, "help")
    assert spoken(capsys, monkeypatch, "help", "serve") == spoken(capsys, monkeypatch, "serve", "--help")
    assert "complete -c skinlesion" in spoken(capsys, monkeypatch, "completion", "fish")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trian", "did you mean train?"),
        ("xyz", "expected one of download, synthetic, audit"),
        ("phantom", "phantom is called synthetic now; give skinlesion synthetic"),
        ("completion", "skinlesion completion: expected one of bash, zsh, fish"),
    ],
)
def test_unknown_commands(word: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["skinlesion", word])
    with pytest.raises(SystemExit, match=said):
        main()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "loss.gama=1"], "loss.gama: unknown key; did you mean loss.gamma"),
        (["train", "model=resnet5"], "model=resnet5: unknown choice; expected one of"),
        (["train", "model=null"], "model=null: expected the name of a choice"),
        (["train", "-m", "seed=1,2", "--cfg", "job"], "Only one of"),
    ],
)
def test_errors_are_messages(arguments: list[str], said: str, tmp_path: Path) -> None:
    answer = run_cli(*arguments, folder=tmp_path)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stdout == ""
    assert not any(tmp_path.iterdir()), "nothing is written"


def test_a_sweep_names_its_failed_members(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_here: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_here("train", "sweep=six", "model=tiny_resnet", "data.root=nowhere")
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "3 failed" in said
    assert "loss=a06_g19 model=tiny_resnet" in said
    assert "nowhere" in said
    assert "Traceback" not in said
    log = (tmp_path / "runs" / "six" / "tiny_resnet-a06_g19" / "run.log").read_text()
    assert "INFO skinlesion train loss=a06_g19 model=tiny_resnet" in log
    assert "ERROR" in log
    assert "nowhere" in log.splitlines()[-1]


@pytest.mark.parametrize("words", [["train", "+x=1"], ["train", "--help"]])
def test_refusals_and_help_import_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['skinlesion', *{words}]\n"
        "from skinlesion import cli\n"
        "assert not {'hydra', 'torch', 'numpy'} & set(sys.modules), 'cli is heavy'\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert stop.code == 1\n"
        "heavy = {'torch', 'pandas', 'lightning', 'timm', 'albumentations', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr

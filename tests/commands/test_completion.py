"""Completion in the real shells; those that the machine lacks are left out."""

import shutil
import subprocess
from pathlib import Path

import pytest

from skinlesion.cli import COMMANDS
from skinlesion.commands.completion import script
from skinlesion.config.reference import keys

CASES = [
    ("skinlesion tr", ["train"]),
    ("skinlesion completion f", ["fish"]),
    ("skinlesion train model=res", ["model=resnet50"]),
    ("skinlesion train trainer.benchm", ["trainer.benchmark="]),
    ("skinlesion train seed=1 trainer.benchmark=t", ["trainer.benchmark=true"]),
    ("skinlesion train schedule.phases.head.ep", ["schedule.phases.head.epochs="]),
    ("skinlesion train out=here", ["out=here.d/"]),
    ("skinlesion predict image=pho", ["image=photo.jpg"]),
    ("skinlesion predict model", []),
]


def write(shell: str, folder: Path) -> Path:
    path = folder / f"completion.{shell}"
    path.write_text(script(shell, {name: (each.load_schema(), each.help) for name, each in COMMANDS.items()}))
    (folder / "here.d").mkdir(exist_ok=True)
    (folder / "photo.jpg").touch()
    return path


def run(*command: str, folder: Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("breaks", ["'=: '", "' '"], ids=["words break at =", "words do not"])
def test_bash(breaks: str, tmp_path: Path) -> None:
    asked = "".join(
        f"COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; _skinlesion; printf '<%s>' \"${{COMPREPLY[@]}}\"; echo\n"
        for line, _ in CASES
    )
    path = write("bash", tmp_path)
    answers = run("bash", "-c", f"source {path}\nCOMP_WORDBREAKS={breaks}\n{asked}", folder=tmp_path).splitlines()
    for (line, expected), answer in zip(CASES, answers, strict=True):
        found = [word.strip() for word in answer.strip("<>").split("><") if word.strip()]
        is_value = "=" in line.rpartition(" ")[2] and "=:" in breaks  # bash then replaces only the text behind the "="
        assert found == [word.partition("=")[2] if is_value else word for word in expected]


def test_zsh_completes_a_line_that_is_typed(tmp_path: Path) -> None:
    path = write("zsh", tmp_path)
    typing = "zpty -w -n z {!r}$'\\t'; sleep 0.3; zpty -w -n z $'\\C-a\\C-k'\n"
    typed = "".join(typing.format(line) for line, _ in CASES[:7])
    code = f"""zmodload zsh/zpty; zpty z zsh -f -i
zpty -w z 'PS1=; autoload -U compinit; compinit -u -D; source {path}; bindkey "^I" complete-word'
sleep 1
{typed}sleep 0.5
while zpty -r -t z out; do print -r -- "$out"; done"""
    answer = run("zsh", "-f", "-c", code, folder=tmp_path)
    for line, (expected,) in CASES[:7]:
        assert f"{line.rpartition(' ')[0]} {expected}" in answer


def test_fish(tmp_path: Path) -> None:
    path = write("fish", tmp_path)
    asked = "".join(f"echo '#'; complete -C {line!r}\n" for line, _ in CASES)
    answers = run("fish", "--no-config", "-c", f"source {path}\n{asked}", folder=tmp_path).split("#\n")[1:]
    for (_, expected), answer in zip(CASES, answers, strict=True):
        found = [row.partition("\t")[0] for row in answer.splitlines()]
        assert found == expected or (expected[0] in found and expected[0].endswith("="))  # with its values at once


def test_every_key_of_every_command_is_there(tmp_path: Path) -> None:
    text = write("bash", tmp_path).read_text()
    for name, command in COMMANDS.items():
        (words,) = (row for row in text.splitlines() if row.startswith(f"      {name}) "))
        for key in keys(command.load_schema()):
            assert f"{key.replace('NAME', 'head')}=" in words

"""Write build.txt and service.txt: the requirements with their hashes, for x86_64 and aarch64: python docker/lock.py.

Needs pip 25.1 or newer on Python 3.11, and the network. Run it after a change of constraints.txt.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("pip", "hatchling", "setuptools", "wheel")
ONLY_SOURCE = ("antlr4-python3-runtime",)  # no wheel: built with setuptools
ARM = [f"--platform=manylinux{tag}_aarch64" for tag in ("_2_34", "_2_31", "_2_28", "_2_27", "_2_26", "_2_17", "2014")]


def resolved(*asked: str) -> dict[str, str]:
    """The SHA-256 of each `name==version` that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report=-"]
    answer = subprocess.run([*command, *asked], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return {
        f"{each['metadata']['name'].lower()}=={each['metadata']['version']}": each["download_info"]["archive_info"][
            "hashes"
        ]["sha256"]
        for each in json.loads(answer.stdout)["install"]
    }


def write(name: str, asked: Sequence[str]) -> None:
    """Write a file of requirements."""
    first = resolved("--constraint=constraints.txt", *asked)
    wheels = [each for each in first if not each.startswith(ONLY_SOURCE)]
    second = resolved("--no-deps", "--target=none", "--only-binary=:all:", "--python-version=3.11", *ARM, *wheels)
    lines = [f"# Made by docker/lock.py from {' '.join(asked)} and constraints.txt."]
    for each in sorted(first):
        hashes = sorted({first[each], second.get(each, first[each])})
        lines.append(" ".join([each, *(f"--hash=sha256:{value}" for value in hashes)]))
    (ROOT / "docker" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write("build.txt", TOOLS)
    write("service.txt", ("--group=service",))

"""Hooks of the site: a reference page a command, made from its schema, and a page a notebook with its outputs."""

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File

from skinlesion.cli import COMMANDS
from skinlesion.commands.help import markdown

ROOT = Path(__file__).parent.parent


def on_config(config: Any) -> Any:
    """Add the commands' pages to the navigation."""
    (reference,) = (each["Reference"] for each in config["nav"] if "Reference" in each)
    reference += [{name: f"reference/{name}.md"} for name in COMMANDS]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    made = {f"reference/{name}.md": _reference(name) for name in COMMANDS}
    made["reference/index.md"] = _index()
    made |= {f"notebooks/{path.stem}.md": notebook(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """Name what lies in the repository outside the site, instead of linking to it; the first page has no side bar."""
    page.meta |= {"hide": ["navigation", "toc"]} if page.is_homepage else {}
    up = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"(?<!!)\[([^\]]+)\]\({re.escape(up)}([^)]+)\)", _named, text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Mark the reference, whose tables are laid out otherwise on a phone."""
    return f'<div class="reference">{html}</div>' if page.file.src_uri.startswith("reference/") else html


def _named(found: re.Match[str]) -> str:
    words, place = found[1], found[2].rstrip("/")
    return f"`{place}`" if words.strip("`/") in place else f"{words} (`{place}`)"


def _reference(name: str) -> str:
    command = COMMANDS[name]
    return markdown(name, command.load_schema(), about=command.help, examples=command.examples)


def _index() -> str:
    rows = [f"| [{name}]({name}.md) | {command.help} |" for name, command in COMMANDS.items()]
    head = (
        "# Commands",
        "",
        "Each key of each command, from the schema that checks it.",
        "",
        "| command | |",
        "|---|---|",
    )
    return "\n".join((*head, *rows, ""))


def notebook(path: Path) -> str:
    """A notebook as Markdown, with the outputs that it holds."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts += [f"```python\n{cell.source}\n```", *map(_output, cell.outputs)]
    return "\n\n".join(parts) + "\n"


def _output(output: Any) -> str:
    """The richest form of an output that needs no script."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output.data
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        table = table.replace('border="1" class="dataframe"', "")  # the theme's own look
        lines = "".join(line.strip() for line in table.splitlines())
        return f'<div class="nb-output">{lines}</div>'
    return f"```text\n{data['text/plain']}\n```"

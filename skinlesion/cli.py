"""`skinlesion VERB [Hydra overrides]`: the table of verbs. Imports nothing heavy."""

import difflib
import runpy
import sys

from skinlesion import __version__

VERBS: dict[str, str] = {
    "synthetic": "write a synthetic HAM10000 to try everything on",
    "audit": "show what is in a data set: figures, splits, duplicates, shortcuts",
    "train": "train one model, or a sweep of members (sweep=six)",
    "evaluate": "judge a checkpoint or an ensemble on a split",
    "ensemble": "let the members of a sweep vote; search the best subset on validation",
    "predict": "diagnose images with a checkpoint, an ensemble or a bundle",
    "export": "make a bundle of an ensemble that needs no torch: ONNX",
    "compare": "judge predictions tables of the same images against the first, with intervals",
    "serve": "answer over HTTP, with a page for a person, from an exported bundle",
    "report": "write all that is known of an ensemble: one page, a model card, checklists",
    "robustness": "judge a model on disturbed images and facts, and what it flags as novel",
    "explain": "show what speaks for a diagnosis: overlay, members, the patient's facts",
}


def main() -> None:
    """Run the verb that the command line names, or list the verbs.

    Raises:
        SystemExit: With status 1 for an unknown verb.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
    elif arguments[0] in ("-V", "--version"):
        print(f"skinlesion {__version__}")
    elif arguments[0] in VERBS:
        del sys.argv[1]
        runpy.run_module(f"skinlesion.commands.{arguments[0]}", run_name="__main__", alter_sys=False)
    else:
        raise SystemExit(_unknown(arguments[0]))


def usage() -> str:
    """The list of verbs, for people."""
    rows = [f"  {verb:<12}{meaning}" for verb, meaning in VERBS.items()]
    return "\n".join(
        (
            "usage: skinlesion VERB [key=value ...]",
            "",
            *rows,
            "",
            "skinlesion VERB --help shows the keys of a verb; skinlesion VERB --cfg job prints its configuration.",
            "Research software, not a medical device.",
        )
    )


def _unknown(verb: str) -> str:
    close = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(VERBS)}"
    return f"skinlesion: unknown verb {verb!r}; {hint}"

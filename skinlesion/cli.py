"""`skinlesion COMMAND [key=value ...]`: the table of commands. Imports nothing heavy until a command is chosen."""

import difflib
import sys
from dataclasses import dataclass
from importlib import import_module

from skinlesion import __version__
from skinlesion.errors import SkinlesionError


@dataclass(frozen=True)
class Command:
    """A command; its `run(config)` is in the module of its name in `skinlesion.commands`.

    Attributes:
        schema: Module in `skinlesion.config` and name of the dataclass that its configuration is checked against.
        help: One line.
        examples: Command lines without the program's name.
    """

    schema: str
    help: str
    examples: tuple[str, ...]

    def load_schema(self) -> type:
        """Import the dataclass."""
        module, name = self.schema.split(".")
        found: type = getattr(import_module(f"skinlesion.config.{module}"), name)
        return found


COMMANDS = {
    "download": Command(
        "data.DownloadConfig",
        "Download a public data set, checked and unpacked where the other commands expect it.",
        ("download ham10000 accept_licence=true", "download isic dataset.collection=249 data.root=data/bcn20000"),
    ),
    "synthetic": Command(
        "data.SyntheticConfig",
        "Write a synthetic HAM10000 to try everything on.",
        ("synthetic data.root=demo/data", "synthetic data.root=demo/data n=200 seed=2"),
    ),
    "audit": Command(
        "studies.AuditConfig",
        "Audit a data set: figures, splits, near duplicates, shortcuts.",
        ("audit data.root=demo/data out=demo/audit",),
    ),
    "train": Command(
        "train.TrainConfig",
        "Train one model, or a sweep of members (sweep=six).",
        (
            "train data.root=data model=resnet50 out=runs/resnet50",
            "train data.root=data sweep=six",
            "train data.root=data -m seed=1,2,3",
            "train experiment=demo schedule.phases.head.epochs=3 loader.batch_size=16",
        ),
    ),
    "ensemble": Command(
        "inference.EnsembleConfig",
        "Average the members of a sweep; the best subset is chosen on validation.",
        ("ensemble members=runs/six", "ensemble members=[a/best.ckpt,b/best.ckpt] out=runs/ensemble split=test"),
    ),
    "evaluate": Command(
        "inference.EvaluateConfig",
        "Evaluate a checkpoint or an ensemble on a part of the split or on other images.",
        (
            "evaluate checkpoint=runs/resnet50/best.ckpt split=val",
            "evaluate ensemble=runs/six/ensemble external.images=photos external.labels=labels.csv",
        ),
    ),
    "compare": Command(
        "inference.CompareConfig",
        "Compare predictions tables of the same images with the first, with intervals.",
        (
            "compare tables=[a/predictions_val.csv,b/predictions_val.csv]",
            "compare 'recipes=[a-*/predictions_val.csv,b-*/predictions_val.csv]'",
        ),
    ),
    "tune": Command(
        "studies.TuneConfig",
        "Search for settings of train by Optuna, with as many workers as are started.",
        (
            "tune 'overrides=\"data.root=data schedule=head_only\"' trials=40",
            "tune '+space.model.gate_hidden=[64,128]' trials=20 seeds=[1,2,3]",
        ),
    ),
    "folds": Command(
        "inference.FoldsConfig",
        "Train, vote and judge on all folds; the same command goes on.",
        ("""folds 'overrides="data.root=data split.file=folds.csv"'""", """folds folds=[0] 'ensemble="tta=flips"'"""),
    ),
    "predict": Command(
        "inference.PredictConfig",
        "Diagnose images with a checkpoint, an ensemble or a bundle.",
        (
            "predict photo.jpg bundle=bundle age=55 sex=female localization=back",
            "predict photos ensemble=runs/six/ensemble format=json",
            "predict images=photos facts=patients.csv ensemble=runs/six/ensemble out=predictions.csv",
        ),
    ),
    "explain": Command(
        "studies.ExplainConfig",
        "Explain a diagnosis: saliency map, members, the patient's facts.",
        ("explain photo.jpg ensemble=runs/six/ensemble", "explain ensemble=runs/six/ensemble split=val"),
    ),
    "probe": Command(
        "studies.ProbeConfig",
        "Judge frozen backbones by simple classifiers; list likely label errors.",
        (
            "probe data.root=data backbones=[vit_small_patch14_dinov2,convnext_tiny]",
            "probe data.root=data pretrained=weights split.policy=file split.file=folds.csv",
        ),
    ),
    "robustness": Command(
        "studies.RobustnessConfig",
        "Study a model on corrupted images and facts, and what it flags as out-of-distribution.",
        ("robustness ensemble=runs/six/ensemble split=val images=200",),
    ),
    "report": Command(
        "studies.ReportConfig",
        "Write the report of an ensemble: one page, a model card, checklists.",
        ("report ensemble=runs/six/ensemble prevalence.malignant=0.05",),
    ),
    "verify": Command(
        "studies.VerifyConfig",
        "Recompute the published tables, and name each digit that differs.",
        ("verify", "verify write=true"),
    ),
    "export": Command(
        "deploy.ExportConfig",
        "Export a checkpoint or an ensemble to a bundle that needs no torch (ONNX).",
        ("export ensemble=runs/six/ensemble out=bundle", "export checkpoint=runs/resnet50 out=bundle precision=int8"),
    ),
    "push": Command(
        "deploy.PushConfig",
        "Publish a checkpoint, an ensemble or a bundle on the Hugging Face hub.",
        (
            "push ensemble=runs/six/ensemble repo=user/name",
            "push checkpoint=runs/resnet50/best.ckpt repo=user/name out=runs/hub dry_run=true",
        ),
    ),
    "serve": Command(
        "deploy.ServeConfig",
        "Serve a bundle over HTTP, with a page for people.",
        ("serve bundle=bundle", "serve bundle=bundle port=0 threads=2"),
    ),
}
RENAMED = {"phantom": "synthetic"}
SHELLS = ("bash", "zsh", "fish")


def main() -> None:
    """Run the command that the command line names, or list the commands.

    Raises:
        SystemExit: Status 1 for an unknown command or keys that a command refuses.
    """
    name, *words = sys.argv[1:] or ["--help"]
    if name == "help" and words:
        name, words = words[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in ("-V", "--version"):
        print(f"skinlesion {__version__}")
    elif name == "completion":
        _complete(words)
    elif name not in COMMANDS:
        raise SystemExit(_unknown(name))
    elif {"-h", "--help"} & {*words}:
        _explain(name, words)
    else:
        from skinlesion.commands.launch import start

        start(name, COMMANDS[name].load_schema(), words)


def usage() -> str:
    """Return the list of commands, for people."""
    rows = [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        (
            "usage: skinlesion COMMAND [key=value ...]",
            "",
            *rows,
            f"  {'completion':<12}Print the completion script of a shell: {', '.join(SHELLS)}.",
            "",
            "skinlesion COMMAND --help explains the keys of a command; --cfg job prints its configuration.",
            "Research software, not a medical device.",
        )
    )


def _explain(name: str, words: list[str]) -> None:
    from skinlesion.commands.help import page

    command = COMMANDS[name]
    try:
        print(page(name, command.load_schema(), about=command.help, examples=command.examples, words=words))
    except SkinlesionError as error:
        raise SystemExit(f"skinlesion {name}: {error}") from error


def _complete(words: list[str]) -> None:
    if len(words) != 1 or words[0] not in SHELLS:
        raise SystemExit(f"skinlesion completion: expected one of {', '.join(SHELLS)}")
    from skinlesion.commands.completion import script

    schemas = {name: (command.load_schema(), command.help) for name, command in COMMANDS.items()}
    print(script(words[0], schemas))


def _unknown(name: str) -> str:
    if name in RENAMED:
        return f"skinlesion: {name} is called {RENAMED[name]} now; give skinlesion {RENAMED[name]}"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(COMMANDS)}"
    return f"skinlesion: unknown command {name!r}; {hint}"

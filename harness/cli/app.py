"""App: the typer application, its consoles, and the options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from harness import __version__
from harness.spec import registry

if TYPE_CHECKING:
    from harness.spec.device import Device

INTERRUPTED = 130
app = typer.Typer(
    name="harness",
    help="Which fine-tuning variant should I use, what does it cost, and can I trust the answer?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)


class DeviceKind(StrEnum):
    """Where to run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


VariantOption = Annotated[
    list[str], typer.Option("--variant", "-v", help="A registered variant or a TOML file.")
]
SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A built-in suite or a TOML file.")]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting: adapter.r=32, or suite.training.speed=fast for all; "
        "budget.steps=none unsets what may be left out.",
    ),
]
TaskOption = Annotated[
    list[str], typer.Option("--task", help="An lm-eval task or group to score in addition.")
]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Folder that holds runs/.")]
SeedsOption = Annotated[
    str, typer.Option("--seeds", help="0, 0,1,2 or 0..4; default: the suite's.")
]
DeviceOption = Annotated[DeviceKind, typer.Option("--device", help="Where to run.")]


def _print_version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        out.print(f"finetune-harness {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options before any command."""


def complain(text: str) -> None:
    """Print a problem to standard error, as it is."""
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Print a line as it is: no markup, no wrapping."""
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def choose_device(kind: DeviceKind, gpu: str = "") -> Device:
    """The device to plan for: a named GPU, or one of this machine."""
    if gpu:
        from harness.spec.gpus import planned_gpu

        return planned_gpu(gpu)
    from harness.spec.device import detect_device

    return detect_device(kind.value)


def make_request(
    variants: list[str], suite: str, settings: list[str], seeds: str, tasks: list[str]
) -> registry.Request:
    """The options that say what to run, as one value."""
    return registry.Request(
        tuple(variants), suite, tuple(settings), tuple(tasks), registry.parse_seeds(seeds)
    )

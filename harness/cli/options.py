"""Options: what several commands ask for in the same words, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UserError
from harness.spec.overrides import parse_seeds
from harness.spec.request import Request


class DeviceKind(StrEnum):
    """Where to run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


VariantOption = Annotated[
    list[str],
    typer.Option(
        "--variant",
        "-v",
        help="A registered variant or a TOML file; several: repeated, or with commas.",
    ),
]
SuiteOption = Annotated[
    str,
    typer.Option(
        "--suite",
        "-s",
        help="A built-in suite, a TOML file, or the name that runs were given with --name.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting: adapter.r=32, or suite.training.speed=fast for all variants; "
        "`none` clears an optional setting or empties a list, as in score.tasks=none.",
    ),
]
TaskOption = Annotated[
    list[str],
    typer.Option(
        "--task",
        help="Another lm-eval task or group to score, or a task file; several: repeated, or with "
        "commas.",
    ),
]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Folder for runs/ and reports.")]
SeedsOption = Annotated[
    str,
    typer.Option(
        "--seeds", help="Which seeds to run: 0..2 or 0,1,2 are three of them. Default: the suite's."
    ),
]
DeviceOption = Annotated[DeviceKind, typer.Option("--device", help="Device to run on.")]
MarginOption = Annotated[
    str,
    typer.Option(
        help="Differences smaller than this share of the score do not matter: 1% or 0.01."
    ),
]
LongestAnswer = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[
    float, typer.Option(min=0, help="0: always the likeliest token; above 0: sampled.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed for sampled answers.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
]
RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="SUITE/VARIANT, SUITE/VARIANT/SEED, or a run's folder."),
]
QuantOption = Annotated[
    str, typer.Option(help="GGUF type: F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, …")
]
FormOption = Annotated[
    str,
    typer.Option(
        "--form",
        help="adapter, merged, merged_dequantized, SCHEME_again (nf4_again, int8_again, …) or gguf "
        "(gguf:Q8_0 names the type).",
    ),
]


def make_request(
    variants: list[str],
    suite: str,
    settings: list[str],
    seeds: str,
    tasks: list[str],
    name: str = "",
) -> Request:
    """The options that say what to run, as one value."""
    return Request(
        tuple(separate(variants)),
        suite,
        tuple(settings),
        tuple(separate(tasks)),
        parse_seeds(seeds),
        name,
    )


def separate(names: Iterable[str]) -> list[str]:
    """``a,b`` as two names, unless there is a file of that name."""
    found: list[str] = []
    for text in names:
        whole = "," not in text or Path(text).exists()
        found += [text] if whole else filter(None, map(str.strip, text.split(",")))
    return found


def full_form(form: str, quant: str = "") -> str:
    """``gguf`` and ``--quant Q8_0`` as one name; Q8_0 where none is given."""
    if form == "gguf":
        return f"gguf:{quant or 'Q8_0'}"
    return f"{form}:{quant}" if quant else form


def runs_folder(reports: Path) -> Path:
    """Where records lie below ``reports``: in runs/, or in records/ of a published report."""
    published = reports / "records"
    return published if published.is_dir() and not (reports / "runs").is_dir() else reports / "runs"


def parse_share(text: str, option: str) -> float:
    """Read ``1%`` or ``0.01``.

    Raises:
        UserError: it is neither, or not between 0 and 1.
    """
    number = text.strip()
    scale = 100 if number.endswith("%") else 1
    try:
        share = float(number.removesuffix("%")) / scale
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"{option} {text!r} is not a share", expected="for example 1% or 0.01")
    return share

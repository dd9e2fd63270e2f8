"""Generate: the command that answers a file of prompts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import out, say
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    FormOption,
    LongestAnswer,
    QuantOption,
    ReportsOption,
    RunArgument,
    SeedOption,
    TemperatureOption,
    TrustOption,
    full_form,
    runs_folder,
)
from harness.errors import UserError
from harness.spec.form import parse_form


def generate(
    run: RunArgument,
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts", help="Text file with one prompt a line, or .jsonl with a key `prompt`."
        ),
    ],
    to: Annotated[Path, typer.Option("--out", help="JSON lines file to write.")],
    form: FormOption = "adapter",
    quant: QuantOption = "",
    max_new_tokens: LongestAnswer = 256,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = DeviceKind.auto,
    reports: ReportsOption = Path("reports"),
    trust_remote_code: TrustOption = False,
) -> None:
    """Answer every prompt of a file with a run's result."""
    wanted_form = parse_form(full_form(form, quant), where="--form")
    from harness.cli.display import Notes
    from harness.deploy.results import find_result
    from harness.deploy.speak import (
        AnswerStyle,
        SpeakerRequest,
        open_speaker,
        read_prompts,
        write_answers,
    )
    from harness.spec.device import detect_device

    if to.exists():
        raise UserError("the target already exists", where=to)
    asked = read_prompts(prompts)
    found = find_result(run, runs_folder(reports))
    decoding = AnswerStyle(max_new_tokens, temperature, seed)
    wanted = SpeakerRequest(wanted_form, detect_device(device.value), decoding, trust_remote_code)
    with tempfile.TemporaryDirectory() as scratch, Notes(out) as notes:
        speaker = open_speaker(found, wanted, Path(scratch), notes)
        write_answers(speaker, asked, to, notes)
    say(f"{len(asked)} answers: {to}")

"""Export: the command that writes a run's result in a form to be deployed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer

from harness import numbers
from harness.cli.app import out, say
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    FormOption,
    QuantOption,
    ReportsOption,
    RunArgument,
    TrustOption,
    full_form,
    runs_folder,
)
from harness.spec.form import parse_form
from harness.spec.variant import Dtype


class StoredAs(StrEnum):
    """Number formats for merged weights; ``run`` is that of the run."""

    run = "run"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def dtype(self) -> Dtype | None:
        """The dtype, or None for the run's own."""
        known: tuple[Dtype, ...] = get_args(Dtype)
        return next((name for name in known if name == self.value), None)


def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="Folder to create.")],
    form: FormOption = "adapter",
    quant: QuantOption = "",
    dtype: Annotated[
        StoredAs,
        typer.Option(help="Number format of merged weights; run: the one that was scored."),
    ] = StoredAs.run,
    device: DeviceOption = DeviceKind.cpu,
    reports: ReportsOption = Path("reports"),
    trust_remote_code: TrustOption = False,
) -> None:
    """Write the result of a run as a folder that transformers, PEFT or llama.cpp can load."""
    wanted = parse_form(full_form(form, quant), where="--form")
    from harness.cli.display import Notes
    from harness.deploy.export import ExportOrder
    from harness.deploy.export import export as write_export
    from harness.deploy.results import find_result
    from harness.spec.device import detect_device

    order = ExportOrder(
        form=wanted,
        target=to,
        dtype=dtype.dtype,
        device=detect_device(device.value),
        trust_remote_code=trust_remote_code,
    )
    with Notes(out) as notes:
        done = write_export(find_result(run, runs_folder(reports)), order, notes)
    say(f"{done.form.asked}: {done.folder} ({numbers.size(done.bytes)})")

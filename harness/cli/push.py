"""Push: the command that uploads a run's result with its card, or shows what would go."""

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
    QuantOption,
    ReportsOption,
    RunArgument,
    TrustOption,
    full_form,
    runs_folder,
)
from harness.spec.form import parse_form


def push(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="Repository on the hub: owner/name.")],
    form: FormOption = "adapter",
    quant: QuantOption = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload; without this option the files are only listed.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public instead of private.")
    ] = False,
    device: DeviceOption = DeviceKind.cpu,
    reports: ReportsOption = Path("reports"),
    trust_remote_code: TrustOption = False,
) -> None:
    """Upload a run's result with its model card; only with --yes; otherwise a dry run.

    The token comes from the environment variable HF_TOKEN and is written nowhere.
    """
    wanted = parse_form(full_form(form, quant), where="--form")
    from harness.cli.display import Notes
    from harness.deploy.export import ExportOrder
    from harness.deploy.push import check_repository, prepare, token_of_environment, upload
    from harness.deploy.results import find_result
    from harness.numbers import size
    from harness.spec.device import detect_device

    check_repository(to)
    token = token_of_environment() if yes else ""
    found = find_result(run, runs_folder(reports))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "result"
        order = ExportOrder(
            wanted, place, device=detect_device(device.value), trust_remote_code=trust_remote_code
        )
        with Notes(out) as notes:
            items = prepare(found, order, notes)
            if yes:
                notes.note(f"uploading to {to}")
                commit = upload(place, to, token, private=not public)
        for item in items:
            say(f"  {item.name}  {size(item.bytes)}")
    total = size(sum(item.bytes for item in items))
    if yes:
        say(f"{len(items)} files, {total}, are at {to}: {commit}")
    else:
        say(f"dry run: {len(items)} files, {total}, would be uploaded to {to}; --yes uploads them")

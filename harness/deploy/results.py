"""Results: the finished run that a person names, and what is left of it to deploy."""

from __future__ import annotations

from pathlib import Path

from harness import numbers
from harness.errors import HarnessError, InvalidFile, UserError
from harness.records.address import RunAddress
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore, StoredRun, altered_part
from harness.runs.bucket import fetch_rest
from harness.spec.plan import Plan
from harness.spec.plan_digests import model_sha256
from harness.spec.storage import read_json


def find_result(name: str, root: Path) -> StoredRun:
    """The run at a folder, or SUITE/VARIANT[/SEED] below ``root`` (``reports/runs``).

    Raises:
        UserError: no such run, more than one, or one that did not end well.
    """
    path = Path(name).expanduser()
    if (path / "record.json").is_file():
        run = StoredRun(RunFolder(path), read_json(path / "record.json", RunRecord))
    else:
        run = _below(name, root)
    if run.record.status != "ok":
        raise UserError(
            f"the run ended {run.record.status}, so there is nothing to deploy",
            where=run.folder.path,
            expected="a run with status ok",
        )
    return run


def _below(name: str, root: Path) -> StoredRun:
    store = RunStore(root)
    address = RunAddress.read(name, store)
    if address is None:
        raise UserError(
            f"no such run: {name}",
            where=root,
            expected="a run's folder, or SUITE/VARIANT/SEED",
            hint="python -m harness list runs",
        )
    records = sorted(root.glob(f"{address.suite}/*/*/record.json"))
    folders = [RunFolder(path.parent) for path in records]
    found = [folder for folder in folders if address.names(folder)]
    if len(found) != 1:
        raise _not_one(name, found, folders, root)
    return StoredRun(found[0], read_json(found[0].record, RunRecord))


def _not_one(name: str, found: list[RunFolder], there: list[RunFolder], root: Path) -> UserError:
    offered = [str(folder.path.relative_to(root)) for folder in found or there]
    if not offered:
        return UserError(
            f"no such run: {name}",
            where=root,
            expected="a run that has ended",
            hint="python -m harness list runs",
        )
    what = f"{name} names {len(found)} runs" if found else f"no such run: {name}"
    return UserError(what, where=root, expected=f"one of {numbers.some_of(offered, 20)}")


def check_deployable(run: StoredRun) -> Plan:
    """The plan of a run that left something to deploy: an adapter whose base is still the same.

    Raises:
        UserError: nothing was trained, or the trained weights were not kept.
        StorageError: it lies in a store from which it cannot be fetched.
        InvalidFile: the adapter is no longer the one that was scored, or the base model's folder
            not the one that was trained on.
    """
    plan = run.record.plan
    if not plan.trains:
        raise UserError(
            f"{plan.variant} trains nothing, so there is nothing to deploy",
            where=run.folder.path,
            expected="a run with an adapter",
        )
    fetch_rest(run.folder)
    if plan.method != "adapter" or not (run.folder.adapter / "adapter_config.json").is_file():
        raise UserError(
            "the run has no adapter",
            where=run.folder.adapter,
            expected="adapter_config.json and adapter_model.safetensors"
            + ("; fully fine-tuned weights are not kept" if plan.method == "full" else ""),
        )
    _check_adapter(run)
    if plan.model_sha256 is not None and _digest(plan) != plan.model_sha256:
        raise InvalidFile(
            f"the base model {plan.model.name} has changed since the run",
            where=getattr(plan.model.source, "path", None),
            expected="the files that the adapter was trained on",
            hint="run the variant again, or put the old files back",
        )
    return plan


def _check_adapter(run: StoredRun) -> None:
    """Refuse an adapter that is not the one whose scores the record holds."""
    path = altered_part(run.record, run.folder)
    if path is not None:
        raise InvalidFile(
            "the adapter's file is " + ("not as written" if path.is_file() else "missing"),
            where=path,
            expected=f"SHA-256 {run.record.adapter_sha256[path.name]}",
            hint="restore the file from a copy, or run the variant again with --force",
        )


def _digest(plan: Plan) -> str | None:
    try:
        return model_sha256(plan.model)
    except HarnessError:
        return None

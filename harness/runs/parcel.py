"""Parcel: what a run needs on a machine without a common file system, and what it sends back."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import __version__
from harness.cache import DIGESTS, cache_folder, cached_folder
from harness.errors import RunError, StorageError
from harness.measure.environment import PACKAGES
from harness.origin import RESULT_ROOMS, package_versions, sources_digest
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs.ending import interrupted
from harness.runs.lock import held
from harness.runs.options import RunOptions
from harness.runs.remote import because, supervise_remotely
from harness.runs.stop import Stop
from harness.score.reuse import keep_base, kept_base
from harness.spec.model import FolderSource
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json

# Ray sets it for its workers; a run's threads are the plan's.
SET_BY_RAY = "OMP_NUM_THREADS"
OWN_SOURCES = "its sources"
WHOLE, BASE = "whole", "base"  # folders of an archive


@dataclass(frozen=True)
class PlanFiles:
    """Local files that plans read, by the digest that stands in the plan: corpus, weights, tasks.

    They are sent once; plans name them.
    """

    corpus: tuple[str, bytes] | None = None
    model: tuple[str, bytes] | None = None
    data: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Parcel:
    """A plan as JSON and how to treat it; what it must agree with; the environment it is set.

    ``base`` are kept scores of its untrained model, by the names of their folders.
    """

    plan: str
    options: str
    versions: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    base: dict[str, bytes] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """What makes results besides plans: the harness's own code and the packages."""
    own = {"finetune-harness": __version__, OWN_SOURCES: sources_digest(*RESULT_ROOMS)}
    return own | package_versions(PACKAGES)


def threads_asked_for() -> dict[str, str]:
    """What the user of this machine has set of what Ray sets for its workers."""
    return {name: os.environ[name] for name in (SET_BY_RAY,) if name in os.environ}


def pack_plan(plan: Plan, options: RunOptions, store: RunStore) -> Parcel:
    """The plan, to be carried out by a machine that holds the same versions.

    What ``store`` has of its untrained model's scores goes with it.
    """
    found = [] if options.force else kept_base(plan, store.root)
    base = {path.name: _packed(path) for path in found}
    return Parcel(
        plan.model_dump_json(), options.model_dump_json(), versions(), threads_asked_for(), base
    )


def pack_sources(plan: Plan) -> PlanFiles:
    """The local files of ``plan``; nothing for what comes from the hub or with the harness.

    Raises:
        StorageError: a file cannot be read.
    """
    corpus = model = data = None
    if plan.corpus_sha256 and plan.corpus.source != "sample":
        corpus = (plan.corpus_sha256, _packed(Path(plan.corpus.source)))
    if plan.model_sha256 and isinstance(plan.model.source, FolderSource):
        model = (plan.model_sha256, _packed(Path(plan.model.source.path)))
    if plan.data_sha256 and plan.score.data_folder:
        data = (plan.data_sha256, _packed(Path(plan.score.data_folder)))
    return PlanFiles(corpus, model, data)


def source_key(plan: Plan) -> tuple[str | None, ...]:
    """Equal for plans that read the same local files."""
    return plan.corpus_sha256, plan.model_sha256, plan.data_sha256


def run_parcel(parcel: Parcel, sources: PlanFiles) -> bytes:
    """Carry a plan out on this machine; returns its run folder as a tar archive.

    What was sent is kept in the cache folder by its digest, and so are the base model's scores,
    so that the next run finds them.

    Raises:
        RunError: this machine has other versions than the one that sent the plan.
        HarnessError: the plan cannot be run at all.
    """
    check_versions(parcel.versions)
    plan = Plan.model_validate_json(parcel.plan)
    options = RunOptions.model_validate_json(parcel.options)
    store = RunStore(cache_folder() / "worker" / "runs")
    for name, data in parcel.base.items():
        keep_base(name, store.root, partial(_unpack_base, data))
    local = unpack_sources(plan, sources)
    with environment_of_sender(parcel.environment):
        record = supervise_remotely(local, store, options.model_copy(update={"wait": True}))
    folder = store.folder(record.plan)  # of a smaller plan, where the one asked for did not fit
    found = RunFolder(folder.path) if folder.record.is_file() else folder.attempt
    back = record.model_copy(update={"plan": _as_sent(record.plan, plan)})
    write_json(found.record, back)
    write_json(found.plan, back.plan)
    base = [path for path in kept_base(local, store.root) if path.name not in parcel.base]
    return _packed(found.path, base)


def _unpack_base(data: bytes, folder: Path) -> None:
    """The files of a kept folder, without digests: they are taken anew."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            inside = Path(member.name).relative_to(WHOLE)
            if inside.parts and inside.name != DIGESTS:
                archive.extract(member.replace(name=inside.as_posix()), folder, filter="data")


def _as_sent(carried_out: Plan, sent: Plan) -> Plan:
    """The plan of the record with the paths that the sender knows, not those of this machine."""
    if carried_out.fingerprint == sent.fingerprint:
        return sent
    score = carried_out.score.model_copy(update={"data_folder": sent.score.data_folder})
    update = {"corpus": sent.corpus, "model": sent.model, "score": score}
    return carried_out.model_copy(update=update)  # a smaller plan that fitted


def check_versions(wanted: dict[str, str]) -> None:
    """Refuse to make records that would not be comparable with the others.

    Raises:
        RunError: naming what differs.
    """
    own = versions()
    other = [
        f"{name} {own.get(name, 'missing')[:12]} here, {wanted.get(name, 'missing')[:12]} there"
        for name in sorted(own.keys() | wanted.keys())
        if own.get(name) != wanted.get(name)
    ]
    if other:
        raise RunError(
            f"this worker has other versions: {'; '.join(other)}",
            expected="the versions of the machine that sends the plans",
            hint="install the same versions on all machines; constraints.txt lists them",
        )


def unpack_sources(plan: Plan, sources: PlanFiles) -> Plan:
    """``plan`` on files of this machine: where they lie changes neither results nor its name."""
    update: dict[str, object] = {}
    if sources.corpus is not None:
        path = _received(*sources.corpus)
        update["corpus"] = plan.corpus.model_copy(update={"source": str(path)})
    if sources.model is not None:
        source = plan.model.source.model_copy(update={"path": str(_received(*sources.model))})
        update["model"] = plan.model.model_copy(update={"source": source})
    if sources.data is not None:
        path = _received(*sources.data)
        update["score"] = plan.score.model_copy(update={"data_folder": str(path)})
    return plan.model_copy(update=update)


def _received(digest: str, data: bytes) -> Path:
    """The files of that digest in the cache folder: one file, or a folder of them."""
    folder = cache_folder() / "received" / digest[:32]
    cached_folder(folder, lambda scratch: _unpack(data, scratch))
    whole, single = folder / WHOLE, folder / "single"
    return whole if whole.is_dir() else next(single.iterdir())


def _packed(path: Path, base: Iterable[Path] = ()) -> bytes:
    """A tar archive that holds the folder as ``whole`` or the file below ``single``.

    Scores of the untrained model lie below ``base``.
    """
    buffer = io.BytesIO()
    path = path.expanduser()
    try:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            if path.is_dir():
                archive.add(path, WHOLE, filter=_to_send)
            else:
                archive.add(path, f"single/{path.name}")
            for folder in base:
                archive.add(folder, f"{BASE}/{folder.name}", filter=_to_send)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None
    return buffer.getvalue()


def _to_send(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out locks, and what a run goes on from on the machine where it was begun."""
    here = Path(member.name).name in (".lock", ".holder")
    begun = member.name in (f"{WHOLE}/attempt", f"{WHOLE}/checkpoint")
    return None if here or begun else member


def _unpack(data: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")


@contextmanager
def environment_of_sender(wanted: dict[str, str]) -> Iterator[None]:
    """Set what the sender has set, and unset what only this machine's scheduler has."""
    before = os.environ.pop(SET_BY_RAY, None)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.pop(SET_BY_RAY, None)
        if before is not None:
            os.environ[SET_BY_RAY] = before


def take_back(
    data: bytes, plan: Plan, store: RunStore, *, wait: bool = True, stop: Stop | None = None
) -> RunRecord:
    """Put a run folder that came back into ``store``, whole or not at all; returns its record.

    It becomes the folder of the record's plan, which is a smaller one where ``plan`` did not fit.
    Where ``stop`` was asked for, the record of a run that this has interrupted says why.

    Raises:
        StorageError: the folder cannot be written.
        InvalidFile: what came back is no run of this harness.
    """
    folder = store.folder(plan)
    with held(folder, lambda _: None, Stop(), wait=wait):
        known = store.find(plan)
        if known is not None and known.status == "ok":
            return known
        back = folder.attempt.path.with_name(".back")
        try:
            _unpack(data, back)
            record = read_json(back / WHOLE / "record.json", RunRecord)
            if stop is not None and stop.asked:
                record = because(record, interrupted(stop.reason))
                write_json(back / WHOLE / "record.json", record)
            for path in (back / BASE).glob("*"):
                keep_base(path.name, store.root, partial(_copy_base, path))
            if store.folder(record.plan) == folder:
                folder.take(back / WHOLE)
                return record
            return _take_smaller(back / WHOLE, record, store, wait=wait)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where=folder.path) from None
        finally:
            shutil.rmtree(back, ignore_errors=True)


def _copy_base(path: Path, folder: Path) -> None:
    shutil.copytree(path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(DIGESTS))


def _take_smaller(source: Path, record: RunRecord, store: RunStore, *, wait: bool) -> RunRecord:
    """File the run of a smaller plan under that plan, unless it has been run well here."""
    folder = store.folder(record.plan)
    with held(folder, lambda _: None, Stop(), wait=wait):
        known = store.find(record.plan)
        if known is not None and known.status == "ok":
            return known
        folder.take(source)
    return record

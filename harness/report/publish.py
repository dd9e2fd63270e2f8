"""Publish: the records behind a report, without any text of the data, to be kept beside it."""

from __future__ import annotations

import glob
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.errors import StorageError
from harness.records.record import Problem, RunRecord, Score
from harness.records.store import BrokenRun, RunStore, StoredRun
from harness.report.build import ReportRequest, build_report
from harness.report.data import sample_texts
from harness.report.item_names import are_numbers, are_places, for_publishing, were_published
from harness.report.pairing import COLUMNS, read_table
from harness.report.trust import trusted
from harness.report.write import write_report
from harness.spec.plan import Plan, RunRequest
from harness.spec.storage import read_json, write_bytes, write_json

ABSOLUTE_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+)+[/\\](?=[\w.@+~-])")
RECORDS = "records"
REQUEST = "request.json"


def is_published(folder: Path) -> bool:
    """Whether ``folder`` holds a report that its records can give again."""
    return (folder / RECORDS / REQUEST).is_file()


def publish_report(runs: Iterable[StoredRun], request: ReportRequest, folder: Path) -> Path:
    """Publish the runs of a suite below ``folder`` and write their report there.

    Returns:
        The path of ``report.md``. :func:`rebuild_report` makes the same bytes again.
    """
    publish((run for run in runs if run.record.plan.suite == request.suite), folder)
    write_json(folder / RECORDS / REQUEST, request)
    return rebuild_report(folder, folder)


def rebuild_report(published: Path, folder: Path) -> Path:
    """Write the report of published records anew into ``folder``.

    Raises:
        HarnessError: the request or a record cannot be read.
    """
    request = read_json(published / RECORDS / REQUEST, ReportRequest)
    runs = []
    for item in trusted(RunStore(published / RECORDS).scan(request.suite)):
        if isinstance(item, BrokenRun):
            raise item.error
        runs.append(item)
    return write_report(build_report(runs, (), request), folder)


def publish(
    runs: Iterable[StoredRun], folder: Path, has_items: Callable[[StoredRun], bool] = lambda _: True
) -> Path:
    """Copy what a report needs of ``runs`` to ``folder/records``; earlier copies are replaced.

    Item and cluster names become hashes unless they are places in a list, from 0; those of runs
    that were published before stay as they are. Other columns of the items are dropped,
    generations are kept only where their prompt belongs to the bundled corpus, logs are dropped,
    and absolute paths are cut to their last part. Scores taken before training keep their value
    only, and so do those of runs for which ``has_items`` is false.

    Returns:
        The folder of the copies, which :class:`harness.records.store.RunStore` reads.

    Raises:
        StorageError: the folder cannot be written.
    """
    root = folder / RECORDS
    chosen = [run for run in runs if root not in run.folder.path.parents]
    try:
        if root.is_dir():
            shutil.rmtree(root)
    except OSError as error:
        raise StorageError(f"cannot replace: {error.strerror}", where=root) from None
    return add_records(chosen, folder, has_items)


def add_records(
    runs: Iterable[StoredRun], folder: Path, has_items: Callable[[StoredRun], bool] = lambda _: True
) -> Path:
    """Copy runs to ``folder/records`` as :func:`publish` does, beside what is there.

    Items are named as those of the same score that are there already, since they are paired by
    their names: older harnesses made hashes of places too.

    Returns:
        The folder of the copies.
    """
    root = folder / RECORDS
    store = RunStore(root)
    naming = _Naming(root)
    for run in runs:
        target = store.folder(run.record.plan)
        named = naming if has_items(run) else None
        scores = tuple(
            _publish_score(score, run, target.path, named) for score in run.record.scores
        )
        store.write(_clean(run.record, scores))
    return root


class _Naming:
    """How the items of each score are named below ``root``: by their numbers, or by hashes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[str, dict[str, bool]] = {}

    def clean(self, file: str, column: str, names: list[Any]) -> list[str]:
        """The names as those in the files called ``file`` below the root, if there are any."""
        if file not in self._held:
            self._held[file] = self._look(file)
        numbers = self._held[file].get(column)
        if numbers is None:
            numbers = are_places(map(str, names))
        return for_publishing(names, keep_numbers=numbers)

    def _look(self, file: str) -> dict[str, bool]:
        """Of both columns, whether they hold numbers; nothing where there is no such file."""
        found = min(self._root.glob(f"*/*/*/items/{glob.escape(file)}"), default=None)
        table = None if found is None else read_table(found)
        if table is None:
            return {}
        return {column: are_numbers(table[column]) for column in ("item", "cluster")}


def _publish_score(score: Score, run: StoredRun, target: Path, naming: _Naming | None) -> Score:
    """The score with its items, unless ``naming`` is none, written below ``target``."""
    table = None
    if naming is not None and score.items is not None and score.stage == "after":
        table = read_table(run.folder.path / score.items)
    items = digest = None
    if table is not None and naming is not None and score.items is not None:
        source = run.folder.path / score.items
        kept = source.read_bytes() if were_published(source) else None
        items = f"items/{source.name}"
        content = kept or _items_bytes(table, source.name, naming)
        digest = hashlib.sha256(content).hexdigest()
        write_bytes(target / items, content)
    details = {key: cut_paths(value) for key, value in score.details.items()}
    changes = {"items": items, "items_sha256": digest, "details": details}
    return score.model_copy(update=changes)


def _items_bytes(table: dict[str, list[Any]], file: str, naming: _Naming) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    clean = pa.table(
        {
            "item": naming.clean(file, "item", table["item"]),
            "cluster": naming.clean(file, "cluster", table["cluster"]),
            "numerator": pa.array(table["numerator"], pa.float64()),
            "denominator": pa.array(table["denominator"], pa.float64()),
        }
    ).select(COLUMNS)
    buffer = io.BytesIO()
    # A study has thousands of these files of a few hundred rows.
    pq.write_table(
        clean,
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=["cluster", "denominator"],
        column_encoding={"item": "DELTA_BYTE_ARRAY"},
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()


def _clean(record: RunRecord, scores: tuple[Score, ...]) -> RunRecord:
    bundled = sample_texts()
    problem = record.problem
    if problem is not None:
        problem = Problem(
            kind=problem.kind,
            phase=problem.phase,
            step=problem.step,
            message=str(cut_paths(problem.message.partition("\n")[0])),  # the rest may quote data
        )
    generations = tuple(item for item in record.generations if item.prompt in bundled)
    return record.model_copy(
        update={
            "plan": without_folders(record.plan),
            "scores": scores,
            "problem": problem,
            "generations": generations,
        }
    )


def without_folders(plan: Plan) -> Plan:
    """The plan with data named by its last part; such paths are no part of its fingerprint.

    Where a path is part of it, for want of a hash of the content, it stays: it names the run.
    """
    corpus, score, model = plan.corpus, plan.score, plan.model
    if plan.model_sha256 is not None and model.source.kind == "folder":
        source = model.source.model_copy(update={"path": Path(model.source.path).name})
        model = model.model_copy(update={"source": source})
    if plan.corpus_sha256 is not None:
        corpus = corpus.model_copy(update={"source": Path(corpus.source).name})
    if score.data_folder is not None:
        score = score.model_copy(update={"data_folder": Path(score.data_folder).name})
    request = None if plan.request is None else _cut_request(plan.request)
    named = {"corpus": corpus, "score": score, "model": model, "request": request}
    return plan.model_copy(update=named)


def _cut_request(request: RunRequest) -> RunRequest:
    """The request with absolute paths cut to their last part; relative ones stay as typed."""
    settings = []
    for setting in request.settings:
        key, equals, value = setting.partition("=")
        settings.append(f"{key}{equals}{_last_part(value)}")
    names = {"variant": _last_part(request.variant), "suite": _last_part(request.suite)}
    return request.model_copy(update=names | {"settings": tuple(settings)})


def _last_part(typed: str) -> str:
    path = Path(typed.strip().strip("\"'"))
    return path.name if path.is_absolute() else str(cut_paths(typed))


def cut_paths(value: Any) -> Any:
    """The same plain data with absolute paths cut to their last part."""
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub("", value)
    if isinstance(value, list):
        return [cut_paths(item) for item in value]
    if isinstance(value, dict):
        return {key: cut_paths(item) for key, item in value.items()}
    return value

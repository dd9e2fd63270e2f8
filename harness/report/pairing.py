"""Pairing: per-item values of several runs, read and brought onto common items and clusters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records.record import RunRecord, Score
from harness.report.item_names import alike, were_published
from harness.report.origins import OF_CORPUS, settled, weights_of
from harness.report.rows import Row
from harness.report.statistics.noise import Floats

COLUMNS = ["item", "cluster", "numerator", "denominator"]
DOCUMENT = "doc_hash"
SHORTENED = ("window", "stride", "cut_tokens")  # details of a score


@dataclass(frozen=True, order=True)
class ScoreKey:
    """What makes two scores the same quantity. The precision it was taken in is part of it."""

    task: str
    metric: str
    precision: str
    stage: str = "after"

    @property
    def title(self) -> str:
        """The name shown to readers."""
        plain = self.task in ("held_out", self.metric)
        name = self.metric if plain else f"{self.task} {self.metric}"
        return name if self.precision == "training" else f"{name} ({self.precision})"

    @property
    def stem(self) -> str:
        """The name used in files and anchors."""
        parts = (self.task, self.metric, self.precision)
        text = "-".join(parts if self.stage == "after" else (*parts, self.stage))
        return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)

    @classmethod
    def named(cls, text: str) -> ScoreKey:
        """The score of the model as trained that is called "task metric", or by its metric."""
        task, _, metric = text.rpartition(" ")
        return cls(task or ("held_out" if metric == "perplexity" else metric), metric, "training")

    def is_called(self, text: str) -> bool:
        """Whether ``text`` is its full name, or its metric alone."""
        return text in (f"{self.task} {self.metric}", self.metric, self.title)

    def find(self, record: RunRecord) -> Score | None:
        """A record's score of this key."""
        return record.score(self.task, self.metric, self.stage, self.precision)


@dataclass(frozen=True)
class Aligned:
    """Cluster sums of the runs of a comparison, all on the same items.

    ``numerator`` and ``denominator`` have shape (clusters, runs); run ``i`` belongs to the row
    ``labels[i]`` and has seed ``seeds[i]``. ``group`` holds the cluster of each item, shape
    (items,). Where every item is right (1) or wrong (0), ``answers`` holds that, shape
    (items, runs).
    """

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    trains: tuple[bool, ...]
    numerator: Floats
    denominator: Floats
    group: NDArray[np.intp]
    answers: NDArray[np.int8] | None = None

    @property
    def items(self) -> int:
        """How many items every run answered."""
        return len(self.group)

    @property
    def clusters(self) -> int:
        """How many groups the items form; items of one conversation tree are one group."""
        return len(self.numerator)

    @property
    def sizes(self) -> Floats:
        """Items in each group, shape (clusters,)."""
        return np.bincount(self.group, minlength=self.clusters).astype(np.float64)

    @property
    def weights(self) -> Floats:
        """What each group carries, in units of the denominator, shape (clusters,)."""
        weights: Floats = self.denominator.mean(axis=1)
        return weights

    def take(self, runs: Sequence[int]) -> Aligned:
        """Only these of the runs, on the same items."""
        return replace(
            self,
            labels=tuple(self.labels[run] for run in runs),
            seeds=tuple(self.seeds[run] for run in runs),
            trains=tuple(self.trains[run] for run in runs),
            numerator=np.ascontiguousarray(self.numerator[:, runs]),
            denominator=np.ascontiguousarray(self.denominator[:, runs]),
            answers=None if self.answers is None else self.answers[:, runs],
        )


@dataclass
class Reading:
    """What was read of one score: the aligned runs, and which rows had to stay out, and why."""

    aligned: Aligned | None = None
    excluded: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredItems:
    """What an items file holds: names of items and of their groups, and the values of each.

    ``documents`` are lm-eval's digests of what each item asks; empty where the file has none.
    Names that were ``published`` are hashes, or places.
    """

    names: tuple[Any, ...]
    cluster: tuple[Any, ...]
    numerator: Floats
    denominator: Floats
    documents: tuple[Any, ...] = ()
    published: bool = False


@dataclass(frozen=True)
class _Column:
    label: str
    seed: int
    trains: bool
    values: StoredItems
    data: str | None = None  # digest of the folder with task data


def read_file(path: Path) -> StoredItems | None:
    """The items in a file, or None where they cannot be read or weigh nothing."""
    table = read_table(path)
    if table is None or not sum(table["denominator"]) > 0:
        return None
    return StoredItems(
        names=tuple(table["item"]),
        cluster=tuple(table["cluster"]),
        numerator=np.asarray(table["numerator"], dtype=np.float64),
        denominator=np.asarray(table["denominator"], dtype=np.float64),
        documents=tuple(table.get(DOCUMENT, ())),
        published=were_published(path),
    )


class KeptItems:
    """Reads items files as :func:`read_file` does, each once; equal names are kept once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[Path, StoredItems] = {}
        self._names: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def __call__(self, path: Path) -> StoredItems | None:
        """The items in a file that no longer changes; one that cannot be read is tried again."""
        known = self._known.get(path)
        if known is None and (found := read_file(path)) is not None:
            names = self._names.setdefault(found.names, found.names)
            cluster = self._names.setdefault(found.cluster, found.cluster)
            documents = self._names.setdefault(found.documents, found.documents)
            known = self._known[path] = replace(
                found, names=names, cluster=cluster, documents=documents
            )
        return known


def read_items(
    rows: Sequence[Row], key: ScoreKey, read: Callable[[Path], StoredItems | None] = read_file
) -> Reading:
    """Read and align the items of one score over all finished runs.

    Rows under another model, corpus or way to take the score are left out, since equal item names
    would not mean equal items there; so are runs without items, or on other items than most.
    """
    reading = Reading()
    kept = [row for row in rows if row.finished]
    protocols = [_protocol(row, key) for row in kept]
    kept = _most(kept, protocols, "another model, corpus or way to score", reading)
    weights = settled([weights_of(row.plan) for row in kept])
    kept = _most(kept, weights, "other weights under the same name", reading)
    columns = [column for row in kept for column in _columns_of(row, key, reading, read)]
    if key.task not in OF_CORPUS and not all(column.values.documents for column in columns):
        columns = _on_the_same_data(columns, reading)
    reading.aligned = _align(_named_alike(columns), reading)
    return reading


def _named_alike(columns: list[_Column]) -> list[_Column]:
    """The runs with the names of published records, where one of them has those."""
    published = [column.values.published for column in columns]
    names = alike([column.values.names for column in columns], published)
    clusters = alike([column.values.cluster for column in columns], published)
    return [
        replace(column, values=replace(column.values, names=name, cluster=cluster))
        for column, name, cluster in zip(columns, names, clusters, strict=True)
    ]


def _most(rows: list[Row], values: list[str], why: str, reading: Reading) -> list[Row]:
    """The rows with the value that most of them have; the others are left out."""
    if not rows:
        return []
    usual = Counter(values).most_common(1)[0][0]
    paired = list(zip(rows, values, strict=True))
    reading.excluded |= {row.label: why for row, value in paired if value != usual}
    return [row for row, value in paired if value == usual]


def _on_the_same_data(columns: list[_Column], reading: Reading) -> list[_Column]:
    """The runs on the task data of most, where not all items are known by their documents."""
    data = settled([column.data for column in columns])
    usual = Counter(data).most_common(1)[0][0] if data else ""
    paired = list(zip(columns, data, strict=True))
    why = "other task data"
    reading.excluded |= {column.label: why for column, own in paired if own != usual}
    return [column for column, own in paired if own == usual]


def _protocol(row: Row, key: ScoreKey) -> str:
    """What must agree before items of two runs may be taken for the same."""
    plan = row.plan
    unnamed = {"source"} if plan.corpus_sha256 else set()
    corpus = plan.corpus.model_dump_json(exclude=unnamed)
    return repr((plan.model.name, plan.corpus_sha256, corpus, _asked(row, key)))


def _asked(row: Row, key: ScoreKey) -> object:
    """The settings that decide what an item of a score asks, as the score's record has them.

    So do details that tell of a shorter context, such as a soft prompt leaves. A record of before
    scores had them says so with its suite's settings instead, all but how many items there are.
    """
    scores = [key.find(run.record) for run in row.runs]
    written = [score.details for score in scores if score and "asked" in score.details]
    if written:
        cut = {name: written[0][name] for name in SHORTENED if written[0].get(name)}
        return sorted(cut.items()), written[0]["asked"]
    tasks = [item.model_dump(exclude={"limit"}) for item in row.plan.score.tasks]
    return tasks, row.plan.score.model_dump(exclude={"tasks", "generations", "data_folder"})


def _columns_of(
    row: Row, key: ScoreKey, reading: Reading, read: Callable[[Path], StoredItems | None]
) -> list[_Column]:
    columns = []
    for run in row.runs:
        score = key.find(run.record) if run.record.status == "ok" else None
        if score is None:
            continue
        values = None if score.items is None else read(run.folder.path / score.items)
        if values is None:
            reading.excluded[row.label] = "no per-item values"
        else:
            plan = run.record.plan
            columns.append(_Column(row.label, plan.seed, plan.trains, values, plan.data_sha256))
    return columns


def read_table(path: Path) -> dict[str, list[Any]] | None:
    """The four statistical columns of an items file, or None where they cannot be read.

    With them what names the documents, where the file has that.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        with pq.ParquetFile(path) as file:
            wanted = [*COLUMNS, DOCUMENT] if DOCUMENT in file.schema_arrow.names else COLUMNS
            data: dict[str, list[Any]] = file.read(wanted, use_threads=False).to_pydict()
    except (pa.ArrowException, OSError, ValueError):  # the last of these: text that is not UTF-8
        return None
    if not set(COLUMNS) <= set(data):
        return None
    numbers = data["numerator"] + data["denominator"]
    return data if all(isinstance(n, float) and math.isfinite(n) for n in numbers) else None


def _align(columns: list[_Column], reading: Reading) -> Aligned | None:
    """Bring runs onto the item set that most of them share."""
    if not columns:
        return None
    columns = _on_the_same_documents(columns, reading)
    wanted = Counter(frozenset(column.values.names) for column in columns).most_common(1)[0][0]
    kept = [column for column in columns if wanted <= frozenset(column.values.names)]
    for column in columns:
        if not wanted <= frozenset(column.values.names):
            reading.excluded[column.label] = "scored on other items"
    first = kept[0].values
    items = [item for item in first.names if item in wanted]
    cluster_of = dict(zip(first.names, first.cluster, strict=True))
    numbers = {name: n for n, name in enumerate(dict.fromkeys(cluster_of[item] for item in items))}
    if len(numbers) < 2:
        reading.excluded |= dict.fromkeys(
            (column.label for column in kept), "fewer than two groups of items"
        )
        return None
    group = np.array([numbers[cluster_of[item]] for item in items], dtype=np.intp)
    above = np.column_stack([_ordered(c, c.values.numerator, items) for c in kept])
    below = np.column_stack([_ordered(c, c.values.denominator, items) for c in kept])
    return Aligned(
        labels=tuple(column.label for column in kept),
        seeds=tuple(column.seed for column in kept),
        trains=tuple(column.trains for column in kept),
        numerator=sums(above, group),
        denominator=sums(below, group),
        group=group,
        answers=right_or_wrong(above, below),
    )


def _on_the_same_documents(columns: list[_Column], reading: Reading) -> list[_Column]:
    """The runs that asked what most did under the same names, as far as documents are known."""
    asked: dict[Any, Counter[Any]] = {}
    alike: dict[tuple[int, int], list[StoredItems]] = {}
    for values in (column.values for column in columns):
        alike.setdefault((id(values.names), id(values.documents)), []).append(values)
    for shared in alike.values():  # what runs share is looked at once, for all of them
        for name, document in zip(shared[0].names, shared[0].documents, strict=False):
            asked.setdefault(name, Counter())[document] += len(shared)
    if all(len(found) == 1 for found in asked.values()):
        return columns
    usual = {name: found.most_common(1)[0][0] for name, found in asked.items()}
    kept = []
    for column in columns:
        pairs = zip(column.values.names, column.values.documents, strict=False)
        if all(usual[name] == document for name, document in pairs):
            kept.append(column)
        else:
            reading.excluded[column.label] = "other task data"
    return kept


def _ordered(column: _Column, values: Floats, items: list[Any]) -> Floats:
    """A column's values in the common order of items."""
    if list(column.values.names) == items:
        return values
    place = {item: index for index, item in enumerate(column.values.names)}
    return values[[place[item] for item in items]]


def sums(values: Floats, group: NDArray[np.intp]) -> Floats:
    """Sums of items (items, runs) per group (clusters, runs)."""
    found = [np.bincount(group, weights=column) for column in values.T]
    return np.column_stack(found).astype(np.float64)


def right_or_wrong(above: Floats, below: Floats) -> NDArray[np.int8] | None:
    """The answers where each is 0 or 1 of 1, both of shape (items, runs)."""
    if not (below == 1).all() or not ((above == 0) | (above == 1)).all():
        return None
    return above.astype(np.int8)

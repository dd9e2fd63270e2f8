"""Browse: per-item results of all rows with their texts, as data of a page of its own."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.report.build import Report
from harness.report.evidence import Evidence
from harness.report.markdown import harmless
from harness.report.rows import Row
from harness.report.scoring import Scoring
from harness.report.write import as_script, fill_page

NUMBERS = ("item", "numerator", "denominator")
TEXTS = ("prompt", "target", "continuations", "log_likelihoods", "answer")
LONGEST = 6_000  # characters of one text
MOST = 16_000_000  # characters of all texts
DIGITS = 9  # of a value: two log-losses near 10 that differ by 0.01 % keep four digits


@dataclass(frozen=True)
class ItemText:
    """What one item asks: prompt, reference and, where there are some, the choices."""

    prompt: str = ""
    reference: str = ""
    choices: tuple[str, ...] = ()


@dataclass
class ItemResults:
    """One score, item by item.

    ``values`` are ratios of numerator to denominator, means over the seeds of a row, and
    ``answers`` those of its first seed: by row and then by item.
    """

    scoring: Scoring
    items: dict[str, ItemText] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    def by_disagreement(self) -> list[str]:
        """Items with those first on which the rows are furthest apart."""
        apart = {}
        for name in self.items:
            found = [values[name] for values in self.values.values() if name in values]
            apart[name] = max(found) - min(found) if found else 0.0
        return sorted(self.items, key=lambda name: -apart[name])


class TextStore:
    """Texts of a page, each kept once, up to a number of characters in all."""

    def __init__(self, most: int = MOST) -> None:
        """Take at most ``most`` characters."""
        self.texts: list[str] = []
        self.left_out = 0
        self._room = most
        self._places: dict[str, int] = {}

    def place(self, text: str, *, end: bool = False) -> int:
        """Where a text is kept, cut where it is very long; -1 for none and for no room.

        With ``end`` the end of a long text is kept: a prompt with examples asks at its end.
        """
        if not text:
            return -1
        if len(text) > LONGEST:
            text = f"[…] {text[-LONGEST:]}" if end else f"{text[:LONGEST]} […]"
        if text not in self._places:
            if len(text) > self._room:
                self.left_out += 1
                return -1
            self._room -= len(text)
            self._places[text] = len(self.texts)
            self.texts.append(harmless(text))
        return self._places[text]


def has_items(report: Report) -> bool:
    """Whether there is a page of items."""
    records = [record for row in report.evidence.rows for record in row.finished]
    return any(score.items for record in records for score in record.scores)


def items_page(report: Report, back: str = "report.html") -> str | None:
    """The page as HTML, or None where there are no items; ``back`` is the report's address.

    It holds text of the data, so that it belongs beside runs and not into a published report.
    """
    data = item_data(report.evidence)
    if data is None:
        return None
    own = {"title": report.title, "data": as_script(data), "back": back}
    return fill_page("items.html.j2", ("page.css", "items.css"), ("theme.js", "items.js"), own)


def item_data(evidence: Evidence, most: int = MOST) -> dict[str, Any] | None:
    """The data of the page, or None where no finished run has values of its items.

    Args:
        evidence: rows and scores of a suite.
        most: characters of text to hold; items on which the rows agree most lose theirs first.
    """
    found = [read_results(evidence.ranked, scoring) for scoring in evidence.scorings]
    shown = [results for results in found if results.items]
    if not shown:
        return None
    shown.sort(key=lambda results: not any(item.prompt for item in results.items.values()))
    store = TextStore(most)
    labels = [row.label for row in evidence.ranked if row.finished]
    return {
        "rows": [
            {"label": harmless(row.label), "seeds": len(row.seeds)}
            for row in evidence.ranked
            if row.finished
        ],
        "reference": evidence.reference,
        "scores": [_score(results, labels, store) for results in shown],
        "texts": store.texts,
        "left_out": store.left_out,
    }


def _score(results: ItemResults, labels: Sequence[str], store: TextStore) -> dict[str, Any]:
    """One score with its items by number, in their order in the file."""
    scoring, place = results.scoring, {}
    for name in results.by_disagreement():
        item = results.items[name]
        place[name] = {
            "p": store.place(item.prompt, end=True),
            "t": store.place(item.reference),
            "c": [store.place(choice) for choice in item.choices],
            "a": [store.place(results.answers[label].get(name, ""))
                  if label in results.answers else -1 for label in labels],
            "v": [_rounded(results.values.get(label, {}).get(name)) for label in labels],
        }  # fmt: skip
    return {
        "title": harmless(scoring.key.title),
        "better": scoring.scale.direction,
        "exp": scoring.scale.transform == "exp",
        "items": [{"id": harmless(name), **place[name]} for name in results.items],
    }


def _rounded(value: float | None) -> float | None:
    """As many digits as the page needs to subtract two values and show three of the rest."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


def read_results(rows: Iterable[Row], scoring: Scoring) -> ItemResults:
    """Read one score's items over all finished runs."""
    results = ItemResults(scoring)
    for row in rows:
        by_seed: list[dict[str, float]] = []
        for run in row.runs:
            score = scoring.key.find(run.record) if run.record.status == "ok" else None
            if score is None or score.items is None:
                continue
            first = not by_seed
            table = _read(run.folder.path / score.items, NUMBERS + (TEXTS if first else ()))
            if table is None:
                continue
            by_seed.append(_ratios(table))
            if first:
                _take_texts(results, row.label, table, scoring.key.metric)
        for name in {name for values in by_seed for name in values}:
            known = [values[name] for values in by_seed if name in values]
            results.values.setdefault(row.label, {})[name] = statistics.fmean(known)
    return results


def _ratios(table: Mapping[str, list[Any]]) -> dict[str, float]:
    """Value of each item that carries weight."""
    columns = zip(table["item"], table["numerator"], table["denominator"], strict=True)
    return {name: above / below for name, above, below in columns if below}


def _take_texts(
    results: ItemResults, label: str, table: Mapping[str, list[Any]], metric: str
) -> None:
    """What the items ask, where no earlier run said it, and what this run answered."""
    for index, name in enumerate(table["item"]):
        cells = {key: table[key][index] for key in TEXTS if table.get(key)}
        choices = tuple(str(choice) for choice in cells.get("continuations") or ())
        if not results.items.get(name, ItemText()).prompt:
            prompt, target = str(cells.get("prompt") or ""), str(cells.get("target") or "")
            results.items[name] = ItemText(prompt, _reference(target, choices), choices)
        answer = cells.get("answer") or likeliest(cells, choices, metric)
        if answer:
            results.answers.setdefault(label, {})[name] = str(answer)


def _reference(target: str, choices: Sequence[str]) -> str:
    """The right choice where the target is its number; the target itself otherwise."""
    number = int(target) if target.isdecimal() and len(target) < 4 else -1
    return choices[number].strip() if 0 <= number < len(choices) > 1 else target


def likeliest(cells: Mapping[str, Any], choices: Sequence[str], metric: str) -> str:
    """The likeliest choice; per character where the metric is normalised so, as lm-eval does."""
    found = cells.get("log_likelihoods") or ()
    if len(choices) < 2 or len(found) != len(choices):
        return ""
    if metric.partition(",")[0] == "acc_norm":
        found = [value / max(len(c.strip()), 1) for value, c in zip(found, choices, strict=True)]
    return choices[max(range(len(choices)), key=found.__getitem__)].strip()


def _read(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]] | None:
    """Those of the wanted columns that an items file has, or None where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in wanted if name in file.schema_arrow.names]
            table: dict[str, list[Any]] = file.read(columns, use_threads=False).to_pydict()
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table if set(NUMBERS) <= set(table) else None

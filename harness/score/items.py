"""Items: the per-item values behind a score, their parquet file, value and standard error."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from harness.errors import DivergedError
from harness.records.record import Score
from harness.spec.storage import write_bytes

Stage = Literal["before", "after"]
RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """What a number of a task means."""

    task: str
    name: str
    unit: str
    direction: Literal["lower", "higher"]
    transform: Literal["identity", "exp"] = "identity"
    headline: bool = False


@dataclass(frozen=True, eq=False)
class Items:
    """Rows behind one score; :class:`harness.records.record.Score` says what the columns mean."""

    item: Sequence[str]
    cluster: Sequence[str]
    numerator: npt.NDArray[np.float64]
    denominator: npt.NDArray[np.float64]
    extras: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def value(self, transform: Literal["identity", "exp"]) -> float:
        """``transform(sum(numerator) / sum(denominator))``."""
        ratio = float(self.numerator.sum() / self.denominator.sum())
        return math.exp(ratio) if transform == "exp" else ratio

    def standard_error(self, transform: Literal["identity", "exp"]) -> float | None:
        """Bootstrap over clusters, always with the same seed; None with fewer than two."""
        names, which = np.unique(np.asarray(self.cluster), return_inverse=True)
        if len(names) < 2:
            return None
        above = np.bincount(which, self.numerator)
        below = np.bincount(which, self.denominator)
        drawn = np.random.default_rng(0).multinomial(
            len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
        )
        bottom = drawn @ below
        ratios = (drawn @ above)[bottom > 0] / bottom[bottom > 0]
        return float(np.std(np.exp(ratios) if transform == "exp" else ratios, ddof=1))


@dataclass(frozen=True)
class Place:
    """Where and under which name scores are written: a run folder, a stage, a precision."""

    folder: Path
    stage: Stage
    precision: str

    def write(
        self,
        metric: Metric,
        items: Items,
        *,
        asked: dict[str, JsonValue],
        standard_error: float | None = None,
        details: dict[str, JsonValue] | None = None,
    ) -> Score:
        """Write the items below ``folder/items`` and make the score of them.

        ``asked`` holds the settings that decide what an item asks, but not how many there are:
        items of two runs are paired only where it is equal. Without ``standard_error`` it is
        bootstrapped over clusters.

        Raises:
            DivergedError: the value is not a finite number.
        """
        value = items.value(metric.transform)
        if not math.isfinite(value):
            raise DivergedError(f"{metric.name} of {metric.task} is {value}")
        name = file_name(metric.task, metric.name, self.stage, self.precision)
        digest = write_items(self.folder / "items" / name, items)
        if standard_error is None:
            standard_error = items.standard_error(metric.transform)
        return Score(
            task=metric.task,
            metric=metric.name,
            stage=self.stage,
            precision=self.precision,
            value=value,
            standard_error=standard_error,
            n=len(items.item),
            unit=metric.unit,
            direction=metric.direction,
            transform=metric.transform,
            items=f"items/{name}",
            items_sha256=digest,
            headline=metric.headline,
            details={**(details or {}), "asked": asked},
        )


def file_name(task: str, metric: str, stage: str, precision: str) -> str:
    """``<task>.<metric>.<stage>.<precision>.parquet``, unusual characters as in a URL.

    Different scores have different names: ``a/b`` becomes ``a%2Fb``, not ``a_b``.
    """
    parts = (task, metric, stage, precision)
    plain = (re.sub(r"[^A-Za-z0-9_@-]", _percent_encoded, part) for part in parts)
    return ".".join((*plain, "parquet"))


def _percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def write_items(path: Path, items: Items) -> str:
    """Write one parquet file whole or not at all; returns the SHA-256 (hex) of its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "item": pa.array(list(items.item), pa.string()),
            "cluster": pa.array(list(items.cluster), pa.string()),
            "numerator": pa.array(items.numerator, pa.float64()),
            "denominator": pa.array(items.denominator, pa.float64()),
            **{name: pa.array(list(values)) for name, values in items.extras.items()},
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()

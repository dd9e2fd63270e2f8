"""Documents: what lm-eval calls to read the bundled tasks' documents and judge a preference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(kind: str, documents: str = "", **_: Any) -> dict[str, Any]:
    """The split ``test``: documents of a kind, from the folder that the harness wrote them to."""
    from datasets import Dataset

    lines = (Path(documents) / f"{kind}.jsonl").read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def judge(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Accuracy of one pair; the first choice is the one that people ranked higher."""
    better, worse = (likelihood for likelihood, _ in results)
    sizes = [len(choice.encode()) for choice in doc["choices"]]
    return {
        "acc": _wins(better, worse),
        "acc_norm": _wins(better / sizes[0], worse / sizes[1]),
        "longer_wins": _wins(*sizes),
    }


def _wins(left: float, right: float) -> float:
    return 0.5 if left == right else float(left > right)

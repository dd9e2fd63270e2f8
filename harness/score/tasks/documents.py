"""Documents: what lm-eval calls to read the bundled tasks' documents and judge a preference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def held_out_replies(documents: str, **_: Any) -> dict[str, Any]:
    """The split ``test`` of the task of that name, from the folder its file was written to."""
    return _read(documents, "held_out_replies")


def preference(documents: str, **_: Any) -> dict[str, Any]:
    """The split ``test`` of the task of that name, from the folder its file was written to."""
    return _read(documents, "preference")


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


def _read(folder: str, task: str) -> dict[str, Any]:
    from datasets import Dataset

    lines = (Path(folder) / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}

"""What of a run must not depend on how often it was interrupted."""

from __future__ import annotations

from typing import Any

from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.spec.plan import Plan


def results(record: RunRecord) -> dict[str, Any]:
    """Everything of a record that must not depend on how often it was interrupted."""
    assert record.training is not None
    losses = [point.model_dump(exclude={"seconds"}) for point in record.training.losses]
    scores = [score.model_dump() for score in record.scores]
    kept = {"census", "corpus", "generations", "adapter_bytes", "status", "fingerprint"}
    tokens = record.training.tokens.model_dump()
    return {"losses": losses, "scores": scores, "tokens": tokens} | record.model_dump(include=kept)


def files(store: RunStore, plan: Plan) -> dict[str, bytes]:
    """Per-item values and adapter weights."""
    folder = store.folder(plan)
    found = [*folder.items.glob("*.parquet"), *folder.adapter.glob("*.safetensors")]
    return {path.name: path.read_bytes() for path in sorted(found)}

"""Records that no run has made, for tests of what is done with records."""

from __future__ import annotations

from harness.records.record import RunRecord
from harness.spec.plan import Plan


def record_of(plan: Plan, **fields: object) -> RunRecord:
    """A record of ``plan`` that ended well and found nothing, with ``fields`` changed."""
    data = {
        "plan": plan,
        "fingerprint": plan.fingerprint,
        "status": "ok",
        "started_at": "2026-01-02T03:04:05+00:00",
        "seconds": 1.5,
        "environment": None,
    }
    return RunRecord(**(data | fields))

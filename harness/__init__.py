"""A benchmark harness that compares fine-tuning variants under one fair protocol.

From Python::

    import harness

    harness.load_variant("qlora_nf4", settings=["adapter.r=32"])
    plans = harness.make_plans(["base", "qlora_nf4"], suite="quick", seeds=[0, 1])
    records = harness.run(plans)
    records = harness.read_records()
    report = harness.build_report("quick")

A :class:`Listener` given to ``run`` hears everything that happens meanwhile. Nothing heavy is
imported before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import build_report, load_variant, make_plans, read_records, run
    from harness.runs.listener import Listener

__version__ = "0.2.0"
__all__ = ["Listener", "build_report", "load_variant", "make_plans", "read_records", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    place = "harness.runs.listener" if name == "Listener" else "harness.api"
    return getattr(import_module(place), name)

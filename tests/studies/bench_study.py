"""What a study of ten thousand runs costs its driver: CPU time of each run, and memory.

Machines differ, so the time that Python's own ``json`` takes for the same records stands beside it.

``python -m tests.studies.bench_study [VARIANTS]`` lets runs take no time: 500 variants at 15
learning rates each, and two to five seeds of every variant at its default and at its best.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from harness.records.record import RunRecord
from harness.report.write import write_report
from harness.spec.plan import Plan
from harness.studies.page import make_page
from tests.studies.stub import Bench, StubExecutor, World
from tests.studies.test_drive import driver

TRIALS = 15


class Counted(StubExecutor):
    """Knows how much CPU time it took itself, which is not the driver's."""

    seconds = 0.0

    def run(self, plan: Plan) -> RunRecord:
        start = time.process_time()
        try:
            return super().run(plan)
        finally:
            self.seconds += time.process_time() - start


def json_seconds(executor: StubExecutor) -> float:
    """CPU time to read the records of all runs as plain data."""
    paths = [executor.store.folder(plan).record for plan in executor.ran]
    start = time.process_time()
    for path in paths:
        json.loads(path.read_text(encoding="utf-8"))
    return time.process_time() - start


def main(variants: int, folder: Path) -> None:
    """Drive the study to its end, then start again on its records, and write its page."""
    bench = Bench.of(
        folder, World(),
        variants=["lora_bf16"], reference="lora_bf16+adapter.r=1",
        grid={"adapter.r": list(range(1, variants + 1))},
        tune={"trials": TRIALS, "widenings": 0},
    )  # fmt: skip
    executor = Counted(bench.executor.store, World())
    start = time.process_time()
    driver(bench, executor).drive()
    runs, own = len(executor.ran), time.process_time() - start - executor.seconds
    print(f"driver: {runs:,} runs, {1000 * own / runs:.2f} ms of CPU time a run")
    print(f"json.loads of a record: {1000 * json_seconds(executor) / runs:.3f} ms of CPU time")
    start = time.process_time()
    agenda = bench.agenda()
    print(f"taken up again: {time.process_time() - start:.1f} s of CPU time")
    start = time.process_time()
    write_report(make_page(agenda, bench.steering), folder / "page")
    print(f"page: {time.process_time() - start:.1f} s of CPU time")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, Path(scratch))

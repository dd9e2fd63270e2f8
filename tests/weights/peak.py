"""Peak: a process that loads a model and says how much memory of its own that took."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path


def own_bytes() -> int:
    """Resident memory of this process that is not a page of some file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    msg = "no RssAnon in /proc/self/status"
    raise RuntimeError(msg)


def plain_allocator() -> dict[str, str]:
    """The environment without what would give a process another allocator, or set the usual one."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"GLIBC_TUNABLES", "LD_PRELOAD"} and not name.startswith("MALLOC_")
    }


class Watching:
    """Looks every two milliseconds."""

    def __init__(self) -> None:
        self.before = self.peak = own_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.002):
            self.peak = max(self.peak, own_bytes())

    def end(self) -> int:
        """Bytes at most beyond those at the start."""
        self._over.set()
        self._thread.join()
        return self.peak - self.before


def main(model: str) -> None:
    """Load NF4 with double quantization of a model's TOML, and print what it took."""
    from harness.records.events import Silence
    from harness.weights.census import take_census
    from harness.weights.fetch import fetch
    from harness.weights.load import load_base
    from tests.planned import planned

    small = planned("qlora_nf4_dq", "suite.model=" + model.replace("big", "small"))
    load_base(small, fetch(small.model, Silence()))  # what libraries take is not asked here
    plan = planned("qlora_nf4_dq", f"suite.model={model}")
    folder = fetch(plan.model, Silence())
    watching = Watching()
    base = load_base(plan, folder)
    taken = watching.end()
    print(json.dumps({"peak": taken, "weights": sum(r.bytes for r in take_census(base).rows)}))


if __name__ == "__main__":
    main(sys.argv[1])

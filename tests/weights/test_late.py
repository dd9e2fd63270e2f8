"""What a library marks to be compiled is compiled when it is called."""

from __future__ import annotations

import subprocess
import sys

import torch

from harness.weights.late import compiling_late

IMPORT = """
import sys, torch
from harness.weights.late import compile_late
compile_late()
import bitsandbytes
print("torch._inductor.compile_fx" in sys.modules)
"""


def doubled(values: torch.Tensor, by: int = 2) -> torch.Tensor:
    """Twice the values."""
    return values * by


def test_a_marked_function_is_compiled_at_its_first_call_with_its_settings() -> None:
    seen: list[dict[str, object]] = []
    own = torch.compile

    def compiler(function: object, **settings: object) -> object:
        seen.append(settings)
        return function

    torch.compile = compiler  # type: ignore[assignment]
    try:
        with compiling_late():
            plain = torch.compile(doubled, dynamic=False)
            decorated = torch.compile(fullgraph=True)(doubled)
            module = torch.compile(torch.nn.Linear(1, 1), mode="default")
        assert torch.compile is compiler
    finally:
        torch.compile = own
    assert seen == [{"mode": "default"}], "a module is compiled at once"
    assert isinstance(module, torch.nn.Linear)
    assert plain.__doc__ == "Twice the values."
    for _ in range(2):
        assert plain(torch.tensor(3), by=3) == 9
        assert decorated(torch.tensor(3)) == 6
    assert seen[1:] == [{"dynamic": False}, {"fullgraph": True}]


def test_bitsandbytes_does_not_load_the_compiler() -> None:
    found = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    assert found.stdout.split()[-1] == "False"

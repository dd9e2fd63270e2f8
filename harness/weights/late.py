"""Late: what libraries mark to be compiled is compiled when called, not when imported."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]


def compile_late() -> None:
    """Let ``torch.compile`` of a function do its work at the first call, in this whole process.

    Torch loads its compiler as soon as a function is marked, which takes seconds; bitsandbytes and
    hqq mark functions that few runs ever call.
    """
    import torch

    if not hasattr(torch.compile, "__wrapped__"):
        torch.compile = _late(torch.compile)


@contextmanager
def compiling_late() -> Iterator[None]:
    """See :func:`compile_late`; torch is left as it was."""
    import torch

    before = torch.compile
    compile_late()
    try:
        yield
    finally:
        torch.compile = before


def _late(compiler: Function) -> Function:
    @functools.wraps(compiler)
    def mark(model: Any = None, **settings: Any) -> Any:
        if model is None:
            return functools.partial(mark, **settings)
        if not isinstance(model, types.FunctionType):
            return compiler(model, **settings)
        return _compiled_at_first_call(compiler, model, settings)

    return mark


def _compiled_at_first_call(
    compiler: Function, function: Function, settings: dict[str, Any]
) -> Function:
    compiled: Function | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            compiled = compiler(function, **settings)
        return compiled(*args, **kwargs)

    return call

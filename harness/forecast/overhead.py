"""Overhead: what a process needs beside the tensors that are counted.

These figures were measured, on Linux with torch 2.11 (H100) and 2.13 (CPU); all others are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from harness.spec.model import WheelSource
from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES
from harness.weights.headers import stored_bytes
from harness.weights.shape import ParameterCount

MIB = 1 << 20
# A child after imports and corpus preparation: 615 and 630 MB resident.
LIBRARIES_BYTES = 600 * MIB
# Trainer library, optimizer and the scratch of the CPU's matrix library.
TRAINER_BYTES = 270 * MIB
# The C library's heap keeps freed blocks between live ones: resident over live bytes of a step.
HEAP_SHARE = 1.3
# Of each float32 weight that is quantized while it loads, what the heap keeps of freed copies:
# SmolLM2 on a CPU, loaded in 1.21 GiB (float32) and 1.39 GiB (bfloat16).
FREED_BYTES = 2
# cuBLAS keeps a workspace of 32 MiB (CUBLAS_WORKSPACE_CONFIG=:4096:8) for each thread that uses
# it: one for forward passes, one more for backward passes.
CUBLAS_BYTES = 32 * MIB
# The driver's own memory for a process (context, kernels), outside torch's allocator: 1.16 GiB on
# an H100 after training and scoring.
CONTEXT_BYTES = 1200 * MIB

# Buffers of NCCL 2.28 between two GPUs of one host, outside torch's allocator: the whole device
# held 900 MiB more than without them on an H100 (reports/h100x2).
NCCL_BYTES = 900 * MIB


@dataclass(frozen=True)
class Overhead:
    """Bytes beside tensors: while loading, while scoring, while training; and the heap's share."""

    loading: int
    scoring: int
    training: int
    heap_share: float


def overhead(plan: Plan, counts: ParameterCount) -> Overhead:
    """What the process of ``plan`` needs beside its tensors."""
    if plan.device.kind == "cuda":
        # one layer at a time stands beside its quantized copy
        loading = counts.largest * DTYPE_BYTES[plan.precision.compute]
        return Overhead(loading, CUBLAS_BYTES, 2 * CUBLAS_BYTES, 1.0)
    stored = _files(plan, counts.total)
    floor = LIBRARIES_BYTES + _left_by_quantizing(plan, counts, set(stored))
    loading = floor + _converted_bytes(plan, stored)
    if "float32" in stored:
        loading += counts.quantized * FREED_BYTES
    return Overhead(loading, floor, floor + TRAINER_BYTES, HEAP_SHARE)


def _left_by_quantizing(plan: Plan, counts: ParameterCount, stored: Set[str]) -> int:
    """What stays of the weights that were quantized: the pages of the file, or freed copies.

    Of a file in another dtype no page stays, and copies that were made of 16-bit weights are used
    again for those that are quantized next.
    """
    if stored and not stored & {plan.precision.compute, "float32"}:
        return 0
    return counts.quantized * DTYPE_BYTES[plan.precision.compute]


def _converted_bytes(plan: Plan, stored: Mapping[str, int]) -> int:
    """Pages of the file that are read to make weights of another dtype, mapped until the end."""
    return sum(size for dtype, size in stored.items() if dtype != plan.stored)


def _files(plan: Plan, parameters: int) -> dict[str, int]:
    """Bytes of the weights on the disk by dtype; empty where that is known once they are here."""
    if isinstance(plan.model.source, WheelSource):  # converted when it was unpacked
        return {"float32": parameters * DTYPE_BYTES["float32"]}
    return stored_bytes(plan.model) or {}


def unread_bytes(plan: Plan, weights: int) -> int:
    """Weights that stay on the disk until they are first used: mapped as they are stored."""
    as_stored = (
        plan.device.kind == "cpu"
        and plan.quantization.type == "none"
        and set(_files(plan, 1)) == {plan.stored}
    )
    return weights if as_stored else 0

"""Check: every kernel against PyTorch, and the fast path against the plain one, on this GPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from torch.nn import functional

from harness.train.stream import ops
from harness.train.stream import kernels


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """‖out − ref‖ / ‖ref‖."""
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def show(name: str, value: float, limit: float) -> None:
    """Print one comparison."""
    print(f"{'ok  ' if value <= limit else 'FAIL'} {name} {value:.2e} (limit {limit:.0e})")


def check_dequantize() -> None:
    """Both code books, with and without nested constants."""
    import bitsandbytes.functional as bnb

    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            weight = torch.randn(1024, 2560, device="cuda", dtype=torch.bfloat16) * 0.02
            packed, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
            reference = bnb.dequantize_4bit(packed, state)
            out = torch.full_like(weight, float("nan"))
            kernels.dequantize_into(out, packed, state)
            show(f"dequantize {kind} nested={nested}", error(out, reference), 1e-3)


def check_elementwise() -> None:
    """Activations and their gradients."""
    wide = torch.randn(300, 5000, device="cuda", dtype=torch.bfloat16)
    x = wide[:, 1000:4000]
    reference = functional.gelu(x.double(), approximate="tanh")
    show("gelu", error(kernels.gelu(x), reference), 5e-3)
    slope = torch.randn(300, 3000, device="cuda", dtype=torch.bfloat16)
    leaf = x.double().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(
        functional.gelu(leaf, approximate="tanh"), leaf, slope.double()
    )
    out = slope.clone()
    kernels.gelu_back_(x, out)
    show("gelu_back x", error(x, gradient), 5e-3)
    show("gelu_back y", error(out, reference), 5e-3)
    x = torch.randn(300, 6000, device="cuda", dtype=torch.bfloat16)
    leaf = x.double().requires_grad_()
    y = functional.silu(leaf[:, :3000]) * leaf[:, 3000:]
    show("silu_mul", error(kernels.silu_mul(x), y), 5e-3)
    (gradient,) = torch.autograd.grad(y, leaf, slope.double())
    out = slope.clone()
    kernels.silu_mul_back_(x, out)
    show("silu_back x", error(x, gradient), 5e-3)
    show("silu_back y", error(out, y), 5e-3)


def check_norms() -> None:
    """Both norms and their gradients."""
    for bias in (True, False):
        x = torch.randn(300, 2560, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(2560, device="cuda", dtype=torch.bfloat16)
        norm = ops.Norm(weight, torch.randn_like(weight) if bias else None, 1e-5)
        leaf = x.double().requires_grad_()
        if bias:
            y = functional.layer_norm(leaf, [2560], weight.double(), norm.bias.double(), 1e-5)
        else:
            y = functional.rms_norm(leaf, [2560], weight.double(), 1e-5)
        show(f"norm bias={bias}", error(norm.forward(x), y), 5e-3)
        slope = torch.randn_like(x)
        total = torch.randn_like(x)
        (gradient,) = torch.autograd.grad(y, leaf, slope.double())
        reference = total.double() + gradient
        norm.backward_(x, slope, total)
        show(f"norm back bias={bias}", error(total, reference), 5e-3)


def check_rest() -> None:
    """Loss, rotation and attention at both models' head shapes."""
    logits = torch.randn(70, 51200, device="cuda", dtype=torch.bfloat16) * 3
    targets = torch.randint(0, 51200, (70,), device="cuda")
    leaf = logits.double().requires_grad_()
    reference = functional.cross_entropy(leaf, targets, reduction="none")
    (gradient,) = torch.autograd.grad(reference.sum() * 0.01, leaf)
    losses = kernels.cross_entropy_(logits, targets, torch.tensor(0.01, device="cuda"))
    show("cross entropy", error(losses, reference), 1e-4)
    show("cross entropy slope", error(logits, gradient), 5e-3)
    for heads, groups, size, rotary in ((32, 32, 80, 32), (24, 8, 128, 128)):
        lengths = (5, 130, 1, 700)
        tokens = sum(lengths)
        wide = torch.randn(tokens, (heads + 2 * groups) * size + 64, device="cuda").bfloat16()
        whole = wide[:, : (heads + 2 * groups) * size].view(tokens, -1, size)
        angle = torch.rand(tokens, rotary // 2, device="cuda").repeat(1, 2) * 6
        starts = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device="cuda")
        stream = ops.Stream(starts, 700, angle.cos(), angle.sin())
        on_cpu = ops.Stream(starts.cpu(), 700, angle.cos().cpu(), angle.sin().cpu())
        reference = whole.double().cpu()
        turned = whole.clone()
        ops.rotate_(turned, stream)
        ops.rotate_(reference, on_cpu)
        show("rotate", error(turned.cpu(), reference), 5e-3)
        back = torch.full_like(wide, float("nan"))[:, : whole.shape[1] * size].view(whole.shape)
        ops.unrotate(turned, back, stream)
        show("unrotate", error(back, whole), 1e-2)
        q, k, v = torch.split(whole, [heads, groups, groups], dim=1)
        out, kept = ops.attend(q, k, v, stream)
        q64, k64, v64 = (part.double().cpu() for part in (q, k, v))
        reference, _ = ops.attend(q64, k64, v64, on_cpu)
        show("attend", error(out.cpu(), reference), 1e-2)
        slope = torch.randn_like(out)
        grads = ops.attend_back(slope, (q, k, v), out, kept, stream)
        wanted = ops.attend_back(slope.double().cpu(), (q64, k64, v64), reference, None, on_cpu)
        for name, grad, want in zip("qkv", grads, wanted, strict=True):
            show(f"attend back {name}", error(grad.cpu(), want), 2e-2)


if __name__ == "__main__":
    torch.manual_seed(1)
    for one in (check_dequantize, check_elementwise, check_norms, check_rest):
        try:
            one()
        except Exception as problem:
            import traceback

            traceback.print_exc(limit=-5)
            print("FAIL", one.__name__, type(problem).__name__, str(problem)[:400])

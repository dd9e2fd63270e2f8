"""Trials: pieces of the fast path beside what could replace them, on one GPU.

Run from the repository root: ``python reports/h100/trials.py [--parts float8,loss,elementwise,
attention] [--seconds 60] [--tiny]``. Prints one line of JSON a measurement: milliseconds of the
median replay as a CUDA graph, and the largest difference from what it would replace. Needs no
data and no network; what is not installed is said and left out. Several parts are a process each,
so that one which breaks the device takes no other with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor
from torch.nn import functional

from harness.train.stream import ops
from harness.train.stream.ops import Norm, Stream

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REPEATS = 4
TOKENS = 16384
E4M3 = torch.float8_e4m3fn
LARGEST = 448.0

Found = dict[str, Any]


def milliseconds(run: Callable[[], Any]) -> Found:
    """Median of replays; where it cannot be recorded, of launches, and that is said."""
    if DEVICE == "cpu":
        run()
        return {"ms": None}
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    started = time.perf_counter()
    run()
    host = time.perf_counter() - started
    torch.cuda.synchronize()
    how, again = "graph", run
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(REPEATS):
                run()
        again = graph.replay
    except Exception as error:
        how = f"launched: {type(error).__name__} {str(error)[:120]}"
        torch.cuda.synchronize()
    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        again()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / (REPEATS if how == "graph" else 1))
    found = {"ms": round(sorted(times)[3], 4), "host_ms": round(host * 1e3, 3)}
    return {**found, "first_ms": round(first * 1e3, 1), "how": how}


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    one, other = one.float(), other.float()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def guarded(rows: dict[str, Callable[[], Found]], **about: Any) -> Iterator[Found]:
    """Each row, or why there is none."""
    for name, make in rows.items():
        try:
            yield {**about, "what": name, **make()}
        except Exception as error:
            yield {**about, "what": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


def random(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Normal numbers on the device."""
    return (torch.randn(*shape, device=DEVICE) * scale).to(dtype)


def mixed_lengths(tokens: int, longest: int) -> list[int]:
    """Lengths like those of conversations: median 329, a long tail."""
    generator = torch.Generator().manual_seed(0)
    found, left = [], tokens
    while left > 0:
        length = int(torch.exp(5.8 + 0.65 * torch.randn((), generator=generator)))
        found.append(max(1, min(length, longest, left)))
        left -= found[-1]
    return found


def attention(tiny: bool) -> Iterator[Found]:
    """Flash attention over a stream, as it is, beside cuDNN's over batches of equal lengths."""
    yield from _attentions(tiny, ragged=False)


def ragged(tiny: bool) -> Iterator[Found]:
    """CuDNN's attention over a stream.

    Torch 2.11 takes its inputs for contiguous; given views of a wide tensor it reads elsewhere and
    breaks the device ("illegal memory access").
    """
    yield from _attentions(tiny, ragged=True)


def _attentions(tiny: bool, *, ragged: bool) -> Iterator[Found]:
    shapes = {"phi": (32, 32, 80, 10240), "llama": (24, 8, 128, 0)}
    tokens = 512 if tiny else TOKENS
    lengths = {
        "mixed": mixed_lengths(tokens, 2048),
        "equal 409": [409] * max(1, tokens // 409),
        "equal 2048": [min(2048, tokens)] * max(1, tokens // 2048),
    }
    for model, (heads, groups, size, beside) in shapes.items():
        for kind, found in lengths.items():
            case = _Attention(model, kind, found, (heads, groups, size, beside))
            yield from guarded(case.ragged() if ragged else case.safe(), **case.about)


class _Attention:
    """Queries, keys and values of one shape, as views of a wide tensor."""

    def __init__(
        self, model: str, kind: str, lengths: list[int], shape: tuple[int, int, int, int]
    ) -> None:
        heads, groups, size, beside = shape
        total, self.longest = sum(lengths), max(lengths)
        wide = random(total, (heads + 2 * groups) * size + beside)
        sizes = [heads, groups, groups]
        whole = wide[:, : sum(sizes) * size].view(total, sum(sizes), size)
        self.qkv = list(torch.split(whole, sizes, dim=1))
        self.slope = random(total, heads, size)
        self.starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]).int().to(DEVICE)
        self.stream = Stream(self.starts, self.longest, wide, wide)
        self.equal = len(lengths) if len(set(lengths)) == 1 else 0
        self.out, self.kept = ops.attend(*self.qkv, self.stream)
        self.about = {"model": model, "lengths": kind, "conversations": len(lengths)}

    def back(self) -> tuple[Tensor, ...]:
        return ops.attend_back(self.slope, tuple(self.qkv), self.out, self.kept, self.stream)  # type: ignore[arg-type]

    def safe(self) -> dict[str, Callable[[], Found]]:
        rows: dict[str, Callable[[], Found]] = {
            "flash forward": lambda: milliseconds(lambda: ops.attend(*self.qkv, self.stream)),
            "flash backward": lambda: milliseconds(self.back),
            "copies of q, k and v": lambda: milliseconds(
                lambda: [part.contiguous() for part in self.qkv]
            ),
        }
        if self.equal:
            rows["cudnn batched"] = lambda: _cudnn_batched(
                self.qkv, self.equal, self.slope, self.out, self.back()
            )
        return rows

    def ragged(self) -> dict[str, Callable[[], Found]]:
        dense = [part.contiguous() for part in self.qkv]
        times = dense[0].shape[1] // dense[1].shape[1]
        if times > 1:
            dense = [dense[0], *_repeated(dense, times)]
        padded = torch.cat((self.starts, self.starts[-1:], self.starts[-1:]))
        rows: dict[str, Callable[[], Found]] = {}
        for name, edges in (("contiguous", self.starts), ("empty ones too", padded)):
            rows[f"cudnn ragged, {name}"] = lambda e=edges: _cudnn_ragged(
                dense, e, self.longest, self.slope, self.out, self.back()
            )
        return rows


def _repeated(qkv: list[Tensor], times: int) -> list[Tensor]:
    return [part.repeat_interleave(times, dim=1) for part in qkv[1:]]


def _both(
    forward: Callable[[], Any],
    backward: Callable[[Any], Any],
    out: Tensor,
    wanted: tuple[Tensor, ...],
) -> Found:
    made = forward()
    grads = backward(made)
    found = {"forward": milliseconds(forward), "backward": milliseconds(lambda: backward(made))}
    found["forward_apart"] = apart(made[0].reshape(out.shape), out)
    for name, one, other in zip("qkv", grads, wanted, strict=True):
        if one.numel() == other.numel():
            found[f"{name}_apart"] = apart(one.reshape(other.shape), other)
    return found


def _cudnn_ragged(
    qkv: list[Tensor],
    starts: Tensor,
    longest: int,
    slope: Tensor,
    out: Tensor,
    wanted: tuple[Tensor, ...],
) -> Found:
    aten = torch.ops.aten

    def forward() -> Any:
        return aten._cudnn_attention_forward(
            *qkv, None, starts, starts, longest, longest, True, 0.0, True, False
        )

    def backward(made: Any) -> Any:
        edges = (starts, starts, longest, longest)
        return aten._cudnn_attention_backward(
            slope, *qkv, made[0], made[1], made[6], made[7], None, *edges, 0.0, True
        )

    return _both(forward, backward, out, wanted)


def _cudnn_batched(
    qkv: list[Tensor], rows: int, slope: Tensor, out: Tensor, wanted: tuple[Tensor, ...]
) -> Found:
    def by_row(x: Tensor) -> Tensor:
        return x.unflatten(0, (rows, -1)).transpose(1, 2)

    q, k, v = (by_row(part) for part in qkv)
    times = q.shape[1] // k.shape[1]
    if times > 1:
        k, v = (part.repeat_interleave(times, dim=1) for part in (k, v))
    steep, long = by_row(slope), q.shape[2]
    aten = torch.ops.aten

    def forward() -> Any:
        return aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, False)

    def backward(made: Any) -> Any:
        more = (made[0], made[1], made[6], made[7], None, None, None, long, long, 0.0, True)
        return aten._scaled_dot_product_cudnn_attention_backward(steep, q, k, v, *more)

    made = forward()
    grads = backward(made)
    found = {"forward": milliseconds(forward), "backward": milliseconds(lambda: backward(made))}
    found["forward_apart"] = apart(made[0].transpose(1, 2).reshape(out.shape), out)
    if times == 1:
        for name, one, other in zip("qkv", grads, wanted, strict=True):
            found[f"{name}_apart"] = apart(one.transpose(1, 2).reshape(other.shape), other)
    return found


def _by_row(x: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty(x.shape, dtype=E4M3, device=x.device)
    scales = torch.empty(len(x), dtype=torch.float32, device=x.device)
    from harness.quantize.float8_kernels import quantize_rows

    quantize_rows(x, out, scales, LARGEST, 1e-12)
    return out, scales


def float8(tiny: bool) -> Iterator[Found]:
    """Products of Phi-2's frozen layers in bfloat16 and float8, and what quantizing costs."""
    tokens = 256 if tiny else TOKENS
    shapes = {
        "up": (2560, 17920),
        "dense": (2560, 2560),
        "down": (10240, 2560),
        "up backward": (17920, 2560),
        "down backward": (2560, 10240),
    }
    for name, (inputs, outputs) in shapes.items():
        x, w = random(tokens, inputs), random(outputs, inputs, scale=0.02)
        exact = x @ w.t()
        rows: dict[str, Callable[[], Found]] = {
            "bfloat16": lambda x=x, w=w: milliseconds(lambda: x @ w.t()),
            "quantize the input's rows": lambda x=x: _rows_cost(x),
        }
        for by_rows in (True, False):
            for fast in (True, False):
                kind = f"{'row' if by_rows else 'tensor'}-wise, fast accumulation {fast}"
                rows[kind] = lambda x=x, w=w, e=exact, b=by_rows, f=fast: _scaled(x, w, e, b, f)
        yield from guarded(rows, product=name, tokens=tokens, shape=[inputs, outputs])
    yield from guarded(_weight_rows(tiny), product="weights of one layer's up product")


def _rows_cost(x: Tensor) -> Found:
    out, scales = _by_row(x)
    from harness.quantize.float8 import rows_to_float8

    rounded, wanted = (part.to(x.device) for part in rows_to_float8(x.cpu()))
    wanted = wanted.flatten()
    wrong = float((out.float() != rounded.float()).float().mean())
    found = {"scales_apart": apart(scales, wanted), "codes_that_differ": wrong}
    return {**found, **milliseconds(lambda: _by_row(x))}


def _scaled(x: Tensor, w: Tensor, exact: Tensor, by_rows: bool, fast: bool) -> Found:
    if by_rows:
        x8, scale = _by_row(x)
        scale = scale[:, None]
        of_w = torch.full((1, len(w)), float(w.abs().max()) / LARGEST, device=x.device)
    else:
        scale = (x.abs().max().float() / LARGEST).reshape(())
        x8 = (x.float() / scale).to(E4M3)
        of_w = (w.abs().max().float() / LARGEST).reshape(())
    w8 = (w.float() / of_w.flatten()[0]).to(E4M3)

    def product() -> Tensor:
        return torch._scaled_mm(
            x8, w8.t(), scale, of_w, out_dtype=torch.bfloat16, use_fast_accum=fast
        )

    made = product()
    error = float((made.float() - exact.float()).norm() / exact.float().norm())
    return {"relative_error": error, **milliseconds(product)}


def _weight_rows(tiny: bool) -> dict[str, Callable[[], Found]]:
    from bitsandbytes import functional as bnb

    from harness.quantize.float8_kernels import cast, dequantize_nf4
    from harness.train.stream.kernels import dequantize_into

    rows, inputs = (128, 128) if tiny else (17920, 2560)
    packed, state = bnb.quantize_4bit(
        random(rows, inputs, scale=0.02), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    exact = bnb.dequantize_4bit(packed, state).float()
    factor = (LARGEST / exact.abs().max()).reshape(1)
    plain = torch.empty(rows, inputs, dtype=torch.bfloat16, device=DEVICE)
    straight = torch.empty(rows, inputs, dtype=E4M3, device=DEVICE)
    turned = torch.empty(inputs, rows, dtype=E4M3, device=DEVICE)
    wanted = (exact * factor).to(E4M3).float()

    def eight(out: Tensor, *, back: bool) -> Found:
        def run() -> None:
            dequantize_nf4(out, packed, state, factor, turned=back)

        run()
        made = out.float().t() if back else out.float()
        return {"codes_that_differ": float((made != wanted).float().mean()), **milliseconds(run)}

    return {
        "nf4 to bfloat16": lambda: milliseconds(lambda: dequantize_into(plain, packed, state)),
        "nf4 to float8": lambda: eight(straight, back=False),
        "nf4 to float8, turned": lambda: eight(turned, back=True),
        "bfloat16 to float8": lambda: milliseconds(
            lambda: cast(straight, plain, factor, LARGEST, turned=False)
        ),
        "bfloat16 to float8, turned": lambda: milliseconds(
            lambda: cast(turned, plain, factor, LARGEST, turned=True)
        ),
    }


def fused(tiny: bool) -> Iterator[Found]:
    """Activations with the adapter's products that read them, apart and in one kernel."""
    from harness.train.stream import fused as kernels

    tokens, rank = (256, 16) if tiny else (TOKENS, 16)
    sizes = (("phi", 10240, 7680, False), ("llama", 8192, 0, True))
    if tiny:
        sizes = (("phi", 256, 64, False), ("llama", 256, 0, True))
    for name, inner, beside, gated in sizes:
        wide = random(tokens, beside + inner * (2 if gated else 1))
        x = wide[:, beside:]
        a, low_slope = random(rank, inner, scale=0.02), random(tokens, rank)
        slope = random(tokens, inner)
        act = ops.silu_mul if gated else ops.gelu
        back = ops.silu_mul_back_ if gated else ops.gelu_back_
        made, low = kernels.activate(x, a, gated=gated)
        wanted = act(x)
        before, whole = x.clone(), slope.clone()
        after = x.clone()
        back(before, whole)
        gradient = kernels.activate_back_(after, slope, low_slope, gated=gated)
        answers = {
            "activation_apart": apart(made, wanted),
            "low_apart": apart(low, wanted @ a.t()),
            "slope_apart": apart(after, before),
            "gradient_apart": apart(gradient, low_slope.t() @ wanted),
        }
        rows: dict[str, Callable[[], Found]] = {
            "forward apart": lambda x=x, a=a, act=act: milliseconds(lambda: act(x) @ a.t()),
            "forward fused": lambda x=x, a=a, g=gated, found=answers: {
                **found,
                **milliseconds(lambda: kernels.activate(x, a, gated=g)),
            },
            "backward apart": lambda x=x, s=slope, o=low_slope, b=back: milliseconds(
                lambda: (b(x, s), o.t() @ s)
            ),
            "backward fused": lambda x=x, s=slope, o=low_slope, g=gated: milliseconds(
                lambda: kernels.activate_back_(x, s, o, gated=g)
            ),
        }
        yield from guarded(rows, model=name, tokens=tokens)
    yield from guarded(_sums(tokens, rank, 64 if tiny else 2560), model="phi", tokens=tokens)


def _sums(tokens: int, rank: int, width: int) -> dict[str, Callable[[], Found]]:
    from harness.train.stream.fused import add_low_

    y, x = random(tokens, width), random(tokens, width)
    lows = [random(tokens, rank) for _ in range(2)]
    bs = [random(width, rank, scale=0.02) for _ in range(2)]
    both, wide_b = torch.cat(lows, 1), torch.cat(bs, 1)
    wanted = y.float() + x.float() + both.float() @ wide_b.float().t()

    def apart_ones() -> Tensor:
        for low, b in zip(lows, bs, strict=True):
            y.addmm_(low, b.t())
        return y.add_(x)

    answer = apart(add_low_(y.clone(), both, wide_b, x), wanted)
    return {
        "two adapters and the residual apart": lambda: milliseconds(apart_ones),
        "two adapters and the residual at once": lambda: {
            "apart": answer,
            **milliseconds(lambda: add_low_(y, both, wide_b, x)),
        },
    }


def loss(tiny: bool) -> Iterator[Found]:
    """Head and loss of Phi-2's shape, forward and the gradient of the states."""
    tokens, width, words = (256, 64, 512) if tiny else (12600, 2560, 51200)
    x, w = random(tokens, width), random(words, width, scale=0.02)
    targets = torch.randint(0, words, (tokens,), device=DEVICE)
    one = torch.ones((), device=DEVICE)

    def ours() -> Tensor:
        parts = []
        for part, wanted in zip(x.split(1280), targets.split(1280), strict=True):
            logits = part @ w.t()
            ops.cross_entropy_(logits, wanted, one)
            parts.append(logits @ w)
        return torch.cat(parts)

    answer = ours()

    def measured(run: Callable[[Tensor], Any]) -> Found:
        leaf = x.clone().requires_grad_()

        def step() -> None:
            leaf.grad = None
            run(leaf).backward()

        step()
        return {"apart": apart(leaf.grad, answer), **milliseconds(step)}

    def cce() -> Found:
        from cut_cross_entropy import linear_cross_entropy

        return measured(lambda leaf: linear_cross_entropy(leaf, w, targets, reduction="sum"))

    def liger() -> Found:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        of = LigerFusedLinearCrossEntropyLoss(reduction="sum")
        return measured(lambda leaf: of(w, leaf, targets))

    rows: dict[str, Callable[[], Found]] = {
        "ours": lambda: milliseconds(ours),
        "cut-cross-entropy": cce,
        "liger": liger,
    }
    yield from guarded(rows, tokens=tokens, words=words)


def elementwise(tiny: bool) -> Iterator[Found]:
    """Norms and activations beside Liger's, forward and backward."""
    tokens, width, inner = (256, 64, 128) if tiny else (TOKENS, 3072, 8192)
    x, slope, weight = random(tokens, width), random(tokens, width), random(width)
    norm = Norm(weight, None, 1e-5)
    gated, steep = random(tokens, 2 * inner), random(tokens, inner)
    total = torch.zeros_like(x)

    def liger_norm() -> Found:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction

        leaf = x.clone().requires_grad_()
        frozen = weight.clone()

        def step() -> None:
            leaf.grad = None
            LigerRMSNormFunction.apply(leaf, frozen, 1e-5).backward(slope)

        return milliseconds(step)

    def liger_silu() -> Found:
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction

        gate, up = (part.clone().requires_grad_() for part in gated.chunk(2, dim=1))

        def step() -> None:
            gate.grad = up.grad = None
            LigerSiLUMulFunction.apply(gate, up).backward(steep)

        return milliseconds(step)

    def ours_norm() -> Tensor:
        norm.backward_(x, slope, total)
        return norm.forward(x)

    def ours_silu() -> Tensor:
        out = ops.silu_mul(gated)
        ops.silu_mul_back_(gated, steep)
        return out

    rows: dict[str, Callable[[], Found]] = {
        "norm ours": lambda: milliseconds(ours_norm),
        "norm liger": liger_norm,
        "norm torch": lambda: milliseconds(lambda: functional.rms_norm(x, (width,), weight)),
        "silu ours": lambda: milliseconds(ours_silu),
        "silu liger": liger_silu,
    }
    yield from guarded(rows, tokens=tokens)


PARTS: dict[str, Callable[[bool], Iterator[Found]]] = {
    "float8": float8,
    "fused": fused,
    "attention": attention,
    "loss": loss,
    "elementwise": elementwise,
    "ragged": ragged,
}


def each_in_a_process(script: str, parts: list[str], more: list[str], seconds: float) -> None:
    """Run ``script`` once for each of ``parts``, as long as there is time."""
    started = time.perf_counter()
    for name in parts:
        left = seconds - (time.perf_counter() - started)
        if left < 5:
            print(json.dumps({"part": name, "error": "no time is left"}), flush=True)
            continue
        command = [sys.executable, script, "--parts", name, "--seconds", str(left), *more]
        try:
            code = subprocess.run(command, timeout=left + 10, check=False).returncode
        except subprocess.TimeoutExpired:
            code = 124
        if code:
            print(json.dumps({"part": name, "error": f"ended with code {code}"}), flush=True)


def main() -> None:
    """Run the chosen parts, one after another, as long as there is time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if len(parts) > 1:
        more = ["--tiny"] if arguments.tiny else []
        each_in_a_process(__file__, parts, more, arguments.seconds)
        return
    started = time.perf_counter()
    about: dict[str, Any] = {"gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else None}
    about["cudnn"] = torch.backends.cudnn.version()
    print(json.dumps({**about, "torch": torch.__version__}), flush=True)
    for found in PARTS[parts[0]](arguments.tiny):
        print(json.dumps({"part": parts[0], **found}), flush=True)
        if time.perf_counter() - started > arguments.seconds:
            print(json.dumps({"part": parts[0], "error": "no time is left"}), flush=True)
            return


if __name__ == "__main__":
    main()

"""Check: what only a GPU can show, against references; exits with 1 if anything is off.

``python reports/h100/check.py [adapters decoding ...]``, or ``nox -s gpu``: every Triton kernel,
recorded micro-batches and passes, layer inputs in host memory, recorded decoding. Needs no data
and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from torch.nn import functional

from harness.corpus.sequences import TrainingRow
from harness.train.collate import StreamBatch, StreamSize, make_stream_batch
from harness.train.graph import MicroBatchTimes, Recording, choose_shapes
from harness.train.stream import ops
from harness.train.stream.decoder import Decoder

if torch.cuda.is_available():  # Triton's kernels want a GPU to be imported
    from harness.train.stream import kernels


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """‖out − ref‖ / ‖ref‖."""
    return float((out.double() - reference.double()).norm() / reference.double().norm())


FAILED: list[str] = []


def show(name: str, value: float, limit: float) -> None:
    """Print one comparison, and remember a failed one. NaN fails."""
    passed = value <= limit
    print(f"{'ok  ' if passed else 'FAIL'} {name} {value:.2e} (limit {limit:.0e})", flush=True)
    if not passed:
        FAILED.append(name)


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
        reference, kept64 = ops.attend(q64, k64, v64, on_cpu)
        show("attend", error(out.cpu(), reference), 1e-2)
        slope = torch.randn_like(out)
        grads = ops.attend_back(slope, (q, k, v), out, kept, stream)
        wanted = ops.attend_back(slope.double().cpu(), (q64, k64, v64), reference, kept64, on_cpu)
        for name, grad, want in zip("qkv", grads, wanted, strict=True):
            show(f"attend back {name}", error(grad.cpu(), want), 2e-2)


def tiny_llama(dtype: torch.dtype, layers: int = 3) -> Any:
    """A small random model on the GPU, adapted; the same at every call."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).cuda().to(dtype)
    lora = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, lora, autocast_adapter_dtype=False).eval()


def tiny_rows(count: int) -> list[TrainingRow]:
    """Rows of one random conversation each, of unequal lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for size in rng.integers(40, 300, count):
        ids = rng.integers(0, 512, size).astype(np.int32)
        labels = np.where(rng.random(size) < 0.4, -100, ids).astype(np.int32)
        rows.append(TrainingRow(ids, labels, np.arange(size, dtype=np.int32), (int(size),)))
    return rows


def gradients(model: Any) -> torch.Tensor:
    """All of them, in one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def accumulate(rows: list[TrainingRow], **how: bool) -> tuple[float, torch.Tensor]:
    """Loss and gradients of one micro-batch on the fast path."""
    model = tiny_llama(torch.bfloat16)
    decoder = Decoder(model, torch.bfloat16, on_gpu=True, **how)
    decoder.refresh()
    batch = on_gpu(make_stream_batch(rows))
    loss = decoder.accumulate(batch, decoder.stream(batch), torch.ones((), device="cuda"))
    return float(loss), gradients(model)


def on_gpu(batch: StreamBatch) -> StreamBatch:
    """Its tensors there."""
    moved = {name: tensor.cuda() for name, tensor in batch.tensors.items()}
    return StreamBatch(**moved, longest=batch.longest)


def check_path() -> None:
    """The fast path against autograd in float32, and its ways of saving memory."""
    rows = tiny_rows(4)
    model = tiny_llama(torch.float32)
    total = torch.zeros((), device="cuda")
    for row in rows:
        ids = torch.tensor(row.input_ids, device="cuda", dtype=torch.int64)[None]
        labels = torch.tensor(row.labels, device="cuda", dtype=torch.int64)[1:]
        logits = model(input_ids=ids).logits[0, :-1]
        total = total + functional.cross_entropy(logits, labels, reduction="sum")
    total.backward()
    reference = gradients(model)
    loss, found = accumulate(rows)
    show("fast path loss", abs(loss / float(total.detach()) - 1), 2e-3)
    show("fast path gradients", error(found, reference), 3e-2)
    for name, how in (
        ("recomputed", {"kept": 0}),
        ("in host memory", {"kept": 0, "offload": True}),
    ):
        again, other = accumulate(rows, **how)
        show(f"{name} loss", abs(again / loss - 1), 1e-6)
        show(f"{name} gradients", error(other, found), 1e-3)


def check_graph() -> None:
    """Replays of recorded micro-batches of two shapes against launches, in any order."""
    rows = tiny_rows(48)
    micros = [rows[start : start + 2] for start in range(0, 48, 2)]
    shapes = choose_shapes([StreamSize.of(micro) for micro in micros], MicroBatchTimes(0.6, 1e-3))
    model = tiny_llama(torch.bfloat16)
    decoder = Decoder(model, torch.bfloat16, on_gpu=True)
    decoder.refresh()
    total, scale = torch.zeros((), device="cuda"), torch.ones((), device="cuda")
    warm = on_gpu(make_stream_batch(micros[0]))
    decoder.accumulate(warm, decoder.stream(warm), scale)
    recorded: dict[Any, Recording] = {}
    last = None
    examples = dict(zip(shapes, micros, strict=True))
    for shape in sorted(examples, key=lambda one: -one.tokens):
        last = Recording(decoder, on_gpu(make_stream_batch(examples[shape], shape)), total, last)
        recorded[shape] = last
    show("shapes recorded", abs(len(recorded) - 3) - 1, 0)  # 2 to 4 of them
    worst_loss = worst = 0.0
    for micro, shape in zip(micros, shapes, strict=True):
        zero(model)
        exact = on_gpu(make_stream_batch(micro))
        wanted = float(decoder.accumulate(exact, decoder.stream(exact), scale))
        reference = gradients(model)
        zero(model)
        total.zero_()
        recorded[shape].replay(on_gpu(make_stream_batch(micro, shape)), scale)
        worst_loss = max(worst_loss, abs(float(total) / wanted - 1))
        worst = max(worst, error(gradients(model), reference))
    show("replayed loss", worst_loss, 1e-4)
    show("replayed gradients", worst, 1e-2)


def zero(model: Any) -> None:
    """Set gradients to zero in place."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()


def check_adapters() -> None:
    """An adapter's share of few rows."""
    from harness.score.adapter_kernels import add_share_

    for rows in (1, 2, 16, 17, 64):
        for width, outputs, rank in ((576, 1536, 16), (10240, 2560, 8), (300, 200, 64)):
            for dtype in (torch.bfloat16, torch.float32):
                x = torch.randn(rows, width, device="cuda").to(dtype)
                y = torch.randn(rows, outputs, device="cuda").to(dtype)
                down = torch.randn(rank, width, device="cuda") / width**0.5
                up = torch.randn(outputs, rank, device="cuda")
                share = x.double() @ down.double().T @ up.double().T
                wanted = y.double() + 0.5 * share
                add_share_(y, x, down, up, 0.5)
                limit = 1e-6 if dtype == torch.float32 else 3e-3
                show(f"adapter {rows} x {width} {dtype}", error(y, wanted), limit)


def check_recorded_passes() -> None:
    """Log-probabilities of many rows of one shape, recorded, against passes that are launched."""
    from harness.records.events import SILENCE
    from harness.score import recorded
    from harness.score.likelihood import Likelihood, Query

    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 512, 257) for _ in range(40)]
    queries = [Query(row, np.arange(1, 257)) for row in rows]
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_llama(dtype)
        for parameter in model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        replaying = Likelihood(model, 1024, SILENCE)
        found = replaying.answer(queries)
        show(f"passes not replayed {dtype}", 10 - replaying._body._passes.replayed, 2)
        launched = Likelihood(model, 1024, SILENCE)
        own, recorded.WORTHWHILE = recorded.WORTHWHILE, 1000
        wanted = launched.answer(queries)
        recorded.WORTHWHILE = own
        pairs = zip(found, wanted, strict=True)
        worst = max(float(np.abs(a.log_probs - b.log_probs).max()) for a, b in pairs)
        show(f"log-probability, replayed against launched {dtype}", worst, 0)


def check_decoding() -> None:
    """Recorded greedy decoding against transformers' own loop, in float32."""
    from transformers import GenerationConfig

    from harness.records.events import SILENCE
    from harness.score.answers import Answers, Ask
    from harness.score.likelihood import Likelihood
    from harness.score.recorded import is_recordable

    model = tiny_llama(torch.float32)
    likelihood = Likelihood(model, 4096, SILENCE)
    assert likelihood.tree is not None
    assert is_recordable(model)
    ids = torch.randint(3, 512, (5, 40), device="cuda")
    mask = torch.ones_like(ids)
    for row in range(5):
        mask[row, : row * 6] = 0
    settings = GenerationConfig(
        max_new_tokens=64, do_sample=False, eos_token_id=511, pad_token_id=0
    )
    with torch.inference_mode():
        wanted = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    prompts = [row[keep.bool()].cpu().numpy() for row, keep in zip(ids, mask, strict=True)]
    asks = [
        Ask(prompt, 64, lambda tokens, _: tokens.index(511) + 1 if 511 in tokens else None)
        for prompt in prompts
    ]
    found = Answers(likelihood.tree, 4096, SILENCE).answer(asks)
    wrong = 0
    for ours, theirs in zip(found, wanted[:, 40:].tolist(), strict=True):
        end = theirs.index(511) if 511 in theirs else len(theirs)
        wrong += ours[:end] != theirs[:end]
    show("answers that differ", wrong, 0)


def main() -> int:
    """Run all checks; the exit code."""
    if not torch.cuda.is_available():
        print("FAIL no CUDA device")
        return 1
    torch.manual_seed(1)
    every = (check_dequantize, check_elementwise, check_norms, check_rest, check_path,
             check_graph, check_adapters, check_recorded_passes, check_decoding)  # fmt: skip
    by_name = {one.__name__.removeprefix("check_"): one for one in every}
    unknown = set(sys.argv[1:]) - set(by_name)
    if unknown:
        print(f"FAIL no check {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
        return 1
    for one in (by_name[name] for name in sys.argv[1:] or by_name):
        try:
            one()
        except Exception as problem:  # the other checks still tell something
            import traceback

            traceback.print_exc(limit=-5)
            print("FAIL", one.__name__, type(problem).__name__, str(problem)[:400])
            FAILED.append(one.__name__)
    print(f"FAILED: {', '.join(FAILED)}" if FAILED else "PASS")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())

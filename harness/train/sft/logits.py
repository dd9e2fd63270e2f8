"""Logits: a model's own way from its output layer's input to logits, scales and caps included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class OwnLogits:
    """How a causal model makes logits, learned from one forward pass over a few tokens.

    ``linear``: the logits are the output layer's output, untouched. Otherwise something follows
    (Granite divides, Cohere multiplies, Gemma 2 caps) and :meth:`of` repeats it: it runs the
    model's own forward pass with everything before the output layer replaced by what it gave for
    those few tokens. Works on the meta device too.
    """

    def __init__(self, model: Any) -> None:
        """Take a transformers causal model, or one that PEFT has wrapped."""
        self._model = model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._base = base
        self.head: nn.Module = base.get_output_embeddings()
        device = next(base.parameters()).device
        self._probe = torch.zeros((1, 2), dtype=torch.int64, device=device)
        self._before: dict[nn.Module, Any] = {}
        self.linear = self._learn()

    def _forward(self, **inputs: Any) -> Any:
        return type(self._base).forward(self._base, **inputs, use_cache=False)

    def _learn(self) -> bool:
        made: list[tuple[Tensor, int]] = []
        handles = [self.head.register_forward_hook(lambda _m, _i, y: made.append((y, y._version)))]  # noqa: SLF001
        handles += [
            module.register_forward_hook(lambda m, _i, out: self._before.update({m: out}))
            for module in _called_first(self._base, self.head)
        ]
        training = self._base.training
        self._base.eval()
        try:
            with torch.no_grad():
                logits = self._forward(input_ids=self._probe).logits
        finally:
            self._base.train(training)
            for handle in handles:
                handle.remove()
        output, version = made[-1]
        same = logits.untyped_storage()._cdata == output.untyped_storage()._cdata  # noqa: SLF001
        return bool(same and output._version == version and logits.dtype == output.dtype)  # noqa: SLF001

    def hidden(self, **inputs: Any) -> Tensor:
        """The input of the output layer, (rows, tokens, width), by the model's own forward pass.

        For a wrapped model that is PEFT's, which puts soft prompts before the tokens; what it
        gives for their positions is left out.
        """
        found: list[Tensor] = []

        def take(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            found.append(given[0])
            return (given[0][:, :0],)  # no position is left to make logits of

        with _hooked(self.head, take):
            # the class's own: trainers wrap the instance's in casts of its output
            type(self._model).forward(self._model, **inputs, use_cache=False)
        return found[0][:, -inputs["input_ids"].shape[1] :]

    def of(self, hidden: Tensor) -> Tensor:
        """Logits (positions, vocabulary) of ``hidden`` (positions, width)."""
        if self.linear:
            logits: Tensor = self.head(hidden)
            return logits
        with _replaced(self._before), _hooked(self.head, lambda _m, _given: (hidden[None],)):
            own: Tensor = self._forward(input_ids=self._probe).logits
        return own[0]


def _called_first(base: nn.Module, head: nn.Module) -> list[nn.Module]:
    """The outermost modules that can be called before ``head``: none of them holds it."""
    found: list[nn.Module] = []
    for child in base.children():
        if child is head:
            continue
        decoder = getattr(child, "decoder", None)
        # OPT's forward pass calls the decoder inside its body, not the body
        found += [child, decoder] if isinstance(decoder, nn.Module) else [child]
    return found


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _replaced(outputs: dict[nn.Module, Any]) -> Iterator[None]:
    """Let modules answer with ``outputs`` instead of computing."""
    kept = {module: module.__dict__.get("forward") for module in outputs}
    for module, output in outputs.items():
        module.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for module, forward in kept.items():
            del module.__dict__["forward"]
            if forward is not None:
                module.forward = forward

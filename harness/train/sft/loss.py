"""Loss: summed cross-entropy over labelled positions, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.corpus.sequences import IGNORED
from harness.train.cross_entropy import cross_entropy_on_processor_
from harness.train.sft.logits import OwnLogits

CHUNK = 1024  # positions whose logits are held at a time


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy through a frozen output layer, its gradient taken in the forward pass.

    Per chunk of positions: logits = h Wᵀ + b, and d(sum of NLL)/dh = (softmax(logits) - onehot) W.
    Only the gradient of the hidden states is kept, so peak memory is one chunk of logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: nn.Linear, targets: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            if hidden.device.type == "cpu":
                slope, one = head(hidden[part]), total.new_ones(())
                total += cross_entropy_on_processor_(slope, targets[part], one).sum()
                gradient[part] = slope @ head.weight
                continue
            goal, carries = targets[part].clamp(min=0)[:, None], (targets[part] >= 0)[:, None]
            logits = head(hidden[part]).float()
            log_sum = logits.logsumexp(dim=-1, keepdim=True)
            total += ((log_sum - logits.gather(-1, goal)) * carries).sum()
            slope = logits.sub_(log_sum).exp_()
            slope.scatter_add_(-1, goal, slope.new_full(goal.shape, -1.0))
            gradient[part] = (slope.to(head.weight.dtype) @ head.weight) * carries
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None


class _FrozenTailLoss(torch.autograd.Function):
    """The same where more than a linear layer stands between states and logits.

    The gradient of each chunk is autograd's.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, logits: OwnLogits, targets: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_()
                loss = _cross_entropy(logits.of(states), targets[part])
                (gradient[part],) = torch.autograd.grad(loss, states)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=IGNORED)


def summed_loss(hidden: Tensor, logits: OwnLogits, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum of the negative log-likelihoods (nats) of the labelled next tokens.

    Args:
        hidden: (rows, tokens, width), the input of the output layer.
        logits: the model's way from there to logits.
        labels: (rows, tokens), unshifted; ``IGNORED`` where no loss is carried.
        chunk: positions whose logits are held at a time.
    """
    wanted = labels[:, 1:] != IGNORED
    return loss_of(hidden[:, :-1][wanted], logits, labels[:, 1:][wanted], chunk)


def loss_of(chosen: Tensor, logits: OwnLogits, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """As :func:`summed_loss`, of states (labelled, width) and the tokens that follow them.

    A target of ``IGNORED`` carries no loss.
    """
    head = logits.head
    if any(parameter.requires_grad for parameter in head.parameters()):
        return _cross_entropy(logits.of(chosen), targets)
    if logits.linear and type(head) is nn.Linear:
        chosen = chosen.to(head.weight.dtype)
        loss: Tensor = _FrozenHeadLoss.apply(chosen, head, targets, chunk)  # type: ignore[no-untyped-call]
    else:
        loss = _FrozenTailLoss.apply(chosen, logits, targets, chunk)  # type: ignore[no-untyped-call]
    return loss

"""Families: what llama.cpp calls the parts of each model family, and how it lays them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import UserError

if TYPE_CHECKING:
    import torch

OTHERWISE = "export the form merged and convert that folder with llama.cpp's own script"
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ModelFamily:
    """How one ``model_type`` of transformers is written.

    ``architecture`` is the name in ``gguf.MODEL_ARCH_NAMES``. ``interleaved`` says that rotary
    pairs stand next to each other there, where transformers has them half a head apart.
    ``windows`` says that the file can state a sliding window, ``factors`` that it can hold divisors
    of the rotary frequencies.
    """

    architecture: str
    interleaved: bool = False
    windows: bool = False
    factors: bool = False

    def check_scaling(self, kind: str) -> None:
        """Refuse a scaling of rotary positions that the file could not state.

        Raises:
            UserError: naming those that it can.
        """
        known = ["default", "linear", *(["llama3"] if self.factors else [])]
        if kind not in known:
            raise UserError(
                f"rope scaling {kind} cannot be written to a GGUF file of {self.architecture} here",
                expected=" or ".join(known),
                hint=OTHERWISE,
            )


FAMILIES: dict[str, ModelFamily] = {
    "llama": ModelFamily("llama", interleaved=True, factors=True),
    "mistral": ModelFamily("llama", interleaved=True, factors=True),
    "qwen2": ModelFamily("qwen2"),
    "qwen3": ModelFamily("qwen3"),
    "phi": ModelFamily("phi2"),
    "phi3": ModelFamily("phi3", windows=True),
}
"""By transformers' ``model_type``; Mistral is a llama to llama.cpp."""


def family_of(model_type: str) -> ModelFamily:
    """The family of a transformers configuration.

    Raises:
        UserError: none of those that can be written.
    """
    if model_type not in FAMILIES:
        raise UserError(
            f"no GGUF file can be written of a {model_type} model here",
            expected=f"one of {', '.join(FAMILIES)}",
            hint=OTHERWISE,
        )
    return FAMILIES[model_type]


@dataclass(frozen=True)
class TensorPlace:
    """Where one parameter of transformers goes: its name in the file and how its rows move."""

    parameter: str
    tensor: str
    rows: Callable[[Array], Array]
    back: Callable[[Array], Array]


def places(model: Any) -> Iterator[TensorPlace]:
    """Every stored parameter of ``model`` with its place; a tied output head is left out.

    Raises:
        UserError: a parameter that the ``gguf`` package has no name for.
    """
    config, family = model.config, family_of(model.config.model_type)
    names = _names(family, config.num_hidden_layers)
    for parameter in _stored(model):
        tensor = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
        if tensor is None:
            raise UserError(
                f"the gguf package has no name for {parameter} of a {config.model_type} model",
                expected="the layers of the published architecture only",
            )
        heads = _heads(tensor, config) if family.interleaved else None
        if heads is None:
            yield TensorPlace(parameter, tensor, _same, _same)
        else:
            yield TensorPlace(parameter, tensor, _Interleave(heads), _Separate(heads))


def _names(family: ModelFamily, layers: int) -> Any:
    """The ``gguf`` package's names of an architecture's tensors."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(kinds[family.architecture], layers)


def file_bytes(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], quant: str) -> int:
    """Bytes of all tensors in a file of type ``quant``, from the shapes of the parameters.

    A parameter without a name there, which would be refused, counts as one of the largest type.
    """
    from harness.forms.gguf.types import tensor_bytes, tensor_type

    layers = int(config["num_hidden_layers"])
    names = _names(family_of(str(config["model_type"])), layers)
    total = 0
    for parameter, shape in shapes.items():
        tensor = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
        kind = tensor_type(tensor or "output.weight", shape, quant, layers)
        total += tensor_bytes(kind, shape)
    return total


def _stored(model: Any) -> Iterator[str]:
    state: dict[str, torch.Tensor] = model.state_dict()
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    for name, value in state.items():
        if tied and value.data_ptr() == head.weight.data_ptr() and "embed" not in name:
            continue
        yield name


def _heads(tensor: str, config: Any) -> int | None:
    if ".attn_q." in tensor:
        return int(config.num_attention_heads)
    if ".attn_k." in tensor:
        return int(config.num_key_value_heads)
    return None


def _same(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class _Interleave:
    """Rows of each head from halves (0, 1, …, d/2, …) to pairs (0, d/2, 1, d/2 + 1, …)."""

    heads: int

    def __call__(self, values: Array) -> Array:
        halves = values.reshape(self.heads, 2, -1, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


@dataclass(frozen=True)
class _Separate:
    """The way back from :class:`_Interleave`."""

    heads: int

    def __call__(self, values: Array) -> Array:
        pairs = values.reshape(self.heads, -1, 2, *values.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)

"""Depth: whether all layers of a model are alike, so that two shallow ones tell of the deep one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.spec.model import Model
from harness.spec.variant import Adapter
from harness.weights.by_layer import decoder_layers

if TYPE_CHECKING:
    from torch import nn

# depths that are built; where layers are alike, deeper models follow a straight line
SHALLOW = (1, 2)
BY_LAYER = re.compile("layer|pattern")  # in the names of PEFT's fields that tell layers apart
OWN_NAME = re.compile("[a-z_]+")  # of a module: no path, no number, no regular expression


def layers_alike(model: Model, adapter: Adapter | None = None) -> bool:
    """Whether every layer has the same modules as every other, with the adapter on it too.

    Then counts at depths 1 and 2 give those at any depth, and what takes one layer takes all. A
    model that hands out windows, experts or sizes layer by layer is not of this kind; neither is
    one with an adapter that names layers, or of which it is not known how it is spread.

    Raises:
        InvalidFile: the model's TOML states no shape.
    """
    if adapter is not None and not _treats_alike(adapter):
        return False
    return _alike(_Asked(model.model_dump_json(), model))


def names_layers(adapter: Adapter | None) -> bool:
    """Whether a field of the adapter speaks of layers by their numbers, or of how many they are."""
    fields = {} if adapter is None else adapter.fields
    return any(BY_LAYER.search(name) and value is not None for name, value in fields.items())


def _treats_alike(adapter: Adapter) -> bool:
    """LoRA goes module by module; fields that choose modules by more than their name do not."""
    if adapter.type != "LORA" or names_layers(adapter):
        return False
    fields = {name: value for name, value in adapter.fields.items() if value is not None}
    target = fields.pop("target_modules", "all-linear")
    if isinstance(target, str):
        plain = target == "all-linear"  # and no regular expression
    else:
        plain = isinstance(target, list) and all(OWN_NAME.fullmatch(str(name)) for name in target)
    return plain and not any(
        isinstance(value, list | dict) or "module" in name for name, value in fields.items()
    )


@dataclass(frozen=True)
class _Asked:
    """A model; equal to others that are equal as JSON."""

    written: str
    model: Model = field(compare=False)


@lru_cache(maxsize=64)
def _alike(asked: _Asked) -> bool:
    from harness.weights.shape import meta_model

    try:
        deep, shallow = (_Anatomy.of(meta_model(asked.model, n)) for n in (None, max(SHALLOW)))
    except RunError:  # it does not say what its layers are
        return False
    return (
        deep.depth > max(SHALLOW) == shallow.depth
        and len(deep.layers | shallow.layers) == 1
        and deep.around == shallow.around
    )


@dataclass(frozen=True)
class _Anatomy:
    """What a model consists of: the kinds of its layers, how many they are, and what is around."""

    depth: int
    layers: frozenset[tuple[object, ...]]
    around: tuple[object, ...]

    @classmethod
    def of(cls, model: nn.Module) -> _Anatomy:
        layers = decoder_layers(model)
        starts = tuple(f"{name}." for name, _ in layers)
        inside = {name for name, _ in layers}
        around = (
            (name, module)
            for name, module in model.named_modules()
            if name not in inside and not name.startswith(starts)
        )
        kinds = frozenset(tuple(_described(layer.named_modules())) for _, layer in layers)
        return cls(len(layers), kinds, tuple(_described(around)))


def _described(modules: Iterator[tuple[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Of every module its name, class, plain attributes, and the shapes of its own weights."""
    for name, module in modules:
        plain = sorted(
            (key, repr(value))
            for key, value in vars(module).items()
            if key != "layer_idx" and isinstance(value, bool | int | float | str | None)
        )
        weights = {**module._parameters, **module._buffers}  # noqa: SLF001 - its own, no copies
        yield name, type(module), tuple(plain), tuple(_shapes(weights))


def _shapes(weights: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, weight in weights.items():
        if weight is not None:
            yield name, tuple(weight.shape), weight.dtype

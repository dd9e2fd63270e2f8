"""Depth: whether all layers of a model are alike, so that two shallow ones tell of the deep one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
CHOOSING = ("target_modules", "exclude_modules")
OWN_NAME = re.compile("[a-z_]+")  # of a module: no path, no number, no regular expression


def layers_alike(model: Model, adapter: Adapter | None = None) -> bool:
    """Whether every layer has the same modules as every other, with the adapter on it too.

    Then parameter counts grow by the same amount with each layer, and a fast path that accepts one
    layer accepts all. A model that hands out windows, experts or sizes layer by layer is not of
    this kind; neither is one with an adapter that names layers, or of which it is not known how it
    is spread.

    Raises:
        InvalidFile: the model's TOML states no shape.
    """
    if adapter is not None and not _treats_alike(adapter):
        return False
    return _alike(model.model_dump_json())


def names_layers(adapter: Adapter | None) -> bool:
    """Whether the adapter speaks of layers by their numbers, or of how many they are.

    It does so in fields made for that, or by modules that it chooses by more than their own name:
    by a path or a regular expression.
    """
    fields = {} if adapter is None else _stated(adapter)
    chosen = [fields[name] for name in CHOOSING if name in fields]
    return any(map(BY_LAYER.search, fields)) or not all(map(_by_own_name, chosen))


def _stated(adapter: Adapter) -> dict[str, Any]:
    return {name: value for name, value in adapter.fields.items() if value is not None}


def _by_own_name(chosen: Any) -> bool:
    if isinstance(chosen, str):
        return chosen == "all-linear"  # and no regular expression
    return isinstance(chosen, list) and all(OWN_NAME.fullmatch(str(name)) for name in chosen)


def _treats_alike(adapter: Adapter) -> bool:
    """LoRA goes module by module; fields that choose modules by more than their name do not."""
    if adapter.type != "LORA" or names_layers(adapter):
        return False
    others = {name: one for name, one in _stated(adapter).items() if name != CHOOSING[0]}
    return not any(isinstance(one, list | dict) or "module" in name for name, one in others.items())


@lru_cache(maxsize=64)
def _alike(written: str) -> bool:
    """Whether the layers are, of a model as JSON."""
    from harness.weights.shape import meta_model

    model = Model.model_validate_json(written)
    try:
        deep = _Anatomy.of(meta_model(model))
    except RunError:  # it does not say what its layers are
        return False
    if deep.depth <= max(SHALLOW) or len(deep.layers) != 1:
        return False  # some, like Gemma 3n's that share keys, cannot be built on fewer layers
    shallow = _Anatomy.of(meta_model(model, max(SHALLOW)))
    return shallow.layers == deep.layers and shallow.around == deep.around


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

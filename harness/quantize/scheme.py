"""Scheme: what a way to quantize must tell the rest of the harness, and how to find one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from harness.errors import InvalidFile, UnknownName, UserError
from harness.spec.device import Device
from harness.spec.schema import Frozen, parse
from harness.spec.schemes import load_scheme, scheme_names
from harness.spec.variant import Quantization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class NoSettings(Frozen):
    """For schemes whose name says everything."""


class Open(Protocol):
    """Transformers' ``from_pretrained`` with all but these arguments filled in."""

    def __call__(self, **options: Any) -> PreTrainedModel:
        """The model; ``options`` hold at least ``device_map``."""


@dataclass(frozen=True)
class Target:
    """What a base is to become: its quantization, the dtype of its products and the device.

    ``storage`` is the dtype that packed weights are kept in, where a scheme leaves the choice
    (:attr:`Scheme.storage`); None: bytes.
    """

    quantization: Quantization
    compute: torch.dtype
    device: str
    storage: torch.dtype | None = None


@dataclass(frozen=True)
class Weighed:
    """What the census counts of one quantized parameter.

    ``elements`` is its logical size; ``bytes`` are those stored, constants included.
    """

    quantization: str
    elements: int
    bytes: int
    compute: str | None = None


class Scheme(ABC):
    """One way to quantize the linear layers of a base model.

    The attributes and the first group of methods serve planning and import no deep learning
    library. A scheme that replaces layers after loading fills in :meth:`stored_bytes`,
    :meth:`quantize`, :meth:`weigh` and :meth:`dequantize`; the others have defaults for it.
    """

    name: str
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that must be installed, as pip names them."""
    extra: ClassVar[str | None] = None
    """The optional dependency of the harness that brings them; None if they are always there."""
    settings: ClassVar[type[Frozen]] = NoSettings
    doubles: ClassVar[bool] = False
    """Whether the quantization constants can be quantized too (``double``)."""
    loggers: ClassVar[tuple[str, ...]] = ()
    """Loggers of the packages whose warnings say nothing to a user of the harness."""
    plain_product: ClassVar[bool] = True
    """Whether a layer's product is that with its dequantized weight, and nothing else."""
    stores: ClassVar[bool] = False
    """Whether transformers reads a folder of such layers (:meth:`transformers_config`)."""

    # Planning

    def resolve(self, asked: Quantization, where: object) -> Quantization:
        """``asked`` with all settings checked and spelled out.

        Raises:
            UnknownName: a setting that the scheme does not have.
            InvalidFile: a value that it does not take.
        """
        if asked.double and not self.doubles:
            raise InvalidFile(
                f"quantization {self.name} has no double quantization",
                where=f"{where} double",
                expected=f"double with one of {', '.join(_doubling())}",
            )
        known = {"type", *(["double"] if self.doubles else ()), *self.settings.model_fields}
        for key in asked.settings.keys() - known:
            raise UnknownName(f"{self.name} quantization setting", key, known, where=where)
        settings = parse(self.settings, asked.settings, where=where).model_dump(mode="json")
        return Quantization(type=self.name, double=asked.double, **settings)

    def refuses(self, asked: Quantization, device: Device) -> str | None:
        """Why ``asked`` cannot be used on ``device`` with what is installed; None if it can."""
        del asked, device
        missing = self.missing()
        return f"{missing[0]} is not installed ({self.advice()})" if missing else None

    def missing(self) -> list[str]:
        """Those of :attr:`packages` that are not installed."""
        return [name for name in self.packages if installed(name) is None]

    def advice(self) -> str:
        """The command that installs what the scheme needs."""
        what = f'"finetune-harness[{self.extra}]"' if self.extra else " ".join(self.packages)
        return f"pip install -c constraints.txt {what}"

    @abstractmethod
    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Bytes of one (rows, columns) weight as stored, quantization constants included."""

    # Loading, forecasting, training

    def load(self, open_model: Open, target: Target) -> PreTrainedModel:
        """The base model with its linear layers quantized, on the target's device.

        The default reads the model in its plain dtype into host memory and replaces one layer
        after the other, so that the device never holds the unquantized model.
        """
        from harness.quantize.layers import replace_layers

        model = open_model(device_map={"": "cpu"})
        replace_layers(model, self, target)
        self.complete(model)
        return model.to(target.device)

    def complete(self, model: nn.Module) -> None:
        """What is left to do to a model whose layers :meth:`quantize` has made."""
        self.mark(model)

    def takes(self, module: nn.Module) -> bool:
        """Whether ``module`` is a layer that this scheme quantizes, wherever it stands."""
        from harness.quantize.layers import is_linear

        return is_linear(module)

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """A quantized layer in place of ``linear``, which is on the target's device."""
        raise NotImplementedError(f"{self.name} quantizes while it loads: {linear}, {target}")

    def phantom(self, linear: nn.Linear, target: Target) -> nn.Module:
        """The same on the meta device, with the shapes and dtypes of the real layer."""
        return self.quantize(linear, target)

    def mark(self, model: nn.Module) -> None:
        """Leave on a phantom the marks that PEFT looks for on a loaded model."""
        del model

    def transformers_config(self, target: Target) -> Any:
        """How transformers describes such layers in ``config.json``, so that it reads them back."""
        raise NotImplementedError(f"transformers has no configuration for {target.quantization}")

    def reopened(self, model: nn.Module) -> None:
        """Make of a model that transformers has read what :meth:`load` would have made."""
        del model

    @abstractmethod
    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """What ``parameter`` of ``module`` is, if this scheme made it; else None."""

    def holds(self, module: nn.Module) -> bool:
        """Whether ``module`` is a layer that this scheme has quantized."""
        return any(
            self.weigh(parameter, module) is not None
            for parameter in module.parameters(recurse=False)
        )

    @abstractmethod
    def dequantize(self, layer: nn.Module) -> Tensor:
        """The (rows, columns) weight of a layer that this scheme has quantized."""

    def constants(self, module: nn.Module) -> Iterable[Tensor]:
        """Tensors of ``module`` that are neither parameters nor buffers."""
        del module
        return ()

    def workspace_bytes(self, operation: str, args: Sequence[Any]) -> int:
        """Bytes that an operation of the scheme's own allocates and frees before it returns."""
        del operation, args
        return 0


def find_scheme(quantization: Quantization) -> Scheme:
    """The scheme of ``quantization``; raises as :func:`harness.spec.schemes.load_scheme`."""
    found: Scheme = load_scheme(quantization.type)
    return found


def schemes() -> Iterator[Scheme]:
    """All schemes that can be imported."""
    for name in scheme_names():
        try:
            yield load_scheme(name)
        except UserError:  # a broken package concerns only those who ask for it
            continue


def quiet_schemes() -> None:
    """Keep warnings of the schemes' packages, also while they are imported, from the terminal."""
    for scheme in schemes():
        for name in scheme.loggers:
            logger = logging.getLogger(name)
            if logger.level != logging.ERROR:  # to set it empties a cache of every other logger
                logger.setLevel(logging.ERROR)


def scheme_of(module: nn.Module) -> Scheme | None:
    """The scheme that has quantized ``module``, if any has."""
    return next((scheme for scheme in schemes() if scheme.holds(module)), None)


def is_quantized(model: nn.Module) -> bool:
    """Whether any layer of ``model`` is quantized."""
    known = list(schemes())
    return any(scheme.holds(module) for module in model.modules() for scheme in known)


def scheme_packages() -> list[str]:
    """Distributions that any scheme needs, sorted."""
    return sorted({package for scheme in schemes() for package in scheme.packages})


def installed(package: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _doubling() -> list[str]:
    return [scheme.name for scheme in schemes() if scheme.doubles]

"""Again: merged weights quantized by any scheme, in a folder that transformers reads if it can."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.quantize.scheme import Scheme, Target, find_scheme
from harness.spec.form import AGAIN, Form
from harness.spec.plan import Plan
from harness.spec.schema import parse
from harness.spec.schemes import load_scheme, resolve_quantization
from harness.spec.variant import DTYPE_BYTES, Quantization

if TYPE_CHECKING:
    from harness.forms.make import Parts

LAYER_STATE_BYTES = 2 << 10  # code books of a layer (256 nested values in float32), names, shapes


def quantized_as(form: Form, plan: Plan) -> Quantization:
    """How the weights of a form are quantized again, every setting checked by the scheme.

    Where the form does not say ``double``, it is as in training if the scheme can.

    Raises:
        UnknownName: no such scheme, or no such setting.
        UserError: a value that the scheme does not take, or no scheme at all.
    """
    where = f"form {form.asked}"
    if form.scheme == "none":
        raise UserError("none quantizes nothing", where=where, expected="form merged")
    stated = {"type": form.scheme, **dict(form.settings)}
    doubles = load_scheme(str(form.scheme), where).doubles
    asked = {"double": doubles and plan.quantization.double, **stated}
    return resolve_quantization(parse(Quantization, asked, where=where), where)


def check_again(form: Form, plan: Plan) -> None:
    """Refuse a scheme that this machine cannot carry out.

    Raises:
        UserError: with the scheme's reason, or as :func:`quantized_as`.
    """
    quantization = quantized_as(form, plan)
    reason = find_scheme(quantization).refuses(quantization, plan.device)
    if reason is not None:
        raise UserError(
            f"the form {form.asked} cannot be made: {reason}",
            expected="another form, or what the scheme needs",
        )


def check_stored(form: Form, plan: Plan) -> None:
    """Refuse to export weights that no other library could read.

    Raises:
        UserError: the scheme quantizes only while it loads.
    """
    if form.scheme is None or find_scheme(quantized_as(form, plan)).stores:
        return
    from harness.quantize.scheme import schemes

    stored = ", ".join(sorted(f"{scheme.name}{AGAIN}" for scheme in schemes() if scheme.stores))
    raise UserError(
        f"transformers reads no folder of weights that {form.scheme} has quantized",
        where=f"form {form.asked}",
        expected=f"form merged, to be quantized wherever it is loaded, or one of {stored}",
        hint="the form can be scored, and talked to with chat and generate",
    )


def again_bytes(form: Form, plan: Plan) -> int:
    """Bytes of a folder of quantized weights at most, with what the scheme leaves as it is."""
    from harness.weights.shape import count_parameters

    quantization = quantized_as(form, plan)
    counts = count_parameters(plan.model, "none", None, quantization)
    plain = counts.total - counts.quantized
    beside = counts.modules * LAYER_STATE_BYTES
    return plain * DTYPE_BYTES[plan.stored] + counts.quantized_bytes + beside


def write_again(parts: Parts, form: Form, model: Any, folder: Path) -> None:
    """Write the merged ``model`` into ``folder``, quantized again.

    Where transformers reads no such weights, they are stored as merged and quantized on loading.
    """
    quantization = quantized_as(form, parts.plan)
    scheme = find_scheme(quantization)
    if not scheme.stores:
        model.save_pretrained(folder)
        return
    scratch = folder / ".merged"
    try:
        model.save_pretrained(scratch)
        again = parts.of(scratch).base(quantization)
        _store(again, scheme, _target(parts.plan, quantization), folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_again(parts: Parts, form: Form, folder: Path) -> Any:
    """The model that :func:`write_again` has written to ``folder``."""
    quantization = quantized_as(form, parts.plan)
    scheme = find_scheme(quantization)
    if not scheme.stores:
        return parts.of(folder).base(quantization)
    model = parts.of(folder).base(Quantization())  # the folder says how it is quantized
    scheme.reopened(model)
    return model


def _store(model: Any, scheme: Scheme, target: Target, folder: Path) -> None:
    """Save with transformers' own description of the scheme, whoever has quantized the layers."""
    from transformers.quantizers.auto import AutoHfQuantizer

    config = scheme.transformers_config(target)
    model.config.quantization_config = config
    model.hf_quantizer = AutoHfQuantizer.from_config(config)
    model.save_pretrained(folder)


def _target(plan: Plan, quantization: Quantization) -> Target:
    import torch

    return Target(quantization, getattr(torch, plan.precision.compute), plan.device.kind)

"""Plane: try every method on every kind of base and write down what holds; ten minutes."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.cli.checks.plans import check_plans
from harness.errors import UserError
from harness.spec.plan import Plan
from harness.spec.plane import (
    FILE,
    MethodCell,
    MethodRow,
    Plane,
    drawn_together,
    plane_markdown,
    read_plane,
)
from harness.spec.registry import load_suite, load_variant, variant_names
from harness.spec.schemes import scheme_names
from harness.spec.storage import write_json
from harness.spec.variant import Variant
from harness.train.stream.path import STREAM
from tests.methods.bench import FAMILIES, Bench, make_bench
from tests.methods.promises import check_cell
from tests.methods.trial import start_shift

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
WORKS = MethodCell(state="works")
ONE_DEVICE = MethodCell(
    state="not offered", reason="only LoRA and full fine-tuning are tried on several devices"
)
NO_PLAN = MethodCell(state="refused", reason="there is no plan")
WHOLE = MethodCell(
    state="not offered", reason="the weights of full fine-tuning are scored, not kept"
)
PACKAGES = ("peft", "torch", "transformers", "bitsandbytes")


def method_names() -> list[str]:
    """Variants that differ in the method and not in the base, the rank or the length."""
    suite = load_suite("quick")
    found = [load_variant(name, suite) for name in variant_names()]
    return [one.name for one in found if _is_method(one)]


def _is_method(variant: Variant) -> bool:
    plain = variant.quantization.type == "none" and variant.precision.compute == "bfloat16"
    plain = plain and variant.precision.products == "compute"
    twin = variant.name.startswith("lora_bf16_r")
    return variant.method != "none" and plain and not twin


def find_pair(
    bench: Bench, method: str, scheme: str, families: Sequence[str] = FAMILIES
) -> MethodRow:
    """Try one pair; the cells are those of the first of ``families``.

    Raises:
        AssertionError: the pair is planned and does not hold what it promises.
    """
    plan = _planned(bench, method, scheme, families[0])
    if isinstance(plan, MethodCell):
        cells = dict.fromkeys(("plain", "fast", "merge", "export"), NO_PLAN)
        return MethodRow(method=method, schemes=(scheme,), plan=plan, gpus=ONE_DEVICE, **cells)
    trained = check_cell(plan)
    if plan.adapter is not None and scheme != "none":
        _check_start(plan, bench.plan(method, families[0]))
    whole = plan.adapter is None
    others = [(family, _elsewhere(bench, method, scheme, family)) for family in families[1:]]
    return MethodRow(
        method=method,
        schemes=(scheme,),
        plan=WORKS,
        plain=WORKS,
        fast=_fast(plan),
        gpus=ONE_DEVICE,
        merge=WHOLE if whole else _merge(plan, trained.model),
        export=WHOLE if whole else WORKS,
        architectures=((families[0], WORKS), *others),
    )


def _planned(bench: Bench, method: str, scheme: str, family: str) -> Plan | MethodCell:
    """The plan of a pair, or why there is none."""
    settings = () if scheme == "none" else (f"quantization.type={scheme}",)
    try:
        plan = bench.plan(method, family, *settings)
        check_plans([plan])
    except UserError as refused:
        why = refused.what if "not a valid" not in refused.what else str(refused.expected)
        return MethodCell(state="refused", reason=" ".join(why.partition(", found")[0].split()))
    return plan


def _elsewhere(bench: Bench, method: str, scheme: str, family: str) -> MethodCell:
    """The same pair on another architecture, on both paths where both take it."""
    plan = _planned(bench, method, scheme, family)
    if isinstance(plan, MethodCell):
        return plan
    try:
        check_cell(plan)
        _fast(plan)
    except AssertionError as error:
        error.add_note(f"on {family}")
        raise
    return WORKS


def _check_start(plan: Plan, plain: Plan) -> None:
    """An adapter that leaves a plain base as it is at first leaves a quantized one so too."""
    if start_shift(plain) < 1e-4:
        assert start_shift(plan) < 1e-2, "the start moves a quantized base"


def _fast(plan: Plan) -> MethodCell:
    reason = STREAM.refuses(plan)
    if reason is not None:
        return MethodCell(state="refused", reason=f"the fast path does not take {reason}")
    training = plan.training.model_copy(update={"speed": "fast"})
    check_cell(plan.model_copy(update={"training": training}))
    return WORKS


def _merge(plan: Plan, model: Any) -> MethodCell:
    """Refused as export would refuse it; on a plain base, merging is tried."""
    from harness.forms.merging import merge, why_not_merged

    assert plan.adapter is not None
    reason = why_not_merged(plan.adapter, plan.model)
    if reason is not None:
        return MethodCell(state="refused", reason=reason)
    if plan.quantization.type == "none":
        ids = torch.arange(40)[None]
        with torch.no_grad():
            before = model(input_ids=ids, use_cache=False).logits.clone()
            after = merge(model, form="merged-16bit")(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(before, after, rtol=0, atol=1e-3)
    return WORKS


def find_plane(
    folder: Path, workers: int, methods: Sequence[str], schemes: Sequence[str]
) -> tuple[Plane, list[str]]:
    """These pairs, and what went wrong with those that are neither working nor refused."""
    make_bench(folder)
    pairs = [(folder, method, scheme) for scheme in schemes for method in methods]
    rows, defects = [], []
    spawn = multiprocessing.get_context("spawn")  # a fork would lose torch's threads
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_prepare) as pool:
        for number, found in enumerate(pool.map(_try, pairs), start=1):
            if number % 65 == 0:
                print(f"{number} of {len(pairs)}", flush=True)
            if isinstance(found, MethodRow):
                rows.append(found)
            else:
                defects.append(found)
                print("defect:", found, flush=True)
    versions = {name: version(name) for name in PACKAGES}
    return Plane(versions=versions, rows=drawn_together(rows)), defects


def _prepare() -> None:
    """What a worker does once: one thread, no chatter, and no garbage looked for in libraries."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    gc.freeze()


def _try(pair: tuple[Path, str, str]) -> MethodRow | str:
    """The row of a pair, or what went wrong."""
    folder, method, scheme = pair
    try:
        return find_pair(_bench(folder), method, scheme)
    except Exception as error:  # noqa: BLE001 - told at the end, for every pair
        said = " ".join([str(error), *getattr(error, "__notes__", ())]).split()
        return f"{method} on {scheme}: {type(error).__name__}: {' '.join(said)[:300]}"


@cache
def _bench(folder: Path) -> Bench:
    return Bench(folder, {family: folder / f"{family}_suite.toml" for family in FAMILIES})


def joined(found: Plane, before: Plane) -> Plane:
    """The rows of ``found``, and those of ``before`` for pairs that it does not have."""
    again = {(row.method, scheme) for row in found.rows for scheme in row.schemes}
    kept = [
        row.model_copy(update={"schemes": (scheme,)})
        for row in before.rows
        for scheme in row.schemes
        if (row.method, scheme) not in again
    ]
    return found.model_copy(update={"rows": drawn_together([*found.rows, *kept])})


def main(arguments: list[str]) -> int:
    """``python -m tests.methods.plane``: make the plane, a part of it, or only its page again."""
    parser = argparse.ArgumentParser(prog="tests.methods.plane")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--methods", nargs="+", help="only these rows; the others are kept")
    parser.add_argument("--schemes", nargs="+", help="only these bases; the others are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    chosen = parser.parse_args(arguments)
    if chosen.page:
        PAGE.write_text(plane_markdown(read_plane()), encoding="utf-8")
        return 0
    _prepare()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HARNESS_CACHE"] = str(Path(scratch) / "cache")
        methods, schemes = chosen.methods or method_names(), chosen.schemes or scheme_names()
        plane, defects = find_plane(Path(scratch), chosen.workers, methods, schemes)
    if chosen.methods or chosen.schemes:
        plane = joined(plane, read_plane())
    write_json(FILE, plane)
    PAGE.write_text(plane_markdown(plane), encoding="utf-8")
    print(plane_markdown(plane))
    seconds = time.monotonic() - began
    print(f"{len(plane.rows)} rows, {len(defects)} defects, {seconds:.0f} s", *defects, sep="\n")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

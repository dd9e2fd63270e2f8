"""Plane: try every method on every kind of base and write down what holds."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.cli.checks.plans import check_adapter, check_forms, check_plans
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
from tests.methods.kept import KeptPairs
from tests.methods.promises import check_bfloat16, check_cell
from tests.methods.trial import start_shift
from tests.parallel.pair import run_pair

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
WORKS = MethodCell(state="works")
SHARED = ("none", "nf4")  # bases that are tried on two devices
ONE_DEVICE = MethodCell(
    state="not offered", reason="several devices are tried on bases of none and nf4 alone"
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
    check_bfloat16(plan)
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
        _check(plan)
    except UserError as refused:
        why = refused.what if "not a valid" not in refused.what else str(refused.expected)
        return MethodCell(state="refused", reason=" ".join(why.partition(", found")[0].split()))
    return plan


_CHECKED: set[tuple[str, str]] = set()


def _check(plan: Plan) -> None:
    """As the command checks a plan; what concerns the model and scores alone, once for each."""
    common = (plan.model.model_dump_json(), plan.score.model_dump_json())
    if common in _CHECKED:
        check_adapter(plan)
        check_forms(plan)
    else:
        check_plans([plan])
        _CHECKED.add(common)


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
    if _plain_shift(plain.model_dump_json()) < 1e-4:
        assert start_shift(plan) < 1e-2, "the start moves a quantized base"


@cache
def _plain_shift(plan: str) -> float:
    """The same plain plan stands beside every scheme."""
    return start_shift(Plan.model_validate_json(plan))


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
    folder: Path, workers: int, methods: Sequence[str], schemes: Sequence[str], kept: KeptPairs
) -> tuple[Plane, list[str]]:
    """These pairs, and what went wrong with those that are neither working nor refused.

    What ``kept`` has is not made again, and what is made goes there.
    """
    make_bench(folder)
    pairs = [(method, scheme) for scheme in schemes for method in methods]
    before = kept.rows()
    made = {pair: before[pair] for pair in pairs if pair in before}
    if made:
        print(
            f"{len(made)} of {len(pairs)} pairs are kept: the same code has made them", flush=True
        )
    defects = []
    for found in _try_all(folder, workers, [pair for pair in pairs if pair not in made]):
        if isinstance(found, MethodRow):
            made[found.method, found.schemes[0]] = found
            kept.add(found)
        else:
            defects.append(found)
            print("defect:", found, flush=True)
        if (len(made) + len(defects)) % 65 == 0:
            print(f"{len(made) + len(defects)} of {len(pairs)}", flush=True)
    rows = on_two_devices(folder, [made[pair] for pair in pairs if pair in made], defects)
    versions = {name: version(name) for name in PACKAGES}
    return Plane(versions=versions, rows=drawn_together(rows)), defects


def _try_all(
    folder: Path, workers: int, pairs: Sequence[tuple[str, str]]
) -> Iterator[MethodRow | str]:
    """What each pair is found to be, in their order."""
    if not pairs:
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would lose torch's threads
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_prepare) as pool:
        yield from pool.map(_try, [(folder, *pair) for pair in pairs])


def on_two_devices(folder: Path, rows: list[MethodRow], defects: list[str]) -> list[MethodRow]:
    """``rows`` with what two processes found of the pairs that work; flaws go to ``defects``."""
    asked = [
        (row.method, *row.schemes)
        for row in rows
        if row.plain.state == "works" and row.schemes[0] in SHARED
    ]
    if asked:
        run_pair(
            "tests.parallel.methods_pair",
            *(str(folder), str(folder), json.dumps(asked)),
            timeout=1800 + 30 * len(asked),
        )
    found = json.loads((folder / "0.json").read_text()) if asked else {}
    said = {pair: f"{pair} on two devices: {flaw}" for pair, flaw in found.items() if flaw}
    defects += said.values()
    made = []
    for row in rows:
        pair = f"{row.method} on {row.schemes[0]}"
        if row.plain.state != "works":
            cell = NO_PLAN
        else:
            cell = WORKS if pair in found and pair not in said else ONE_DEVICE
        made.append(row.model_copy(update={"gpus": cell}))
    return made


def _prepare() -> None:
    """What a worker does once: one thread, no chatter, and no garbage looked for in libraries."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    gc.freeze()


def _try(pair: tuple[Path, str, str]) -> MethodRow | str:
    """The row of a pair, or what went wrong."""
    folder, method, scheme = pair
    gc.collect()
    gc.freeze()  # each training collects garbage: let it not look at what stays
    try:
        return find_pair(_bench(folder), method, scheme)
    except Exception as error:  # noqa: BLE001 - told at the end, for every pair
        said = " ".join([str(error), *getattr(error, "__notes__", ())]).split()
        return f"{method} on {scheme}: {type(error).__name__}: {' '.join(said)[:300]}"


@cache
def _bench(folder: Path) -> Bench:
    return Bench(folder, {family: folder / f"{family}_suite.toml" for family in FAMILIES})


def _again_on_two_devices(folder: Path, plane: Plane) -> tuple[Plane, list[str]]:
    """``plane`` with what two devices do found anew, and what went wrong."""
    make_bench(folder)
    defects: list[str] = []
    rows = on_two_devices(folder, _apart(plane), defects)
    return plane.model_copy(update={"rows": drawn_together(rows)}), defects


def _apart(plane: Plane) -> list[MethodRow]:
    """A row for each scheme."""
    return [
        row.model_copy(update={"schemes": (scheme,)})
        for row in plane.rows
        for scheme in row.schemes
    ]


def joined(found: Plane, before: Plane) -> Plane:
    """The rows of ``found``, and those of ``before`` for pairs that it does not have."""
    again = {(row.method, scheme) for row in found.rows for scheme in row.schemes}
    kept = [row for row in _apart(before) if (row.method, *row.schemes) not in again]
    return found.model_copy(update={"rows": drawn_together([*found.rows, *kept])})


def main(arguments: list[str]) -> int:
    """``python -m tests.methods.plane``: make the plane, a part of it, or only its page again."""
    parser = argparse.ArgumentParser(prog="tests.methods.plane")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--methods", nargs="+", help="only these rows; the others are kept")
    parser.add_argument("--schemes", nargs="+", help="only these bases; the others are kept")
    parser.add_argument("--gpus", action="store_true", help="only try two devices again")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    chosen = parser.parse_args(arguments)
    if chosen.page:
        PAGE.write_text(plane_markdown(read_plane()), encoding="utf-8")
        return 0
    _prepare()
    began, kept = time.monotonic(), None if chosen.gpus else KeptPairs()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FINETUNE_HARNESS_CACHE"] = str(Path(scratch) / "cache")
        methods, schemes = chosen.methods or method_names(), chosen.schemes or scheme_names()
        if kept is None:
            plane, defects = _again_on_two_devices(Path(scratch), read_plane())
        else:
            asked = (methods, schemes, kept)
            plane, defects = find_plane(Path(scratch), chosen.workers, *asked)
    if chosen.methods or chosen.schemes:
        plane = joined(plane, read_plane())
    write_json(FILE, plane)
    PAGE.write_text(plane_markdown(plane), encoding="utf-8")
    if kept is not None and not defects:
        kept.drop({(method, scheme) for method in methods for scheme in schemes})
    print(plane_markdown(plane))
    seconds = time.monotonic() - began
    print(f"{len(plane.rows)} rows, {len(defects)} defects, {seconds:.0f} s", *defects, sep="\n")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

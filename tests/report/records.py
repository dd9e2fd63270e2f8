"""Synthetic runs through the real classes and the real store, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.records.corpus_result import CorpusResult, FunnelRow
from harness.records.record import (
    PHASES,
    Census,
    CensusRow,
    Environment,
    Generation,
    LossPoint,
    MemoryPrediction,
    PhaseCost,
    Problem,
    RunRecord,
    Score,
    Throughput,
    Tokens,
    TrainResult,
)
from harness.records.store import BrokenRun, RunStore, StoredRun
from harness.report.build import Report, ReportRequest, build_report
from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.plan_digests import SAMPLE
from tests.planned import planned

CPU = Device(kind="cpu", name="Example CPU", memory_bytes=24 * 2**30, bfloat16=False, threads=2)
GPU = Device(kind="cuda", name="Example GPU", memory_bytes=80 * 2**30, bfloat16=True)

SEVEN = ("base", "base_nf4", "base_nf4_dq", "lora_bf16", "qlora_nf4", "qlora_nf4_dq", "qlora_fp4")


@dataclass(frozen=True)
class Made:
    """What a synthetic run shall look like."""

    variant: str
    settings: tuple[str, ...] = ()
    seed: int = 0
    log_ratio: float = 0.0
    seed_noise: float = 0.003
    trees: int = 28
    status: str = "ok"
    device: Device = CPU
    is_sample: bool = False
    memory: float = 1.0
    seconds: float = 80.0
    once: float = 4.0  # of these seconds: compiling and set-up
    speed: float = 350.0
    tokens: int = 28_000
    hostile: str = ""
    corpus_sha256: str | None = None
    answers: bool = False


def plan_of(made: Made) -> Plan:
    """The real plan of a synthetic run."""
    plan = planned(made.variant, *made.settings, seed=made.seed, device=made.device)
    if made.corpus_sha256 is not None:
        plan = plan.model_copy(update={"corpus_sha256": made.corpus_sha256})
    return plan


def write_run(root: Path, made: Made) -> Path:
    """Write one run's folder as the harness would; returns the folder."""
    plan = plan_of(made)
    store = RunStore(root)
    folder = store.folder(plan)
    folder.items.mkdir(parents=True, exist_ok=True)
    scores = _scores(folder.items, made, plan) if made.status == "ok" else ()
    record = _record(made, plan, scores)
    store.write(record)
    return folder.path


def write_runs(root: Path, runs: Sequence[Made]) -> None:
    """Write many."""
    for made in runs:
        write_run(root, made)


def seven(seeds: int = 3, **changes: object) -> list[Made]:
    """The variants of the committed example, at ``seeds`` seeds each."""
    quality = {
        "base": 0.0,
        "base_nf4": 0.18,
        "base_nf4_dq": 0.185,
        "lora_bf16": -0.12,
        "qlora_nf4": -0.02,
        "qlora_nf4_dq": -0.018,
        "qlora_fp4": 0.05,
    }
    memory = {name: 0.6 if "nf4" in name or "fp4" in name else 1.0 for name in quality}
    return [
        Made(name, seed=seed, log_ratio=ratio, memory=memory[name], **changes)  # type: ignore[arg-type]
        for name, ratio in quality.items()
        for seed in range(1 if name.startswith("base") else seeds)
    ]


def _scores(folder: Path, made: Made, plan: Plan) -> tuple[Score, ...]:
    trees = np.random.default_rng(7)
    own = np.random.default_rng([made.seed, *plan.variant.encode()])
    cluster = np.repeat(np.arange(made.trees), 3)
    tokens = trees.integers(20, 300, len(cluster)).astype(float)
    hard = 2.0 + 0.35 * trees.standard_normal(made.trees)[cluster]
    hard += 0.15 * trees.standard_normal(len(cluster))
    noise = own.standard_normal() * made.seed_noise if plan.trains else 0.0
    base = 0.18 if plan.quantization.type == "nf4" else 0.0
    before = hard + base
    after = hard + made.log_ratio + noise + 0.01 * own.standard_normal(len(cluster))
    accuracy = (trees.random(len(cluster)) < 0.55 - made.log_ratio / 4).astype(float)
    stages = {"after": after, "before": before if plan.trains else after}
    scores = []
    for stage, nll in stages.items():
        name = f"held_out-perplexity-{stage}-training.parquet"
        scores.append(_perplexity(folder / name, cluster, nll * tokens, tokens, stage))
    name = "items/oasst_choice-acc-after-training.parquet"
    asked = _choices(accuracy, made)
    _write_items(folder.parent / name, cluster, accuracy, np.ones_like(accuracy), asked)
    scores.append(
        Score(
            task="oasst_choice",
            metric="acc",
            stage="after",
            value=float(accuracy.mean()),
            standard_error=float(accuracy.std() / np.sqrt(len(accuracy))),
            n=len(accuracy),
            unit="fraction",
            direction="higher",
            items=name,
            headline=True,
        )
    )
    if made.answers:
        scores.append(_answers(folder, cluster, made))
    return tuple(scores)


def _choices(accuracy: np.ndarray, made: Made) -> dict[str, list[object]]:
    """What lm-eval keeps of a question with two choices: the likelier one is the answer."""
    right = [f" the {n}th reply{made.hostile}" for n in range(len(accuracy))]
    wrong = [f" another reply than the {n}th{made.hostile}" for n in range(len(accuracy))]
    return {
        "prompt": [f"Question {n}: which reply fits?" for n in range(len(accuracy))],
        "target": ["0"] * len(accuracy),
        "continuations": [[one, two] for one, two in zip(right, wrong, strict=True)],
        "log_likelihoods": [[-2.0, -3.0] if hit else [-3.0, -2.0] for hit in accuracy],
    }


def _answers(folder: Path, cluster: np.ndarray, made: Made) -> Score:
    """Free answers: all variants share the first words, and say their own name once."""
    ask, told = "How long does egg number {} boil?", "Put egg {} into boiling water, wait."
    count = range(len(cluster))
    texts: dict[str, list[object]] = {
        "prompt": [ask.format(n) for n in count],
        "target": [told.format(n) for n in count],
        "answer": [f"{told.format(n)} So says {made.variant}.{made.hostile}" for n in count],
    }
    shares = np.random.default_rng([3, *made.variant.encode()]).random(len(cluster))
    _write_items(folder / "generations.parquet", cluster, shares, np.ones_like(shares), texts)
    return Score(
        task="generations",
        metric="rouge_l",
        stage="after",
        value=float(shares.mean()),
        standard_error=0.03,
        n=len(shares),
        unit="fraction",
        direction="higher",
        items="items/generations.parquet",
    )


def _perplexity(
    path: Path, cluster: np.ndarray, nll: np.ndarray, tokens: np.ndarray, stage: str
) -> Score:
    _write_items(path, cluster, nll, tokens)
    value = float(np.exp(nll.sum() / tokens.sum()))
    return Score(
        task="held_out",
        metric="perplexity",
        stage=stage,  # type: ignore[arg-type]
        value=value,
        standard_error=value * 0.05,
        n=len(nll),
        unit="perplexity",
        direction="lower",
        transform="exp",
        items=f"items/{path.name}",
        headline=True,
        details={"few_shot": 0, "data": "/some/folder/trees.jsonl"},
    )


def _write_items(
    path: Path,
    cluster: np.ndarray,
    above: np.ndarray,
    below: np.ndarray,
    texts: Mapping[str, list[object]] | None = None,
) -> None:
    table = pa.table(
        {
            "item": [f"i{index:05d}" for index in range(len(cluster))],
            "cluster": [f"t{index:05d}" for index in cluster],
            "numerator": above,
            "denominator": below,
            **(texts or {}),
        }
    )
    pq.write_table(table, path)


def _record(made: Made, plan: Plan, scores: tuple[Score, ...]) -> RunRecord:
    ok = made.status == "ok"
    return RunRecord(
        plan=plan,
        fingerprint=plan.fingerprint,
        status=made.status,  # type: ignore[arg-type]
        started_at=f"2026-01-01T00:00:{made.seed:02d}Z",
        seconds=140.0,
        environment=_environment(made),
        phases=_phases(made, plan),
        census=_census(plan),
        corpus=_corpus(made),
        training=_training(made, plan) if plan.trains and ok else None,
        scores=scores,
        generations=_generations(made) if ok else (),
        adapter_bytes=19_000_000 if ok and plan.trains else None,
        prediction=MemoryPrediction(
            by_phase={"load": int(0.5e9 * made.memory), "train": int(2e9 * made.memory)},
            peak_bytes=int(2e9 * made.memory),
        ),
        problem=None
        if ok
        else Problem(
            kind="host_oom",
            phase="train",
            step=3,
            message=f"killed by the kernel {made.hostile}",
            log_tail=f"last words {made.hostile}",
        ),
    )


def _environment(made: Made) -> Environment:
    return Environment(
        python="3.11.2",
        packages={"torch": "2.13.0", "peft": "0.21.0"},
        os="Linux 6.1",
        cpu="Example CPU",
        cores=2,
        threads=2,
        memory_bytes=24 * 2**30,
        gpu="Example GPU" if made.device.kind == "cuda" else None,
        commit="0123456789abcdef",
        dirty=False,
        deterministic=True,
    )


def _phases(made: Made, plan: Plan) -> tuple[PhaseCost, ...]:
    seconds = {"fetch": 0.5, "load": 3.0, "score_base": 25.0, "prepare": 1.5}
    seconds |= {"train": made.seconds, "score": 27.0, "save": 0.4}
    peak = {"train": 2.1e9, "score": 1.4e9, "score_base": 1.3e9}
    cuda = made.device.kind == "cuda"
    costs = []
    for name in PHASES:
        if name in ("prepare", "train", "save") and not plan.trains:
            continue
        used = int(peak.get(name, 6e8) * made.memory)
        costs.append(
            PhaseCost(
                name=name,
                seconds=seconds[name],
                peak_resident_bytes=used,
                peak_allocated_bytes=used if cuda else None,
                peak_reserved_bytes=int(used * 1.1) if cuda else None,
                peak_device_bytes=int(used * 1.2) if cuda else None,
                energy_joules=seconds[name] * 300 * made.memory if cuda else None,
                energy_source="nvml" if cuda else None,
            )
        )
        if name == "train" and made.status != "ok":
            break
    return tuple(costs)


def _census(plan: Plan) -> Census:
    four = plan.quantization.type in ("nf4", "fp4")
    label = plan.quantization.type + ("+dq" if plan.quantization.double else "")
    bits = (4.127 if plan.quantization.double else 4.5) if four else 32
    rows = [
        CensusRow(
            dtype="uint8" if four else "float32",
            quantization=label,
            trainable=False,
            elements=106_000_000,
            bytes=int(106_000_000 * bits / 8),
        ),
        CensusRow(
            dtype="float32",
            quantization="none",
            trainable=False,
            elements=28_000_000,
            bytes=112_000_000,
        ),
    ]
    if plan.trains:
        rank = plan.adapter.fields.get("r", 16) if plan.adapter else 1000
        elements = 305_000 * int(rank)  # type: ignore[arg-type]
        rows.append(
            CensusRow(
                dtype="float32",
                quantization="none",
                trainable=True,
                elements=elements,
                bytes=4 * elements,
            )
        )
    return Census(rows=tuple(rows), compute_dtype="float32" if four else None)


def _corpus(made: Made) -> CorpusResult:
    return CorpusResult(
        name="sample" if made.is_sample else "oasst1-en-validation",
        sha256="ab" * 32,
        is_sample=made.is_sample,
        train_conversations=160,
        held_out_conversations=made.trees,
        funnel=(
            FunnelRow(step="read", trees=188, messages=2000, conversations=None, tokens=None),
            FunnelRow(
                step="ready trees",
                trees=180,
                messages=1900,
                conversations=700,
                tokens=200_000,
                removed=f"8 trees not exported {made.hostile}",
            ),
            FunnelRow(
                step="best path",
                trees=180,
                messages=None,
                conversations=180,
                tokens=90_000,
                removed="520 paths that are not the best",
            ),
        ),
        length_quantiles=((0.5, 380), (0.9, 900)),
        languages=(("en", 150, 25), ("de", 10, 3)),
        length_histogram=((64, 5), (128, 12), (256, 50), (512, 70), (1024, 40), (2048, 3)),
    )


def _training(made: Made, plan: Plan) -> TrainResult:
    noise = np.random.default_rng([made.seed, 5])
    losses = tuple(
        LossPoint(
            step=step,
            loss=float(2.1 + made.log_ratio * (1 - np.exp(-step / 10)) + 0.2 * noise.random()),
            learning_rate=2e-4,
            grad_norm=1.0,
            seconds=(made.seconds - made.once) / 40,
            non_padding_tokens=700,
        )
        for step in range(40)
    )
    return TrainResult(
        steps=40,
        tokens=Tokens(assistant=20_000, non_padding=made.tokens, padded=33_000, truncated=4_000),
        losses=losses,
        throughput=Throughput(warmup_steps=3, median=made.speed, p10=300.0, p90=390.0),
        trainer="plain",
    )


def _generations(made: Made) -> tuple[Generation, ...]:
    return tuple(
        Generation(
            prompt=prompt,
            reference="Put it into boiling water.",
            answer=f"{made.variant} says: eight minutes. {made.hostile}",
            stage="after",
            tokens=12,
            ended=number == 0,
        )
        for number, prompt in enumerate(sample_prompts()[:2])
    )


def sample_prompts() -> list[str]:
    """First messages of the bundled corpus, in file order."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"]["text"] for line in lines]


def build_from(root: Path, **wishes: object) -> Report:
    """Scan a store and build its report."""
    found = list(RunStore(root).scan())
    runs = [item for item in found if isinstance(item, StoredRun)]
    broken = [item for item in found if isinstance(item, BrokenRun)]
    request = {"suite": "quick"} | wishes
    return build_report(runs, broken, ReportRequest.model_validate(request))

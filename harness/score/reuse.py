"""Reuse: the scores of a base model, taken once and kept by fingerprint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from harness.cache import cached_folder
from harness.errors import InvalidFile, StorageError
from harness.quantize.scheme import find_scheme, installed
from harness.records.record import Generation, Score
from harness.score.items import Stage
from harness.score.take import Scores
from harness.spec.plan import Plan
from harness.spec.schema import Versioned, read_json, write_json

FILE = "scores.json"
DECIDING = ("finetune-harness", "torch", "transformers", "peft", "lm-eval")


class BaseScores(Versioned):
    """What was found of an untrained model."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    fingerprint: str
    scores: tuple[Score, ...]
    generations: tuple[Generation, ...]


def base_scores(
    plan: Plan, runs: Path, folder: Path, stage: Stage, take: Callable[[Path], Scores]
) -> Scores:
    """The untrained model's scores, from ``runs/.base`` or else by ``take``; items in ``folder``.

    ``take`` scores stage "before" and writes items below the folder it is given. The kept folder
    appears whole or not at all; a second process waits for the first one's scores. Other library
    versions make another folder.

    Raises:
        StorageError: a folder cannot be written.
    """
    kept = runs / ".base" / base_key(plan)
    found = _read(kept)
    if found is None:
        shutil.rmtree(kept, ignore_errors=True)
        cached_folder(kept, lambda scratch: _fill(scratch, plan, take))
        found = read_json(kept / FILE, BaseScores)
    for score in found.scores:
        if score.items is not None:
            _copy(kept / score.items, folder / score.items)
    return Scores(
        tuple(score.model_copy(update={"stage": stage}) for score in found.scores),
        tuple(answer.model_copy(update={"stage": stage}) for answer in found.generations),
    )


def base_key(plan: Plan) -> str:
    """Folder name: the plan's base fingerprint and a digest of the versions that scored it."""
    deciding = (*DECIDING, *find_scheme(plan.quantization).packages)
    versions = "\n".join(f"{name} {installed(name)}" for name in deciding)
    digest = hashlib.sha256(versions.encode()).hexdigest()
    return f"{plan.base_fingerprint[:24]}-{digest[:8]}"


def _fill(scratch: Path, plan: Plan, take: Callable[[Path], Scores]) -> None:
    found = take(scratch)
    write_json(
        scratch / FILE,
        BaseScores(
            fingerprint=plan.base_fingerprint,
            scores=found.scores,
            generations=found.generations,
        ),
    )


def _read(kept: Path) -> BaseScores | None:
    """What is kept, or None where nothing whole is."""
    try:
        found = read_json(kept / FILE, BaseScores)
    except (InvalidFile, StorageError):
        return None
    missing = [s for s in found.scores if s.items is not None and not (kept / s.items).is_file()]
    return None if missing else found


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=target) from None

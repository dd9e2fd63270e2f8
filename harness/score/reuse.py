"""Reuse: the scores of a base model, taken once and kept by fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from harness.cache import REUSE, Reuse, cached_folder, flaw
from harness.errors import StorageError
from harness.origin import package_versions, settings, sources_digest
from harness.quantize.scheme import find_scheme
from harness.records.record import Generation, Score
from harness.score.items import Place
from harness.score.subject import Scores
from harness.spec.plan import Plan
from harness.spec.schema import Versioned
from harness.spec.storage import read_json, write_json

FILE = "scores.json"
KEPT = ".base"
DIGITS = 24  # of a fingerprint, in the name of a folder
# What makes a score: these rooms of the harness, and these packages.
ROOMS = ("score", "forms", "weights", "quantize", "corpus")
PACKAGES = (
    "accelerate",
    "datasets",
    "evaluate",
    "jinja2",
    "lm-eval",
    "numpy",
    "peft",
    "rouge-score",
    "sacrebleu",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
)


class BaseScores(Versioned):
    """What was found of an untrained model."""

    SCHEMA_VERSION: ClassVar[int] = 1
    schema_version: int = 1
    fingerprint: str
    scores: tuple[Score, ...]
    generations: tuple[Generation, ...]


def base_scores(
    plan: Plan, runs: Path, place: Place, take: Callable[[Path], Scores], reuse: Reuse = REUSE
) -> Scores:
    """The untrained model's scores, from ``runs/.base`` or else by ``take``; items in ``place``.

    ``take`` scores stage "before" and writes items below the folder it is given. The kept folder
    appears whole or not at all; a second process waits for the first one's scores. Another
    harness, other packages or settings make another folder; one that has changed since it was
    written is made again.

    Raises:
        StorageError: a folder cannot be written.
    """
    kept = runs / KEPT / base_key(plan)
    cached_folder(kept, lambda scratch: _fill(scratch, plan, take), reuse)
    found = read_json(kept / FILE, BaseScores)
    for score in found.scores:
        if score.items is not None:
            _copy(kept / score.items, place.folder / score.items)
    stage = {"stage": place.stage}
    return Scores(
        tuple(score.model_copy(update=stage) for score in found.scores),
        tuple(answer.model_copy(update=stage) for answer in found.generations),
    )


def kept_base(plan: Plan, runs: Path) -> list[Path]:
    """Folders below ``runs`` that hold the untrained model's scores, each as it was written.

    There may be several: other code, packages or settings make another one.
    """
    found = sorted((runs / KEPT).glob(f"{plan.base_fingerprint[:DIGITS]}-*"))
    return [path for path in found if path.is_dir() and flaw(path) is None]


def keep_base(name: str, runs: Path, fill: Callable[[Path], None]) -> None:
    """Keep scores that another machine has taken, unless they are there; ``fill`` writes them.

    Raises:
        StorageError: they cannot be written.
    """
    cached_folder(runs / KEPT / name, fill)


def base_key(plan: Plan) -> str:
    """Folder name: the plan's base fingerprint and a digest of the code and libraries that score.

    It holds sources, package versions and the settings that change arithmetic.
    """
    packages = (*PACKAGES, *find_scheme(plan.quantization).packages)
    origin = [sources_digest(*ROOMS), package_versions(packages), settings()]
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    return f"{plan.base_fingerprint[:DIGITS]}-{digest[:16]}"


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


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=target) from None

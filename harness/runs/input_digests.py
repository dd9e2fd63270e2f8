"""Input digests: the local files that a plan names by digest must be those that are read."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import InvalidFile
from harness.spec.digests import file_sha256
from harness.spec.known_digests import forget_digest
from harness.spec.plan import Plan
from harness.spec.plan_digests import corpus_sha256, data_sha256, local_files, model_sha256


def check_inputs(plan: Plan) -> None:
    """Hash corpus, task data and model folder in full and hold them to the plan.

    Raises:
        InvalidFile: one of them is not what was planned with.
        StorageError: one of them cannot be read.
    """
    model, source = plan.model, getattr(plan.model.source, "path", None)
    folder = plan.score.data_folder or plan.score.include_path
    inputs: tuple[tuple[str, object, str | None, Callable[[], str | None]], ...] = (
        ("corpus", plan.corpus.source, plan.corpus_sha256, lambda: corpus_sha256(plan.corpus)),
        ("task data", folder, plan.data_sha256, lambda: data_sha256(plan.score)),
        ("model folder", source, plan.model_sha256, lambda: model_sha256(model, file_sha256)),
    )
    for what, where, planned, digest in inputs:
        if planned is None or digest() == planned:
            continue
        for path in local_files(model):
            forget_digest(path)
        raise InvalidFile(
            f"the {what} has changed since the run was planned",
            where=where,
            expected=f"the bytes whose SHA-256 is {planned[:12]}…",
            hint="start the command again to plan with what is there now; if nobody has changed "
            "it, the disk or the copy is damaged",
        )

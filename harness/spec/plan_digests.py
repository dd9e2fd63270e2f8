"""Plan digests: of the corpus, the task data and the model folder that a plan reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from harness.errors import CorpusError, StorageError, UserError
from harness.spec.digests import data_fingerprint, file_sha256
from harness.spec.known_digests import known_sha256
from harness.spec.model import FolderSource, Model
from harness.spec.storage import meant
from harness.spec.suite import CorpusSpec, ScoreSpec


def is_task_file(task: str) -> bool:
    """Whether a task is a file of one's own; a stock name may hold a slash too."""
    return task.endswith((".yaml", ".yml"))


SAMPLE = Path(__file__).parents[1] / "corpus" / "sample.trees.jsonl"


def corpus_sha256(corpus: CorpusSpec) -> str | None:
    """SHA-256 of the corpus file or folder; null for the hub, where the revision is pinned."""
    if corpus.source.startswith("hub:"):
        return None
    path = SAMPLE if corpus.source == "sample" else Path(corpus.source).expanduser()
    if not (path.is_file() or path.is_dir()):
        raise CorpusError(
            "no such corpus",
            where=f"corpus.source = {corpus.source}",
            expected='"sample", a file, a folder, or "hub:OpenAssistant/oasst1@<revision>"',
            hint=meant(path),
        )
    return _sha256(path)


def data_sha256(score: ScoreSpec) -> str | None:
    """SHA-256 of the folder with task data and of one's own task files; null without either."""
    folder = score.data_folder
    if folder is not None and not Path(folder).is_dir():
        raise UserError(
            "no such data folder",
            where=f"score.data_folder = {folder}",
            expected="a folder that mirrors hub data sets as <org>/<name>",
            hint=meant(Path(folder)),
        )
    data = None if folder is None else _sha256(Path(folder))
    own = _task_files(score)
    if not own:
        return data
    return data_fingerprint({"data": data, "tasks": [file_sha256(path) for path in own]})


def _task_files(score: ScoreSpec) -> list[Path]:
    """One's own task files, and what lies beside them: they include and call each other."""
    folders = {Path(task.name).parent for task in score.tasks if is_task_file(task.name)}
    if score.include_path is not None:
        folders.add(Path(score.include_path))
    found = {path for folder in folders for kind in TASK_FILES for path in folder.glob(kind)}
    if score.include_path is not None:
        found |= {path for kind in TASK_FILES for path in Path(score.include_path).rglob(kind)}
    return sorted(path for path in found if path.is_file())


TASK_FILES = ("*.yaml", "*.yml", "*.py")
TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors")


def model_files(model: Model) -> tuple[str, ...]:
    """Patterns of the files that a model is loaded from."""
    return (*MODEL_FILES, "*.py") if model.trust_remote_code else MODEL_FILES


def model_sha256(model: Model, digest: Callable[[Path], str] = known_sha256) -> str | None:
    """Digest of a local model folder; null for other sources, and where there is no folder.

    It covers every byte of every file that a model is loaded from. The ``digest`` of a large file
    may be one that is remembered (see :mod:`harness.spec.known_digests`).

    Raises:
        StorageError: a file cannot be read.
    """
    files = local_files(model)
    return data_fingerprint({path.name: digest(path) for path in files}) if files else None


def local_files(model: Model) -> list[Path]:
    """The files of a local folder that a model is loaded from; none for other sources."""
    if not isinstance(model.source, FolderSource):
        return []
    folder = Path(model.source.path).expanduser()
    found = {path for pattern in model_files(model) for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def _sha256(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    try:
        return _folder_sha256(path)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=path) from None


def _folder_sha256(folder: Path) -> str:
    """Digest of the names and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        line = f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n"
        digest.update(line.encode())
    return digest.hexdigest()

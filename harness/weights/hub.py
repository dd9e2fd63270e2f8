"""Hub: a repository's files in the hub's own cache, checked against the names of their blobs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from harness.errors import FetchError
from harness.records.events import Progress
from harness.spec.digests import file_sha256
from harness.spec.model import HubSource
from harness.spec.plan_digests import MODEL_FILES

GIT_SHA1 = re.compile("[0-9a-f]{40}")
SHA256 = re.compile("[0-9a-f]{64}")


def hub_snapshot(
    source: HubSource, progress: Progress, files: tuple[str, ...] = MODEL_FILES
) -> Path:
    """The folder with those ``files`` of the repository, every one as the hub sent it.

    A file that has changed in the cache since is fetched again.

    Raises:
        FetchError: no network, or a damaged file that cannot be fetched again.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    progress.note(f"fetching {source.repository} from the hub")
    try:
        folder = Path(
            snapshot_download(
                source.repository, revision=source.revision, allow_patterns=list(files)
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FetchError(
            f"cannot fetch {source.repository}@{source.revision[:12]} from the Hugging Face hub",
            where=type(error).__name__,
            expected="a network that reaches the hub, or the revision in the hub's local cache",
            hint='download it elsewhere and use a model TOML with source = {kind = "folder", …}',
        ) from error
    wanted = {path for pattern in files for path in folder.glob(pattern)}
    for path in sorted(wanted):
        if not is_blob(path):
            progress.note(f"fetched again: {path.name}, which has changed in the hub's cache")
            _fetch_again(source, path)
    return folder


def is_blob(path: Path) -> bool:
    """Whether a file of the cache is what its blob's name says: the SHA-256, or git's SHA-1.

    A file without such a name, as on systems without links, cannot be checked.
    """
    blob = path.resolve()
    if SHA256.fullmatch(blob.name):
        return file_sha256(blob) == blob.name
    if GIT_SHA1.fullmatch(blob.name):
        data = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        return found.hexdigest() == blob.name
    return True


def _fetch_again(source: HubSource, path: Path) -> None:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(source.repository, path.name, revision=source.revision, force_download=True)
    except (OSError, ValueError) as error:
        raise _damaged(source, path) from error
    if not is_blob(path):
        raise _damaged(source, path)


def _damaged(source: HubSource, path: Path) -> FetchError:
    return FetchError(
        f"{path.name} of {source.repository} is not what the hub sent: the cache is damaged",
        where=path.resolve(),
        expected="the bytes whose digest is the file's name",
        hint="delete that file and fetch it again with a network that reaches the hub",
    )

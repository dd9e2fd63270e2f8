"""Push: a result, exported with its card, to a repository of the hub in one commit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.deploy.card import make_card
from harness.deploy.export import ExportOrder, export
from harness.errors import HarnessError, UserError
from harness.records.events import Progress
from harness.records.store import StoredRun

TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name


@dataclass(frozen=True)
class PushedFile:
    """One file that would go: its path in the repository and its bytes."""

    name: str
    bytes: int


def check_repository(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        UserError: it is not ``owner/name`` as the hub takes it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # no __all__

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"{name!r} is not a repository name: {error}", where="--to") from None
    if "/" not in name:
        raise UserError(f"{name!r} is not a repository name", where="--to", expected="owner/name")


def token_of_environment() -> str:
    """The token that uploads need. It is read from the environment only and kept nowhere.

    Raises:
        UserError: there is none.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            "there is no token to upload with",
            where=f"the environment variable {TOKEN}",
            expected="a token of the hub that may write to the repository",
            hint="leave --yes out to see what would be uploaded",
        )
    return token


def prepare(run: StoredRun, order: ExportOrder, progress: Progress) -> list[PushedFile]:
    """Export a result with its card into ``order.target``; the files that would go, by name.

    Raises:
        HarnessError: as :func:`harness.deploy.export.export` and
            :func:`harness.deploy.card.make_card`.
    """
    card = make_card(run, order.form)  # before an export that may take minutes
    export(run, order, progress)
    card.write(order.target)
    return [
        PushedFile(path.relative_to(order.target).as_posix(), path.stat().st_size)
        for path in sorted(order.target.rglob("*"))
        if path.is_file()
    ]


def upload(folder: Path, repository: str, token: str, *, private: bool) -> str:
    """Upload every file of a prepared folder in one commit; the commit's address.

    The repository is made where it does not exist. One commit holds everything, so a broken
    upload leaves the repository as it was.

    Raises:
        HarnessError: the hub cannot be reached, or it refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    operations = [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    with _explained(repository, token):
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message="Upload a scored result")
    return str(done.commit_url)


@contextmanager
def _explained(repository: str, token: str) -> Iterator[None]:
    """The hub's refusals as errors of the harness, without the token in any of them."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The client sends through httpx or its successor; both call the root of their errors this.
    failures: tuple[type[Exception], ...] = (OSError, ValueError)
    for kind in HfHubHTTPError.__mro__:
        if kind.__name__ == "HTTPError" and issubclass(kind, Exception):
            failures += (kind,)
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(
            "the hub's client is offline",
            where="the environment variable HF_HUB_OFFLINE",
            expected="0 or unset for an upload",
        ) from None
    except failures as error:
        said = " ".join(str(error).split()).replace(token, "…")
        raise HarnessError(
            f"the upload failed: {said}",
            where=repository,
            hint="the same command again; one commit holds all files, so there are all or none",
        ) from None

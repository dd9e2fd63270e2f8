"""Bucket: finished runs in a store that fsspec reaches, shared by machines without common disks."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from harness.errors import HarnessError, InvalidFile, RunInUse, StorageError, UserError
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore, altered_part, is_whole
from harness.runs.listener import Listener, RunResult
from harness.runs.lock import held
from harness.runs.stop import Stop
from harness.spec.schema import Frozen
from harness.spec.storage import read_json, write_json

RECORD = "record.json"
JUDGED = (RECORD, "plan.json")  # what a study judges by; and the items
PART = ".part"  # ends the name of a file that is just being written


class Rest(Frozen):
    """Files of a run that were left where they lie, below a store's URL."""

    store: str
    name: str
    files: tuple[str, ...]


class Bucket(Listener):
    """Run folders below a URL, laid out as below ``reports/runs``, and texts that machines share.

    The record is written last, and under another name first: a run is there whole or not at all.
    Of others' runs this machine fetches what a study judges by, the record and its items; the
    adapter and the log come when somebody wants them (:func:`fetch_rest`).
    """

    def __init__(
        self, url: str, store: RunStore, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Share the runs of ``store`` at ``url``, such as ``s3://bucket/study``.

        ``say`` hears what a person should know of it.

        Raises:
            UserError: fsspec does not know the URL, or lacks the package for it.
        """
        from fsspec.core import url_to_fs

        self._url = url
        self._store = store
        self._say, self._lacks = say, False
        self._there: set[str] = set()
        self._fetched: set[str] = set()
        self._texts: dict[str, str] = {}  # by path: what `share` has laid down or found
        try:
            self._files, root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"--store {url}: {error}",
                expected="a URL that fsspec knows, such as s3://bucket/folder",
                hint="packages such as s3fs, gcsfs or adlfs add kinds of stores",
            ) from None
        self._root = root.rstrip("/")

    def exchange(self, wanted: Collection[str], had: Collection[str]) -> int:
        """Fetch runs that are ``wanted`` and there; send those that this machine ``had`` alone.

        Both are names of run folders. Returns how many were fetched.

        Raises:
            StorageError: the store cannot be read or written.
            InvalidFile: what lies there is no such run.
        """
        with self._explained():
            self._there = set(self._names())
        for name in had:
            if name not in self._there:
                self._send(name)
        new = [name for name in wanted if name in self._there and name not in self._fetched]
        return sum(self._fetch(name) for name in new)

    def share(self, folder: str, own: Collection[str]) -> list[str]:
        """Lay short texts of this machine down in ``folder``; returns those of all machines.

        Each is a file that is named by its digest, so that nothing is ever written over.

        Raises:
            StorageError: the store cannot be read or written.
        """
        place = f"{self._root}/{folder}"
        with self._explained():
            self._files.invalidate_cache()
            there = {path.rpartition("/")[2] for path in self._files.glob(f"{place}/*.json")}
            for text in own:
                name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
                self._texts[f"{place}/{name}"] = text
                if name not in there:
                    self._files.makedirs(place, exist_ok=True)
                    passing = _passing(f"{place}/{name}")
                    self._files.pipe_file(passing, text.encode())
                    self._files.mv(passing, f"{place}/{name}")
            for path in (f"{place}/{name}" for name in there):
                if path not in self._texts:
                    self._texts[path] = self._files.cat_file(path).decode(errors="replace")
        return [text for path, text in self._texts.items() if path.startswith(f"{place}/")]

    def result(self, result: RunResult) -> None:
        """Send a run as soon as it has ended well."""
        if result.record is not None and result.record.status == "ok":
            name = result.record.plan.run_name
            if name not in self._there:
                self._send(name)

    def _names(self) -> Iterator[str]:
        self._files.invalidate_cache()
        for path in self._files.glob(f"{self._root}/*/*/*/{RECORD}"):
            yield "/".join(path.split("/")[-4:-1])

    def _send(self, name: str) -> None:
        folder = RunFolder(self._store.root / name)
        try:
            fetch_rest(folder)
        except HarnessError as error:  # a study judges by the record and its items, which are here
            self._say_that_it_lacks(name, error)
        made = [*folder.items.rglob("*"), *folder.adapter.rglob("*")]
        single = (folder.log, folder.events, folder.plan)
        with self._explained():
            for path in (*made, *single):
                if path.is_file():
                    self._put(path, f"{name}/{path.relative_to(folder.path).as_posix()}")
            passing = _passing(f"{name}/{RECORD}")
            self._put(folder.record, passing)
            self._files.mv(f"{self._root}/{passing}", f"{self._root}/{name}/{RECORD}")
        self._there.add(name)

    def _say_that_it_lacks(self, name: str, error: HarnessError) -> None:
        """Say once that a run goes to the store without what another store should have had."""
        if not self._lacks:
            self._say(
                f"{name} is sent to the store without its adapter and log, which cannot be "
                f"fetched: {error.what} ({error.where}); so is every other run of which this holds"
            )
        self._lacks = True

    def _put(self, path: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), target)

    def _fetch(self, name: str) -> bool:
        """Take a run over, unless a process of this machine is just making it."""
        folder = RunFolder(self._store.root / name)
        try:
            with held(folder, lambda _: None, Stop(), wait=False):
                return self._take(name, folder)
        except RunInUse:
            return False

    def _take(self, name: str, folder: RunFolder) -> bool:
        back = RunFolder(folder.path / ".fetched")
        shutil.rmtree(back.path, ignore_errors=True)
        try:
            with self._explained():
                there = self._files_of(name)
                wanted = [one for one in there if self._is_judged(one)]
                self._get(name, wanted, back.path)
                self._check(name, back)
                left = tuple(one for one in there if one not in wanted)
                if left:
                    write_json(back.rest, Rest(store=self._whole_url(), name=name, files=left))
                folder.take(back.path)
        finally:
            shutil.rmtree(back.path, ignore_errors=True)
        self._fetched.add(name)
        return True

    def take_rest(self, name: str, files: Collection[str], folder: RunFolder) -> None:
        """Complete a run of which this machine has the record and its items.

        Raises:
            StorageError: the store cannot be read, or no longer has the run.
            InvalidFile: what lies there is not of this run.
        """
        with self._explained():
            lost = self._has_lost(name)
        if lost:
            folder.rest.unlink(missing_ok=True)
            raise StorageError(
                "the run is no longer in the store",
                where=f"{self._url.rstrip('/')}/{name}",
                expected="its adapter and its log",
                hint="run it again with --force, or take its folder from the machine that made it",
            )
        files = [file for file in files if not file.endswith(PART)]  # older harnesses named them
        back = RunFolder(folder.path / ".fetched")
        shutil.rmtree(back.path, ignore_errors=True)
        try:
            with self._explained():
                self._get(name, files, back.path)
                if altered_part(read_json(folder.record, RunRecord), back) is not None:
                    # two machines may have sent one run
                    raise self._other_run(name, "its adapter is not that of its record")
                for one in files:
                    (folder.path / one).parent.mkdir(parents=True, exist_ok=True)
                    (back.path / one).replace(folder.path / one)
            folder.rest.unlink(missing_ok=True)
        finally:
            shutil.rmtree(back.path, ignore_errors=True)

    def _has_lost(self, name: str) -> bool:
        """Whether a run was removed. An empty store may be a disk that is not mounted."""
        self._files.invalidate_cache()
        return bool(self._files.ls(self._root)) and not self._files.exists(f"{self._root}/{name}")

    def _is_judged(self, file: str) -> bool:
        """Whether a file comes at once: also all others, where the URL must not be written down."""
        return file in JUDGED or file.startswith("items/") or bool(urlsplit(self._url).password)

    def _files_of(self, name: str) -> list[str]:
        """Files of a run folder there, by their paths in it, but for what is just being sent."""
        start = f"{self._root}/{name}/"
        found = (path for path in self._files.find(start.rstrip("/")) if not path.endswith(PART))
        return sorted(path[path.index(start) + len(start) :] for path in found)

    def _get(self, name: str, files: Collection[str], folder: Path) -> None:
        for file in files:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{name}/{file}", str(path))

    def _whole_url(self) -> str:
        """The URL as it is understood from any folder of this machine."""
        is_local = "file" in self._files.protocol
        return str(self._files.unstrip_protocol(self._root)) if is_local else self._url

    def _check(self, name: str, back: RunFolder) -> None:
        record = read_json(back.record, RunRecord)
        if record.plan.run_name != name:
            raise self._other_run(name, f"it holds the run {record.plan.run_name}")
        if not all(is_whole(score, back.path) for score in record.scores):
            raise self._other_run(name, "its items are not those of its record")

    def _other_run(self, name: str, found: str) -> InvalidFile:
        return InvalidFile(
            found,
            where=f"{self._url.rstrip('/')}/{name}",
            expected="a run folder as the harness has sent it",
            hint="remove it there; it will be run again",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except HarnessError:
            raise
        except Exception as error:
            # Every kind of store has errors of its own, which share no class.
            raise StorageError(
                f"the store cannot be used: {type(error).__name__}: {error}",
                where=self._url,
                hint="check that you may read and write there",
            ) from error


def _passing(path: str) -> str:
    """Another name of a file until it is whole; two machines may be writing the same one."""
    return f"{path}.{uuid4().hex}{PART}"


def fetch_rest(folder: RunFolder) -> None:
    """Fetch what another machine's run left in its store; nothing where all of it is here.

    Raises:
        UserError: the store's kind is not known here.
        StorageError: the store cannot be read, or no longer has the run.
        InvalidFile: what lies there is not of this run.
    """
    if not folder.rest.is_file():
        return
    rest = read_json(folder.rest, Rest)
    bucket = Bucket(rest.store, RunStore(folder.path.parents[2]))
    with held(folder, lambda _: None, Stop(), wait=True):
        if folder.rest.is_file():  # another command may just have fetched it
            bucket.take_rest(rest.name, rest.files, folder)

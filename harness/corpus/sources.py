"""Sources: where a suite's conversations come from, and which bytes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from harness.corpus.fields import Location
from harness.corpus.files import SUFFIXES, UNREAD_COLUMNS, DataRecord, read_records
from harness.corpus.formats import load_format, recognise
from harness.corpus.trees import MessageTree, TreeGrower
from harness.errors import CorpusError, FetchError
from harness.spec.digests import file_sha256
from harness.spec.plan_digests import SAMPLE
from harness.spec.storage import meant
from harness.spec.suite import HUB_SOURCE, CorpusSpec

TABLES = (".parquet", ".arrow")
TEXTS = tuple(
    kind + suffix for kind in (".jsonl", ".json", ".ndjson") for suffix in ("", *SUFFIXES)
)
SHEETS = (".csv", ".tsv", ".xlsx")
UNREADABLE = (*SHEETS, ".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".pickle", ".pkl")
NOT_DATA = ("state.json", "dataset_info.json", "dataset_infos.json")


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """A source found: files, or a hub data set at a revision."""

    name: str
    files: tuple[Path, ...]
    repository: str | None = None
    revision: str | None = None
    folder: Path | None = None

    @property
    def is_sample(self) -> bool:
        """Whether it is the bundled sample."""
        return self.files == (SAMPLE,)

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each file: its path inside the folder, or its name."""
        if self.folder is None:
            return tuple(path.name for path in self.files)
        return tuple(path.relative_to(self.folder).as_posix() for path in self.files)

    @property
    def sha256(self) -> str | None:
        """Of the file; None for a folder or the hub."""
        return file_sha256(self.files[0]) if len(self.files) == 1 and self.folder is None else None

    @property
    def fingerprint(self) -> str:
        """Changes whenever the content may have: hashes of all files, or the hub revision."""
        if self.repository is not None:
            return f"{self.repository}@{self.revision}"
        named = zip(self.names, self.files, strict=True)
        return " ".join(f"{name}={file_sha256(path)}" for name, path in named)


def find_source(spec: CorpusSpec) -> CorpusSource:
    """Locate ``spec.source``.

    A folder's tables (parquet, Arrow) are taken before its texts, since snapshots of the hub
    hold the same messages in both. All splits are read: the harness splits by tree itself.

    Raises:
        CorpusError: nothing is there.
    """
    found = HUB_SOURCE.fullmatch(spec.source)
    if found is not None:
        return CorpusSource(found["repository"], (), found["repository"], found["revision"])
    path = SAMPLE if spec.source == "sample" else Path(spec.source).expanduser()
    if path.is_dir():
        files = _folder_files(path)
        if not files:
            raise CorpusError(
                "the folder holds no data file", where=path, expected=", ".join(TABLES + TEXTS)
            )
        return CorpusSource(path.name, files, folder=path)
    if not path.is_file():
        raise CorpusError(
            "no such corpus",
            where=f"source = {spec.source!r}",
            expected='"sample", a file, a folder, or "hub:OpenAssistant/oasst1@<commit>"',
            hint=meant(path),
        )
    if path.name.lower().endswith(SHEETS):
        raise CorpusError(
            f"a {path.suffix} file is not read",
            where=path,
            expected=", ".join(TABLES + TEXTS),
            hint=f"convert it: pandas.{_reader(path)}.to_parquet({path.stem + '.parquet'!r})",
        )
    return CorpusSource(path.name, (path,))


def _reader(path: Path) -> str:
    """What pandas reads a sheet with."""
    name = path.name
    return {
        ".csv": f"read_csv({name!r})",
        ".tsv": f"read_csv({name!r}, sep='\\t')",
        ".xlsx": f"read_excel({name!r})",
    }[path.suffix.lower()]


def _folder_files(folder: Path) -> tuple[Path, ...]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in NOT_DATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    refused = next((path for path in files if path.name.lower().endswith(UNREADABLE)), None)
    if refused is not None:
        raise CorpusError(
            f"the folder holds data that cannot be read: {refused.relative_to(folder)}",
            where=folder,
            expected=", ".join(TABLES + TEXTS),
            hint="convert or move that file, or name one file as source",
        )
    tables = tuple(path for path in files if path.name.endswith(TABLES))
    return tables or tuple(path for path in files if path.name.endswith(TEXTS))


def read_trees(source: CorpusSource, spec: CorpusSpec, grower: TreeGrower) -> Iterator[MessageTree]:
    """Every tree of the source, in the order of the files.

    Raises:
        CorpusError: the files are of different formats, or broken (see ``on_bad``).
        FetchError: the hub cannot be reached.
    """
    if source.repository is not None:
        parts = iter([_hub_records(source)])
    else:
        parts = (
            read_records(path, grower.complaints, name)
            for path, name in zip(source.files, source.names, strict=True)
        )
    if spec.format != "auto":
        load_format(spec.format)  # an unknown name is said before a file is read
    first = next(parts)
    name, records = recognise(first, spec.format)
    rest = (_same_format(part, name, spec.format) for part in parts)
    yield from load_format(name).read(chain(records, chain.from_iterable(rest)), grower)


def _same_format(records: Iterator[DataRecord], name: str, asked: str) -> Iterator[DataRecord]:
    found, records = recognise(records, asked)
    first = next(records, None)
    if first is None:
        return
    if found != name:
        raise CorpusError(
            f"the folder mixes formats: {name} before, {found} here",
            where=first.place.file,
            hint="name one file, or a folder of files of one format",
        )
    yield first
    yield from records


def _hub_records(source: CorpusSource) -> Iterator[DataRecord]:
    import datasets

    try:
        splits: dict[str, Any] = datasets.load_dataset(source.repository, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise FetchError(
            f"cannot fetch the data set: {str(error).splitlines()[0]:.200}",
            where=f"{source.repository} at {source.revision}",
            hint="check the network and the revision, or name a local copy as source",
        ) from None
    for split, rows in splits.items():
        unread = [name for name in UNREAD_COLUMNS if name in rows.column_names]
        for number, row in enumerate(rows.remove_columns(unread), start=1):
            yield DataRecord(Location(f"{source.name} {split}", number, unit="row"), row)

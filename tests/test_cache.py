"""A cached folder appears whole or not at all, once, whoever asks for it."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cache import ENVIRONMENT_VARIABLE, Reuse, cache_folder, cached_folder
from harness.errors import FetchError, StorageError
from harness.records.events import Silence


def nothing(folder: Path) -> None:
    """Fill a folder with nothing."""


def test_the_environment_chooses_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert cache_folder().name == "finetune-harness"


def test_a_folder_is_filled_once(tmp_path: Path) -> None:
    calls = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "weights").write_text("w")

    for _ in range(2):
        assert (cached_folder(tmp_path / "a" / "model", fill) / "weights").read_text() == "w"
    assert len(calls) == 1


def test_a_failure_leaves_nothing_that_a_later_run_would_trust(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise FetchError("the line went dead")

    with pytest.raises(FetchError, match="the line went dead"):
        cached_folder(tmp_path / "model", fail)
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert left == []
    assert cached_folder(tmp_path / "model", nothing).is_dir()


def test_an_interrupt_leaves_nothing_either(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(tmp_path / "model", interrupted)
    assert not (tmp_path / "model").exists()
    assert list(tmp_path.glob(".model.*")) == []


def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(StorageError, match="cannot use the cache") as caught:
        cached_folder(tmp_path / "cache" / "models" / "m", nothing)
    assert ENVIRONMENT_VARIABLE in str(caught.value)
    assert str(tmp_path / "cache") in str(caught.value)


def test_of_two_processes_one_fills_and_the_other_waits(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time\n"
        "from harness.cache import cached_folder\n"
        "def fill(folder):\n"
        "    with (pathlib.Path(sys.argv[1]) / 'calls').open('a') as file:\n"
        "        file.write('call\\n')\n"
        "    (folder / 'one').write_text('1')\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'two').write_text('2')\n"
        "found = cached_folder(pathlib.Path(sys.argv[1]) / 'model', fill)\n"
        "print(sorted(path.name for path in found.iterdir()))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0].strip() for process in both]
    assert outputs == ["['.digests.json', 'one', 'two']"] * 2
    assert (tmp_path / "calls").read_text() == "call\n"


class Kept:
    """A kept folder of three files, and what was said about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made = 0
        self.notes: list[str] = []

    def ask(self, order: str | None = None) -> dict[str, bytes]:
        """Contents of the folder's files, hidden ones left out."""
        progress = Silence()
        progress.note = self.notes.append  # type: ignore[method-assign]
        folder = cached_folder(self.path, self._fill, Reuse(progress, order))
        return {path.name: path.read_bytes() for path in self.files(folder)}

    @staticmethod
    def files(folder: Path) -> list[Path]:
        return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name[0] != "."]

    def _fill(self, folder: Path) -> None:
        self.made += 1
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_bytes(bytes(range(256)) * 100)
        (folder / "config").write_text("{}")
        (folder / "empty").write_text("")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "models" / "m-1")


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bit_is_noticed_and_the_folder_made_again(kept: Kept, seed: int) -> None:
    wanted, chance = kept.ask(), random.Random(seed)
    path = chance.choice(
        [p for p in sorted(kept.path.rglob("*")) if p.is_file() and p.stat().st_size]
    )
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    assert kept.ask() == wanted
    # A flip in a key's name or a space of the list of digests may leave what it says unchanged.
    assert kept.made == 2 or path.name == ".digests.json"
    assert kept.ask() == wanted
    assert kept.made <= 2


def grow(folder: Path) -> None:
    with (folder / "config").open("a") as file:
        file.write(" ")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config").unlink(), "which lacks config"),
        (lambda folder: (folder / "added_tokens.json").write_text("{}"), "was given added_tokens"),
        (lambda folder: os.truncate(folder / "inner" / "weights", 25_599), "weights has changed"),
        (grow, "whose config has changed"),
        (lambda folder: (folder / "empty").write_text("x"), "whose empty has changed"),
        (lambda folder: shutil.rmtree(folder / "inner"), "which lacks inner/weights"),
        (lambda folder: (folder / ".digests.json").unlink(), "which has no digests"),
        (lambda folder: (folder / ".digests.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / ".digests.json").write_bytes(b"\xff"), "is damaged"),
        (lambda folder: (folder / "config").rename(folder / "settings"), "which lacks config"),
        (lambda folder: (folder / "config").replace(folder / "empty"), "which lacks config"),
    ],
)
def test_whatever_is_damaged_is_made_again_and_said(
    kept: Kept, damage: Callable[[Path], object], said: str
) -> None:
    wanted = kept.ask()
    damage(kept.path)
    assert kept.ask() == wanted
    (note,) = kept.notes
    assert note.startswith(f"made again: m-1 in {kept.path.parent}, ")
    assert said in note
    assert kept.ask() == wanted
    assert kept.made == 2
    left = sorted(path.name for path in kept.path.parent.iterdir())
    assert left == ["m-1", "m-1.lock"]


def test_a_file_where_the_folder_belongs_is_replaced(kept: Kept) -> None:
    kept.path.parent.mkdir()
    kept.path.write_text("not a folder")
    kept.ask()
    assert kept.path.is_dir()
    assert kept.notes


def test_an_order_takes_over_only_what_was_made_under_it(kept: Kept) -> None:
    kept.ask()
    kept.ask("first")
    kept.ask("first")
    kept.ask()
    assert kept.made == 2
    kept.ask("second")
    assert kept.made == 3


def test_other_users_may_read_what_is_kept(kept: Kept) -> None:
    """A folder made 0700 once locked a second user out of a shared cache."""
    before = os.umask(0o022)
    try:
        kept.ask()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.path.rglob("*")}
    assert modes == {
        ".digests.json": 0o644,
        "config": 0o644,
        "empty": 0o644,
        "inner": 0o755,
        "weights": 0o644,
    }
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o755


def test_a_cautious_umask_is_heeded(kept: Kept) -> None:
    before = os.umask(0o077)
    try:
        kept.ask()
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o700


AS_ANOTHER = """
import os, pathlib, sys
from harness.cache import cached_folder, flaw
from harness.errors import HarnessError
flaw(pathlib.Path("/"))  # so that whatever is imported later is there
os.setgid(65534), os.setuid(65534)
try:
    print(cached_folder(pathlib.Path(sys.argv[1]), lambda folder: print("filled")).name)
except HarnessError as error:
    print(error)
"""


@pytest.fixture
def shared() -> Iterator[Kept]:
    """A cache in a folder that all users may enter, which pytest's own is not."""
    if os.name != "posix" or os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Kept(Path(name) / "models" / "m-1")


def as_another_user(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(path)], capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_a_second_user_reads_a_shared_cache(shared: Kept) -> None:
    shared.ask()
    assert as_another_user(shared.path) == "m-1"


@pytest.mark.parametrize("closed", [".", "m-1", "m-1/inner", "m-1/config"])
def test_what_may_not_be_read_is_a_message_with_a_hint(shared: Kept, closed: str) -> None:
    shared.ask()
    (shared.path.parent / closed).chmod(0o700)
    said = as_another_user(shared.path)
    assert "cannot use the cache: Permission denied" in said
    assert str(shared.path.parent) in said
    assert ENVIRONMENT_VARIABLE in said


def test_a_damaged_folder_of_another_user_is_a_message_too(shared: Kept) -> None:
    shared.ask()
    (shared.path / "config").write_text("damaged")
    assert "cannot use the cache: Permission denied" in as_another_user(shared.path)

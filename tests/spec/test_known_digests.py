"""A remembered digest is that of the file as it is, as far as the file system tells."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.spec import known_digests
from harness.spec.known_digests import SMALL_BYTES, forget_digest, known_sha256
from harness.spec.places import ENVIRONMENT_VARIABLE

SIZE = SMALL_BYTES + 5


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that was really read."""
    read: list[Path] = []

    def counting(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(known_digests, "file_sha256", counting)
    return read


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file, and a cache of its own; files count as settled at once."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(known_digests, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(SIZE))
    return path


def test_a_large_file_is_hashed_once(large: Path, hashed: list[Path]) -> None:
    assert known_sha256(large) == known_sha256(large) == sha256(large)
    assert len(hashed) == 1


def _rewrite(path: Path) -> None:
    path.write_bytes(b"x" + bytes(SIZE - 1))


def _rewrite_with_old_times(path: Path) -> None:
    """As `cp -p` and rsync do: size and time of writing are those of the old file."""
    state = path.stat()
    _rewrite(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"x" + bytes(SIZE - 1))
    state = path.stat()
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(path)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [_rewrite, _rewrite_with_old_times, _replace, _append])
def test_a_changed_file_is_hashed_again(large: Path, change: Callable[[Path], None]) -> None:
    before = known_sha256(large)
    change(large)
    assert known_sha256(large) == sha256(large) != before


def test_a_file_written_just_now_is_not_remembered(
    large: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "SETTLED_SECONDS", 1e6)
    assert known_sha256(large) == known_sha256(large)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00", None])
def test_a_damaged_memory_is_no_memory(large: Path, damage: bytes | None) -> None:
    wanted = known_sha256(large)
    (memory,) = (large.parent / "cache" / "digests").iterdir()
    text = memory.read_bytes()
    memory.write_bytes(text.replace(wanted[:8].encode(), b"00000000") if damage is None else damage)
    assert known_sha256(large) == wanted


def test_what_cannot_be_remembered_is_hashed(
    large: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(large / "no folder"))
    assert known_sha256(large) == known_sha256(large) == sha256(large)
    assert len(hashed) == 2


def test_a_digest_can_be_forgotten(large: Path, hashed: list[Path]) -> None:
    known_sha256(large)
    forget_digest(large)
    known_sha256(large)
    assert len(hashed) == 2
    forget_digest(large.with_name("nowhere"))

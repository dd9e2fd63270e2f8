"""Every small input that once failed, through the command that a user would type."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import FetchError
from harness.records.store import RunStore
from harness.runs.options import DEFAULT_OPTIONS
from harness.spec.storage import write_json
from harness.weights.convert import convert_gguf
from tests.cli.terminal import Shown, harness
from tests.runs.small_run import Small, make_small

CASES = Path(__file__).parents[2] / "shared" / "cases"


@dataclass(frozen=True)
class World:
    """A tiny suite, and an empty folder."""

    small: Small
    folder: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("small"), steps=1)


@pytest.fixture
def world(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "cache"))
    return World(small, tmp_path)


def _corpus(case: Path, world: World) -> Shown:
    source = f"corpus.source={case}"
    return harness("corpus", "--suite", str(world.small.suite), "--set", source, "--samples", "99")


def _variant(case: Path, world: World) -> Shown:
    return harness("plan", "--suite", str(world.small.suite), "-v", str(case))


def _suite(case: Path, _world: World) -> Shown:
    return harness("plan", "-v", "base", "--suite", str(case))


def _template(case: Path, world: World) -> Shown:
    """The case as the chat template in the model's own folder."""
    weights = shutil.copytree(world.small.folder / "weights", world.folder / "weights")
    shutil.copy(case, weights / "chat_template.jinja")
    model = world.folder / "own.toml"
    text = (world.small.folder / "small.toml").read_text()
    text = text.replace(str(world.small.folder / "weights"), str(weights))
    model.write_text(text.replace('chat_template = "chatml"\n', ""))
    own = ("--suite", str(world.small.suite), "--model", str(model))
    first = harness("corpus", *own)
    second = harness("plan", "-v", "lora_bf16", *own)
    assert (first.code, first.stderr) == (second.code, second.stderr)
    return second


def _gguf(case: Path, world: World) -> Shown:
    path = world.folder / "model.gguf"
    path.write_bytes(gzip.decompress(case.read_bytes()))
    made = world.folder / "made"
    made.mkdir()
    try:
        convert_gguf(path, made)
    except FetchError as error:
        return Shown(error.exit_code, "", str(error))
    return Shown(0, "", "")


def _events(case: Path, world: World) -> Shown:
    """The case as what an abandoned attempt has said; its suite can still be reported."""
    plan = world.small.plan()
    attempt = RunStore(world.folder / "runs").folder(plan).attempt
    attempt.path.mkdir(parents=True)
    write_json(attempt.plan, plan)
    write_json(attempt.options, DEFAULT_OPTIONS)
    shutil.copy(case, attempt.events)
    listed = harness("list", "runs", "--reports", str(world.folder))
    assert "interrupted" in listed.stdout, listed.stdout
    return harness("report", "--reports", str(world.folder), "--suite", plan.suite)


@dataclass(frozen=True)
class Right:
    """How a case is tried, the exit code, and what the command says, in full and never."""

    try_it: Callable[[Path, World], Shown]
    code: int
    says: tuple[str, ...]
    never: tuple[str, ...] = ("\x1b", "Traceback")


DAMAGED = ("cut or damaged", "fetch the file again")
RIGHT = {
    "data/dolly.jsonl": Right(_corpus, 0, ("CONTEXTTEXT 17<", "prompt, after a blank line (24)")),
    "data/alpaca_history.jsonl": Right(
        _corpus, 0, ("earlier turns (24)", "system message (24)", "HISTORYQ", "SYSTEMTEXT<")
    ),
    "data/sharegpt_sys_toplevel.jsonl": Right(
        _corpus, 0, ("system message (24)", "SYSTEMTEXT be brief<")
    ),
    "data/messages_weight0.jsonl": Right(_corpus, 0, ("BADREPLY 7<",), never=("⟦BADREPLY",)),
    "data/classify_error.jsonl": Right(_corpus, 0, ("⟦positive<", "⟦negative<")),
    "data/bad_timestamp.parquet": Right(_corpus, 0, ("Where does", "not read (24)")),
    "data/z.jsonl.zst": Right(_corpus, 0, ("Where does", "turns (24)")),
    "corpus/damaged-1.arrow": Right(_corpus, 2, (*DAMAGED, "damaged-1.arrow")),
    "corpus/damaged-2.arrow": Right(_corpus, 2, (*DAMAGED, "damaged-2.arrow")),
    "corpus/flip-1.parquet": Right(_corpus, 2, (*DAMAGED, "flip-1.parquet")),
    "corpus/type-1.parquet": Right(_corpus, 2, ("type-1.parquet, row 1, key review_result",)),
    "templates/include.jinja": Right(
        _template, 2, ("line 1: {% include '/etc/passwd' %}", "chat template cannot be used")
    ),
    "templates/typeerr.jinja": Right(
        _template, 2, ("line 1: {{ 1 + 'a' }}", "TypeError", "chat template cannot be used")
    ),
    "gguf/28.gguf.gz": Right(_gguf, 1, ("damaged",)),
    "gguf/39.gguf.gz": Right(_gguf, 1, ("damaged",)),
    "toml/variant-117.toml": Right(_variant, 2, ("variant-117.toml", "␛[2J")),
    "toml/variant-20.toml": Right(_variant, 2, ("variant-20.toml", "␛[2J")),
    "toml/variant-172.toml": Right(
        _variant, 2, ("variant-172.toml, [adapter] target_modules", "'(('")
    ),
    "toml/suite-24.toml": Right(_suite, 2, ("suite-24.toml, model", "unknown model 'sample'")),
    "events/badphase.jsonl": Right(_events, 0, ()),
    "events/noevtime.jsonl": Right(_events, 0, ()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_once_failed_is_right(name: str, world: World) -> None:
    case = CASES / name
    if not case.is_file():
        pytest.skip(f"no such case at {case}")
    right = RIGHT[name]
    done = right.try_it(case, world)
    text = done.stdout + done.stderr
    assert done.code == right.code, text
    assert [said for said in right.says if said not in text] == [], text
    assert [said for said in right.never if said in text] == []


def test_every_case_has_a_test() -> None:
    if not CASES.is_dir():
        pytest.skip(f"the known cases are not at {CASES}")
    files = {path.relative_to(CASES).as_posix() for path in CASES.rglob("*") if path.is_file()}
    assert files - {"README.md"} <= RIGHT.keys()

"""Whatever a file or an argument holds, the terminal shows it and does not obey it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from harness.cli.terminal import Door, visible
from harness.records.store import RunStore
from tests.cli.terminal import ROOT, harness, in_process, refused
from tests.planned import planned
from tests.store_records import record_of

CLEAR = "\x1b[2J"
COMMANDS = [
    "\x00",
    "\x07",
    "\x08",
    "\r",
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x7f",
    "\x9b31m",
    "\u202e",
]


def obeyed(text: str) -> bool:
    """Whether a character that steers a terminal is left, beyond colours that we chose."""
    return any(not c.isprintable() and c not in "\n\t" for c in text)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_becomes_a_picture_as_wide_as_it_is(command: str) -> None:
    text = visible(f"a{command}b\n\tc")
    assert not obeyed(text)
    assert text.startswith("a")
    assert text.endswith("b\n\tc")
    assert len(text) == len(f"a{command}b\n\tc")


def test_bytes_that_are_no_text_can_be_printed() -> None:
    visible(os.fsdecode(b"folder-\xff")).encode()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_door_holds_for_lines_tables_and_titles(command: str) -> None:
    door = Door(file=io.StringIO(), width=80)
    door.print(f"x{command}y", markup=False)
    table = Table(f"h{command}", title=f"t{command}")
    table.add_row(f"cell{command}")
    door.print(table)
    assert not obeyed(door.file.getvalue())  # type: ignore[attr-defined]


def test_colours_of_our_own_still_get_through() -> None:
    door = Door(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    door.print("red", style="red")
    assert "\x1b[31mred" in door.file.getvalue()  # type: ignore[attr-defined]


def toml(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


KEYS = ['"\\u001b[2J" = 1', 'training = {"\\u001b[2J" = 1}', 'name = "\\u001b[2J"']


@pytest.mark.parametrize("line", KEYS)
def test_keys_and_values_of_a_file(tmp_path: Path, line: str) -> None:
    own = toml(tmp_path, f'description = "d"\n{line}\n')
    for command in (("plan", "-v", own), ("show", own)):
        assert not obeyed(refused(*command))


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "-v", "base", "--set", f"training.{CLEAR}=1"),
        ("plan", "-v", "base", "--set", f"{CLEAR}=1"),
        ("plan", "-v", "base", "--seeds", CLEAR),
        ("plan", "-v", CLEAR),
        ("plan", "-v", f"{CLEAR}.toml"),
        ("plan", "-v", "base", "--gpu", CLEAR),
        ("report", "--suite", CLEAR),
        ("report", "--reports", CLEAR),
        ("compare", CLEAR, "b"),
        ("show", CLEAR),
        (CLEAR,),
        (f"--{CLEAR}",),
    ],
)
def test_arguments(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = in_process(*arguments)
    assert done.code == 2, done.stderr
    assert not obeyed(done.stdout + done.stderr)


def test_fields_of_a_record_and_the_name_of_a_folder(tmp_path: Path) -> None:
    reports = tmp_path / CLEAR
    store = RunStore(reports / "runs")
    store.write(record_of(planned("base")).model_copy(update={"started_at": CLEAR}))
    broken = store.write(record_of(planned("qlora_nf4")))
    broken.write_text("{")
    done = harness("list", "runs", "--reports", str(reports))
    assert done.code == 0
    assert "␛[2J" in done.stdout
    assert not obeyed(done.stdout)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "shift-jis"])
@pytest.mark.parametrize("command", [("list", "models"), ("show", "qlora_nf4"), ("show", "ñ␛")])
def test_any_encoding_will_do(encoding: str, command: tuple[str, ...]) -> None:
    script = "import sys; from harness.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == (2 if "ñ␛" in command else 0), done.stderr
    assert b"Error" not in done.stderr.replace(b"UserError", b"")


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_plan_in_a_locale_that_is_not_utf8() -> None:
    """Torch reads its own files, which are UTF-8, in the encoding of the locale."""
    done = in_process("plan", "-v", "qlora_nf4", "--device", "cpu", **C_LOCALE)
    assert done.code == 0, done.stderr
    assert done.stderr == "", "and no library has advice to give"
    assert done.stdout.isascii(), "what the terminal is sent stays in its own encoding"


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        (C_LOCALE, "ascii"),
        ({**C_LOCALE, "PYTHONIOENCODING": "iso8859-1"}, "iso8859-1"),
        ({"PYTHONUTF8": "1"}, "utf-8"),
        ({"LC_ALL": "C.UTF-8"}, "utf-8"),
    ],
)
def test_files_are_read_as_utf8_in_every_locale(environment: dict[str, str], encoding: str) -> None:
    script = "import locale, sys; from harness.__main__ import read_utf8; read_utf8()"
    script += "; print(locale.getpreferredencoding(False).lower(), sys.stdout.encoding, *sys.argv)"
    done = in_process("own", script=script, **environment)
    assert done.stdout.split() == ["utf-8", encoding, "-c", "own"]


@pytest.mark.parametrize("command", [("list",), ("list", "runs"), ("show", "base"), ("doctor",)])
def test_a_full_disk_for_the_output_is_the_machines_fault(command: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: cannot write the output: No space left on device"


def test_json_stays_json() -> None:
    done = harness("show", "qlora_nf4")
    assert json.loads(done.stdout)["name"] == "qlora_nf4"


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "harness.cli.study":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from harness.__main__ import main
main()
"""


def test_ctrl_c_while_the_commands_are_imported_is_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")

"""The command line as a whole: help, version, exit codes, and that it answers without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import __version__
from harness.cli.app import app
from harness.records.store import RunStore
from harness.runs.executor import EXECUTORS
from harness.spec.plugins import Plugins
from harness.trackers.choose import TRACKERS
from tests.cli.terminal import harness, in_process, refused, shown
from tests.planned import planned
from tests.store_records import record_of

COMMANDS = [command.name for command in app.registered_commands]
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "lm_eval", "bitsandbytes")
LOOK_UPS = (
    ("list",),
    ("list", "suites"),
    ("list", "models"),
    ("list", "runs"),
    ("show", "qlora_nf4"),
    ("show", "quick"),
    ("plan", "-v", "qlora_nf4_r4", "--set", "adapter.lora_alpha=8", "--json"),
    ("report",),
    ("compare", "base", "base"),
    ("doctor",),
    ("--help",),
)


def test_version_says_which_and_ends() -> None:
    assert shown("--version") == f"finetune-harness {__version__}\n"
    assert "Show the version and exit." in shown("--help")


def test_without_a_command_there_is_help() -> None:
    done = harness()
    assert "Usage" in done.stdout + done.stderr


def test_there_is_a_file_and_a_test_for_every_command() -> None:
    known = [
        "list",
        "show",
        "plan",
        "run",
        "report",
        "compare",
        "corpus",
        "doctor",
        "export",
        "chat",
        "generate",
        "card",
        "push",
        "study",
        "claims",
    ]
    assert sorted(filter(None, COMMANDS)) == sorted(known)
    for name in COMMANDS:
        assert Path(__file__).with_name(f"test_{name}.py").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_names_its_options(command: str) -> None:
    text = shown(command, "--help")
    assert "Usage: " in text
    assert f" {command} " in text
    assert "--help" in text


def help_of(command: str, option: str) -> str:
    """What a command's help says of one option."""
    text = " ".join(shown(command, "--help", width=400).split())
    return text.partition(f"{option} ")[2].partition(" │ │ --")[0]


@pytest.mark.parametrize("command", ["run", "study"])
@pytest.mark.parametrize(("option", "plugins"), [("--track", TRACKERS), ("--executor", EXECUTORS)])
def test_an_option_that_takes_a_name_names_all_that_the_harness_has(
    command: str, option: str, plugins: Plugins
) -> None:
    said = help_of(command, option)
    assert [name for name in plugins.built_in if name not in said] == []


def test_a_share_that_nobody_has_given_is_not_shown_as_none_of_the_peak() -> None:
    assert "default" not in help_of("study", "--peak-share")


def test_an_unknown_command_is_refused() -> None:
    assert "frobnicate" in refused("frobnicate")


def test_ctrl_c_while_looking_something_up_is_one_word_and_130(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.list.descriptions", interrupted)
    assert refused("list", code=130).strip() == "interrupted"


def test_looking_things_up_loads_no_deep_learning_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunStore(tmp_path / "reports" / "runs").write(record_of(planned("base")))
    script = (
        "import sys\n"
        "from harness.cli import main\n"
        f"for arguments in {LOOK_UPS!r}:\n"
        "    sys.argv = ['harness', *arguments]\n"
        "    code = main()\n"
        f"    loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    if code or loaded:\n"
        "        sys.exit(f'{arguments} ended with {code} and loaded {loaded}')\n"
    )
    done = in_process(script=script)
    assert done.code == 0, done.stderr
    assert (tmp_path / "reports" / "quick" / "report.md").is_file()


def test_as_a_process_it_prints_and_exits_the_same() -> None:
    done = in_process("show", "qlora")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown variant, suite, model or study 'qlora'")

"""However a child process ends, the parent sees how, and takes it and its own children along."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.errors import DivergedError, LostDevice, StorageError, UserError
from harness.records.store import RunFolder
from harness.runs.ending import (
    STOPPED,
    Ending,
    ending_of_error,
    ending_of_process,
    without_secrets,
)
from harness.runs.process import in_fresh_process, run_process
from harness.runs.stop import Stop

STARTED = '{"kind": "start", "time": 1, "clock": 1, "pid": 1}\n'
# A child that speaks and winds up. The signal waits until it is waited for, and so do those that
# come after it.
WINDS_UP = f"""
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})
open("events.jsonl", "a").write({STARTED!r})
signal.sigwait({{signal.SIGINT}})
print("wound up")
"""
GROUP = Path("/sys/fs/cgroup/memory/finetune-harness-test")


def ending_of(tmp_path: Path, code: str, timeout_seconds: float | None = None) -> Ending:
    """Run Python code as a child and say how it ended."""
    command = [sys.executable, "-c", code]
    return run_process(
        in_fresh_process(command), RunFolder(tmp_path), lambda _: None, timeout_seconds
    )


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
        ("import os; os.kill(os.getpid(), 15)", "killed", "SIGTERM"),
        ("import os; os.kill(os.getpid(), 11)", "crash", "SIGSEGV"),
        ("import os; os.abort()", "crash", "SIGABRT"),
        ("import os; os._exit(0)", "crash", "exit code 0 and no record"),
        ("import os; os._exit(3)", "crash", "exit code 3"),
        ("import sys; sys.exit('words')", "crash", "exit code 1"),
        ("import ctypes; ctypes.string_at(0)", "crash", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 36)", "killed", "signal 36"),
    ],
)
def test_a_death_without_a_record_is_told_from_the_way_of_dying(
    tmp_path: Path, code: str, kind: str, words: str
) -> None:
    ending = ending_of(tmp_path, code)
    assert (ending.status, ending.kind) == ("failed", kind)
    assert words in ending.message


def test_output_of_the_child_goes_to_the_log_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ending_of(tmp_path, "import sys; print('chatter'); print('noise', file=sys.stderr)")
    assert capfd.readouterr() == ("", "")
    assert RunFolder(tmp_path).log.read_text() == "chatter\nnoise\n"


def test_a_child_over_its_time_is_stopped(tmp_path: Path) -> None:
    ending = ending_of(tmp_path, "import time; time.sleep(600)", 0.5)
    assert (ending.status, ending.kind) == ("failed", "timed_out")


def test_ctrl_c_asks_the_child_to_end_and_is_told_from_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    monkeypatch.chdir(tmp_path)
    hit = lambda _: signal.raise_signal(signal.SIGINT)  # noqa: E731
    ending = run_process(in_fresh_process([sys.executable, "-c", WINDS_UP]), folder, hit)
    assert ending == STOPPED["interrupted"]
    assert folder.log.read_text() == "wound up\n"


def test_a_child_winds_up_also_where_an_error_ends_its_parents_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job that SLURM has told that its time is nearly over, where submitit raises one."""

    def fail(_: object) -> None:
        raise UserError("no more time")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no more time"):
        run_process(in_fresh_process([sys.executable, "-c", WINDS_UP]), RunFolder(tmp_path), fail)
    assert RunFolder(tmp_path).log.read_text() == "wound up\n"


def test_sigterm_to_the_parent_counts_as_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = f"import time\nopen('events.jsonl', 'a').write({STARTED!r})\ntime.sleep(600)"
    before = signal.getsignal(signal.SIGTERM)
    hit = lambda _: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    ending = run_process(in_fresh_process([sys.executable, "-c", code]), RunFolder(tmp_path), hit)
    assert ending == replace(STOPPED["interrupted"], message="stopped by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_asks_a_run_to_end_may_say_why(tmp_path: Path) -> None:
    stop, command = Stop(), [sys.executable, "-c", "import time; time.sleep(600)"]
    stop.ask("another run ended on an error")
    stop.ask("and again")
    start, folder = in_fresh_process(command), RunFolder(tmp_path)
    ending = run_process(start, folder, lambda _: None, stop=stop)
    assert ending == replace(STOPPED["interrupted"], message="another run ended on an error")


def test_grandchildren_die_with_the_child(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)\n"
    )
    ending_of(tmp_path, code)
    assert gone(int(RunFolder(tmp_path).log.read_text()))


def test_a_child_dies_with_a_parent_killed_outright(tmp_path: Path) -> None:
    """The child is the harness's own; it waits for its lock, which this test holds."""
    child_code = (
        "import os, time\n"
        "from harness.runs.parent import end_with_parent\n"
        "end_with_parent()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    )
    parent_code = (
        "import sys\nfrom pathlib import Path\n"
        "from harness.records.store import RunFolder\n"
        "from harness.runs.process import in_fresh_process, run_process\n"
        f"start = in_fresh_process([sys.executable, '-c', {child_code!r}])\n"
        f"run_process(start, RunFolder(Path({str(tmp_path)!r})), lambda _: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code])
    log = RunFolder(tmp_path).log
    assert wait_for(lambda: log.is_file() and log.read_text().endswith("\n"))
    parent.kill()
    parent.wait()
    assert gone(int(log.read_text()))


@pytest.fixture
def memory_group() -> Path:
    """A control group of 256 MiB, where this machine lets us make one."""
    try:
        GROUP.mkdir()
        (GROUP / "memory.limit_in_bytes").write_text(str(256 << 20))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield GROUP
    for _ in range(50):
        try:
            GROUP.rmdir()
            break
        except OSError:
            time.sleep(0.1)


def test_a_kill_by_the_kernel_for_memory_is_an_oom(tmp_path: Path, memory_group: Path) -> None:
    child = "import os\nheld = []\nwhile True: held.append(os.urandom(1 << 20))"
    parent = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from harness.records.store import RunFolder\n"
        "from harness.runs.process import in_fresh_process, run_process\n"
        f"folder = RunFolder(Path({str(tmp_path)!r}))\n"
        f"open({str(memory_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        f"start = in_fresh_process([sys.executable, '-c', {child!r}])\n"
        "print(run_process(start, folder, lambda _: None))"
    )
    command = [sys.executable, "-c", parent]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "kind='host_oom'" in said
    assert "killed by the kernel" in said


def test_a_child_without_memory_for_its_record_is_known_by_its_last_words(tmp_path: Path) -> None:
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\n"
        "bytearray(1 << 30)"
    )
    ending = ending_of(tmp_path, code)
    assert (ending.status, ending.kind, ending.message) == ("oom", "host_oom", "MemoryError")


def test_a_gpu_without_memory_is_known(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(1 << 42, dtype=torch.uint8, device="cuda")
    assert ending_of_error(error.value).kind == "cuda_oom"


def test_where_the_kernel_is_silent_a_kill_is_not_blamed_on_anyone() -> None:
    ending = ending_of_process(-signal.SIGKILL, oom_kills=None)
    assert (ending.status, ending.kind) == ("failed", "killed")
    assert "or, for memory, by the kernel" in ending.message


def test_errors_of_many_libraries_are_known_as_a_lack_of_memory() -> None:
    import torch

    with pytest.raises(RuntimeError) as host:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ending_of_error(host.value).kind == "host_oom"
    assert ending_of_error(torch.OutOfMemoryError("CUDA out of memory. Tried …")).kind == "cuda_oom"
    assert ending_of_error(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when …")).kind == "cuda_oom"
    wrapped = StorageError("cannot write the checkpoint")
    wrapped.__cause__ = OSError(12, "Cannot allocate memory")
    assert ending_of_error(wrapped).status == "oom"


@pytest.mark.parametrize(
    "last", ["Cuda failure 2 'out of memory'", "Failed to CUDA calloc async 608 bytes"]
)
def test_a_card_too_full_for_nccl_is_no_lost_device(last: str) -> None:
    """Another process has most of it: NCCL finds that out where devices first meet."""
    error = RuntimeError(
        "NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error, NCCL version 2.28.9\n"
        f"ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n{last}"
    )
    lost = LostDevice("another device's process has ended or does not answer: NCCL error in: …")
    lost.__cause__ = error
    ending = ending_of_error(lost)
    assert (ending.status, ending.kind) == ("oom", "cuda_oom")
    assert last in ending.message


@pytest.mark.parametrize("kind", ["Triton Error [CUDA]", "CUDA driver error"])
def test_what_asks_the_driver_for_memory_itself_says_so_in_other_words(kind: str) -> None:
    assert ending_of_error(RuntimeError(f"{kind}: out of memory")).kind == "cuda_oom"


def test_other_errors_keep_their_own_names() -> None:
    assert ending_of_error(DivergedError("the loss is nan")).status == "diverged"
    assert ending_of_error(OSError(28, "No space left on device")).kind == "disk_full"
    assert ending_of_error(StorageError("cannot write")).kind == "StorageError"
    assert ending_of_error(KeyError("x")).kind == "crash"
    assert ending_of_error(RuntimeError("NCCL error: remote process exited")).kind == "crash"


def test_a_log_keeps_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    monkeypatch.setenv("HOME", "/home/alice")
    text = without_secrets("at /home/alice/x with hf_abcdefghij")
    assert text == "at ~/x with ***"


def gone(pid: int) -> bool:
    """Whether the process ends (a zombie has ended)."""

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return wait_for(ended)


def wait_for(holds: object) -> bool:
    """Wait until ``holds()``; the time limit is there only so that a failing test ends."""
    done = threading.Event()
    for _ in range(6000):
        if holds():  # type: ignore[operator]
            return True
        done.wait(0.1)
    return False

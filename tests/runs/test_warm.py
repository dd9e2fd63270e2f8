"""Runs that are forked from a process with the libraries: the same results, alone as ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore
from harness.runs import forkable
from harness.runs.early_start import early_start
from harness.runs.executor import LocalExecutor
from harness.runs.options import RunOptions
from harness.runs.stop import Stop
from harness.runs.warm import GIVE_WAY
from harness.runs.warm_start import ColdStart, WarmStart, warm_start
from tests.runs import forked
from tests.runs.results import files, results
from tests.runs.small_run import Heard, Small, step_done

WARM = RunOptions(warm=True)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are adopted on Linux")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """One server for this file, ended after it."""
    yield
    warm_start().close()


@pytest.fixture
def new_server() -> Iterator[None]:
    """None before and after: a process does not begin a server again that has failed."""

    def forget() -> None:
        warm_start().close()
        warm_start.cache_clear()

    forget()
    yield
    forget()


def run(small: Small, folder: Path, options: RunOptions, heard: Heard | None = None) -> RunRecord:
    return forked.supervise(small.plan(), RunStore(folder), heard or Heard(), options)


def parent_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: object, seconds: float = 900.0) -> None:
    """Wait until ``condition()`` holds; the limit is there only so that a hung test ends."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)


def test_a_forked_run_ends_as_one_in_a_fresh_process(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.runs.executor.supervise", forked.in_one_environment)
    plan, store = small.plan(), RunStore(tmp_path)
    parents: list[int] = []

    executor = LocalExecutor(store, RunOptions(warm=True, force=True))
    executor.forks.on = ("cpu",)
    early_start().begin()
    begun = early_start().pid
    first = Heard()
    cold = executor.submit(plan, first).result()
    assert first.pid == begun, "it was begun before there was a plan"
    assert early_start().pid is None
    kept = files(store, plan)
    heard = Heard()
    heard.halt_at(store.root, step_done(1), lambda: parents.append(parent_of(heard.pid)))
    found = executor.submit(plan, heard).result()
    assert (cold.status, cold.warm) == ("ok", False), "it may be the only one"
    assert found.status == "ok", found.problem
    assert "starting afresh" not in " ".join(heard.notes)
    assert parents == [os.getpid()], "it is a child of the process that ordered it"
    assert results(found) == results(cold)
    assert files(store, plan) == kept
    assert found.environment == cold.environment
    assert (found.warm, cold.warm) == (True, False)
    assert cold.environment is not None
    (trained,) = [cost for cost in found.phases if cost.name == "train"]
    (before,) = [cost for cost in cold.phases if cost.name == "train"]
    sizes = [cost.peak_resident_bytes or 0 for cost in (trained, before)]
    assert max(sizes) < 1.25 * min(sizes), "shared pages count as its own"


def test_a_killed_run_is_killed_alone(small: Small, tmp_path: Path) -> None:
    heard = Heard().kill_at(tmp_path, step_done(1))
    record = run(small, tmp_path, WARM, heard)
    assert record.problem is not None
    assert record.problem.kind == "killed"
    pid = warm_start().pid
    again = run(small, tmp_path, WARM)
    assert again.status == "ok"
    assert warm_start().pid == pid, "the next is forked from the same process"


def test_runs_outlive_a_killed_server_and_the_next_gets_a_new_one(
    small: Small, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_server() -> None:
        pid = warm_start().pid
        assert pid is not None
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

    heard = Heard().halt_at(tmp_path / "one", step_done(1), kill_server)
    record = run(small, tmp_path / "one", WARM, heard)
    assert record.status == "ok", record.problem
    assert killed
    heard = Heard()
    assert run(small, tmp_path / "two", WARM, heard).status == "ok"
    assert warm_start().pid not in (None, *killed)
    assert "starting afresh" not in " ".join(heard.notes)


def once_begun(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Do something to every server as soon as it has begun; it takes its process id."""
    begin = WarmStart._begin

    def begin_and_act(server: WarmStart, *, beside_a_run: bool = False) -> None:
        begin(server, beside_a_run=beside_a_run)
        assert server.pid is not None
        act(server.pid)

    monkeypatch.setattr(WarmStart, "_begin", begin_and_act)


def hold(pid: int) -> None:
    """Let a process not go on, so that it is not ready however fast it loads its libraries."""
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.usefixtures("new_server")
def test_a_server_that_ends_while_it_loads_is_no_lost_run(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_begun(monkeypatch, lambda pid: os.kill(pid, signal.SIGKILL))
    heard = Heard()
    record = run(small, tmp_path, WARM, heard)
    assert record.status == "ok", record.problem
    assert any(note.startswith("starting afresh: ") for note in heard.notes)


def test_who_is_stopped_does_not_wait_for_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    server = WarmStart()
    once_begun(monkeypatch, lambda pid: (hold(pid), stop.ask()))
    with pytest.raises(ColdStart, match="the run is stopped"), (tmp_path / "log").open("wb") as log:
        server.start(RunFolder(tmp_path), log, stop)
    assert server.pid is None


def niceness(pid: int, thread: int | None = None) -> int:
    path = Path(f"/proc/{pid}/task/{thread or pid}/stat")
    return int(path.read_text().rpartition(")")[2].split()[16])


@pytest.mark.usefixtures("new_server")
def test_a_server_loads_while_the_first_run_goes_on_and_gives_way_to_it(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is forked at once, as important as any."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # another environment asks for another server
    executor = LocalExecutor(RunStore(tmp_path), RunOptions(warm=True))
    executor.forks.on = ("cpu",)
    loading: list[int] = []
    forked_as: list[int] = []

    def see_it_load() -> None:
        pid = warm_start().pid
        assert pid is not None
        os.kill(pid, signal.SIGCONT)
        while not warm_start().is_ready:
            with suppress(OSError):  # a thread that ends meanwhile
                threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
                loading.extend(niceness(pid, thread) for thread in threads)
            time.sleep(0.01)

    first, second = Heard(), Heard()
    executor.foresee(small.plan(seed=1))
    once_begun(monkeypatch, hold)  # until it is looked at
    first.halt_at(tmp_path, step_done(1), see_it_load)
    assert executor.submit(small.plan(), first).result().warm is False
    second.halt_at(tmp_path, step_done(1), lambda: forked_as.append(niceness(second.pid)))
    found = executor.submit(small.plan(seed=1), second).result()
    assert (found.status, found.warm) == ("ok", True)
    assert not [note for note in second.notes if "libraries that all runs share" in note]
    plain = RunOptions()
    cold = forked.in_one_environment(
        small.plan(seed=1), RunStore(tmp_path / "cold"), Heard(), plain, None
    )
    assert results(found) == results(cold), "although another thread has loaded the libraries"
    assert found.environment == cold.environment
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert max(loading) == min(19, own + GIVE_WAY), "what loads gives way"
    assert forked_as == [own]


@pytest.mark.usefixtures("new_server")
def test_a_run_alone_has_no_server(small: Small, tmp_path: Path) -> None:
    executor = LocalExecutor(RunStore(tmp_path), RunOptions(warm=True))
    executor.forks.on = ("cpu",)
    heard = Heard()
    assert executor.submit(small.plan(), heard).result().warm is False
    assert warm_start().pid is None


def test_a_server_that_ended_beside_the_first_run_is_not_begun_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end again; the run that needs it says so and starts afresh."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # another environment asks for another server
    server = WarmStart()
    monkeypatch.setattr("harness.runs.attempt.warm_start", lambda: server)
    begun: list[int] = []

    def kill(pid: int) -> None:
        begun.append(pid)
        os.kill(pid, signal.SIGKILL)

    once_begun(monkeypatch, kill)
    server.begin()
    wait_for(lambda: not alive(begun[0]))
    heard = Heard()
    record = run(small, tmp_path, WARM, heard)
    assert (record.status, record.warm) == ("ok", False)
    assert any(note.startswith("starting afresh: the process that loads") for note in heard.notes)
    server.begin()
    assert len(begun) == 1


def test_a_server_that_gives_way_and_has_not_loaded_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others want every core it would be waited for without end."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setattr("harness.runs.warm_start.READY_SECONDS", 0.0)
    begun: list[int] = []

    def begin_and_hold(pid: int) -> None:
        begun.append(pid)
        hold(pid)

    once_begun(monkeypatch, begin_and_hold)
    server = WarmStart()
    server.begin()
    with (tmp_path / "log").open("wb") as log, pytest.raises(ColdStart, match="within 0 s"):
        server.start(RunFolder(tmp_path), log, Stop())
    assert len(begun) == 2, "another one loads as soon as it can"
    assert not any(alive(pid) for pid in begun)


def test_a_server_that_loads_is_ended_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    server = WarmStart()
    once_begun(monkeypatch, hold)
    server.begin()
    pid = server.pid
    assert pid is not None
    assert not server.is_ready
    server.close()
    assert not alive(pid)
    assert server.pid is None


def test_the_server_ends_with_its_parent() -> None:
    code = (
        "import time\n"
        "from harness.runs.warm_start import WarmStart\n"
        "server = WarmStart()\nserver._begin()\nprint(server.pid, flush=True)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(pid))


def test_a_process_with_an_open_device_or_threads_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkable, "DEVICES", (str(tmp_path / "nvidia"),))
    monkeypatch.setattr(forkable, "other_threads", list)
    assert forkable.unfit() is None
    with (tmp_path / "nvidia0").open("w"):
        assert forkable.unfit() == f"a device is open: {tmp_path / 'nvidia0'}"
    assert forkable.unfit() is None


def test_threads_make_a_process_unfit() -> None:
    code = (
        "import threading, time\n"
        "from harness.runs.forkable import unfit\n"
        "before = unfit()\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "print(before, unfit(), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert before == "None"
    assert after.startswith("threads run that a fork would lack: ")


def test_a_server_that_takes_too_long_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take as long at every run."""
    monkeypatch.setattr("harness.runs.warm_start.READY_SECONDS", 0.0)
    once_begun(monkeypatch, hold)
    start = WarmStart()
    for _ in range(2):
        with (tmp_path / "log").open("wb") as log, pytest.raises(ColdStart, match="within 0 s"):
            start.start(RunFolder(tmp_path), log, Stop())
        assert start.pid is None
        monkeypatch.setattr(WarmStart, "_begin", lambda _: pytest.fail("it is begun again"))


def test_the_driver_is_asked_by_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it begins and opens there is not here."""
    asked: list[int] = []

    def find() -> list[tuple[int, int]]:
        asked.append(os.getpid())
        return [(9, 0), (8, 6)]

    monkeypatch.setattr(forkable, "visible_capabilities", find)
    found = forkable.asked_of_a_fork()
    assert found == [(9, 0), (8, 6)]
    assert asked == []
    driver = forkable.CudaAnswers(found)
    assert driver.device_count() == 2
    assert driver.get_device_capability(1) == (8, 6)
    assert driver.get_device_capability() == (9, 0)


def test_a_driver_that_fails_leaves_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkable, "visible_capabilities", lambda: 1 / 0)
    assert forkable.asked_of_a_fork() == []
    assert not forkable.CudaAnswers([]).is_available()

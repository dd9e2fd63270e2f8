"""Batch: many plans through an executor, heard by listeners, until each has a result."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from queue import Empty, SimpleQueue

from harness.errors import HarnessError
from harness.records.events import Event
from harness.records.record import RunRecord
from harness.runs.executor import (
    Executor,
    ExplainedExecutor,
    GatheringExecutor,
    TogetherExecutor,
)
from harness.runs.listener import Listener, RunResult
from harness.runs.stop import interrupts, reason_of
from harness.spec.plan import Plan
from harness.train.together.group import groups

News = Event | Future[RunRecord]


class Demand:
    """What is asked of a batch while it goes on. This one asks for nothing more."""

    def enough(self) -> bool:
        """Whether no more runs are to be begun; asked whenever a run says something.

        Once it is true, runs under way are finished and no more are begun, apart from those that
        a cluster has already been given.
        """
        return False

    def more(self) -> Sequence[Plan]:
        """Plans that are to be run too, asked whenever all that was said has been heard."""
        return ()


NOTHING_MORE = Demand()


def run_batch(
    plans: Sequence[Plan],
    executor: Executor,
    listeners: Sequence[Listener] = (),
    together: int = 1,
    demand: Demand = NOTHING_MORE,
) -> Generator[RunResult]:
    """Results of ``plans``, and of those that ``demand`` adds, in the order in which they finish.

    Up to ``together`` plans whose adapters can share one base train in one process, where the
    executor can do that (:class:`harness.runs.executor.TogetherExecutor`).

    A plan that cannot be run is a result too, and the others go on.

    Close the iterator (``contextlib.closing``) where it is not read to its end: that ends the
    runs under way. Their records say why: throw the error that ended the reading into it.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP, after the runs under way have written their
            records. A second one does not wait for that.
    """
    batch = _Batch(executor, _Audience(listeners), together)
    with interrupts():
        yield from batch.run(plans, demand)


class _Audience:
    """The listeners that still listen."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = list(listeners)

    def each(self, tell: Callable[[Listener], None]) -> None:
        """Tell all of them; one that fails is left out from now on, and the last to end."""
        for listener in list(self._listeners):
            try:
                tell(listener)
            except Exception as error:  # noqa: BLE001 - a tracker's failure must not end a run
                self._lose(listener, error)

    def _lose(self, listener: Listener, error: Exception) -> None:
        self._listeners.remove(listener)
        self.each(lambda other: other.lost(type(listener).__name__, error))


class _Batch:
    """Plans under way, and one queue for all that is said about them."""

    def __init__(self, executor: Executor, audience: _Audience, together: int) -> None:
        self._executor = executor
        self._together = together
        self._audience = audience
        self._news: SimpleQueue[tuple[Plan, News]] = SimpleQueue()
        self._pending: set[Future[RunRecord]] = set()
        self._reason = ""  # why runs under way are ended

    def run(self, plans: Sequence[Plan], demand: Demand) -> Generator[RunResult]:
        self._audience.each(lambda listener: listener.begin(plans))
        try:
            self._submit_all(plans)
            is_over = False
            while self._pending:
                result = self._next()
                if demand.enough():
                    is_over = True
                    self._begin_no_more()
                if result is not None:
                    yield result
                if not is_over and self._news.empty():
                    self._add(demand.more())
        except BaseException as error:
            self._reason = reason_of(error)
            raise
        finally:
            self._wind_up()
            self._audience.each(lambda listener: listener.end())

    def _add(self, plans: Sequence[Plan]) -> None:
        if plans:
            self._audience.each(lambda listener: listener.more(plans))
            self._submit_all(plans)

    def _submit_all(self, plans: Sequence[Plan]) -> None:
        with self._gathering():
            for group in groups(plans, self._together):
                self._submit(group)

    def _gathering(self) -> AbstractContextManager[None]:
        executor = self._executor
        return executor.gathering() if isinstance(executor, GatheringExecutor) else nullcontext()

    def _begin_no_more(self) -> None:
        """Give up the plans that have not begun."""
        for future in list(self._pending):
            future.cancel()

    def _submit(self, group: Sequence[Plan]) -> None:
        if len(group) > 1 and isinstance(self._executor, TogetherExecutor):
            futures = self._executor.submit_together(group, self._hear)
        else:
            futures = [self._executor.submit(plan, partial(self._hear, plan)) for plan in group]
        for plan, future in zip(group, futures, strict=True):
            self._pending.add(future)
            future.add_done_callback(partial(self._hear, plan))

    def _hear(self, plan: Plan, news: News) -> None:
        self._news.put((plan, news))

    def _next(self, timeout: float | None = None) -> RunResult | None:
        """Wait for news and pass it on; the result if it is one.

        Raises:
            Empty: there was none in ``timeout`` seconds.
        """
        plan, news = self._news.get(timeout=timeout)
        if not isinstance(news, Future):
            self._audience.each(lambda listener: listener.hear(plan, news))
            return None
        self._pending.discard(news)
        result = _result_of(plan, news)
        if result is not None:
            self._audience.each(lambda listener: listener.result(result))
        return result

    def _wind_up(self) -> None:
        """End what is under way; interrupted again, at once, and a third time give it up."""
        interrupts = 0
        if self._pending:
            self._audience.each(lambda listener: listener.stopping())
        while self._pending:
            try:
                self._cancel()
                self._drain()
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    raise
        if interrupts:
            raise KeyboardInterrupt

    def _cancel(self) -> None:
        if isinstance(self._executor, ExplainedExecutor):
            self._executor.cancel_because(self._reason)
        else:
            self._executor.cancel()

    def _drain(self) -> None:
        """Pass on all news until nothing is under way."""
        while self._pending:
            try:
                self._next(timeout=1.0)
            except Empty:  # an interrupt may have come just after the last news were taken
                self._pending = {future for future in self._pending if not future.done()}


def _result_of(plan: Plan, future: Future[RunRecord]) -> RunResult | None:
    """What has become of a plan; None if it was cancelled."""
    try:
        return RunResult(plan, record=future.result())
    except HarnessError as error:
        return RunResult(plan, error=error)
    except CancelledError:
        return None

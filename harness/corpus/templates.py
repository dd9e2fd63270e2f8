"""Templates: named chat templates, and running any chat template within limits."""

from __future__ import annotations

import os
import select
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from datetime import time as time_of_day
from string import ascii_letters
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from harness.corpus.fields import escaped
from harness.errors import CorpusError

CHATML = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

GUANACO = """\
{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '### Human: ' + message['content'] + '\n' }}{% else %}\
{{ '### Assistant: ' + message['content'] + eos_token + '\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}"""

VICUNA = """\
{{ 'A chat between a curious user and an artificial intelligence assistant. ' }}\
{{ "The assistant gives helpful, detailed, and polite answers to the user's questions. " }}\
{% for message in messages %}{% if message['role'] == 'user' %}\
{{ 'USER: ' + message['content'] }}{% else %}\
{{ ' ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"""

ALPACA = """\
{{ 'Below is an instruction that describes a task. ' }}\
{{ 'Write a response that appropriately completes the request.\n\n' }}\
{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '### Instruction:\n' + message['content'] + '\n\n' }}{% else %}\
{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"""

PLAIN = """\
{% for message in messages %}{{ message['content'] }}\
{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"""

TEMPLATES: dict[str, str] = {
    "chatml": CHATML,
    "guanaco": GUANACO,
    "vicuna": VICUNA,
    "alpaca": ALPACA,
    "plain": PLAIN,
}
"""Jinja chat templates by name. A turn of the assistant always ends with an end-of-turn token.

In ``chatml`` a tokenizer without ``<|im_end|>`` ends turns with its EOS token instead. In
``guanaco`` and ``vicuna`` the space after the colon belongs to the reply: a prompt that ended
with a space would tokenise differently from training. ``plain`` has no role names at all.
"""

RENDER_SECONDS = 5.0
PROBE_SECONDS = 10.0
"""Of the processor's time: on a busy machine, which makes everything wait, nothing ends early."""
WAIT = 60
"""Times as long is waited for a probe that uses no processor time either."""
PROBE_BYTES = 2 << 30
RENDERINGS = 8
"""What draws lots between two texts is found out but for once in 128."""
FAULTS = (
    *(TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError),
    *(RuntimeError, MemoryError),
)
"""What the expressions of a template raise."""
Turns = Sequence[Mapping[str, str]]


class TooSlow(Exception):  # noqa: N818 - it never leaves this module
    """A template is still running."""


class ChatTemplate:
    """One tokenizer's chat template, which is a program of somebody else's.

    It is run for a limited time, every fault of it is one message that names its line, and what
    it reads from the clock is a fixed date.
    """

    def __init__(self, tokenizer: Any, source: str, day: str) -> None:
        """Take the jinja ``source`` and the ``day`` (YYYY-MM-DD) that it may print.

        Raises:
            CorpusError: it does not end, or writes something else each time.
        """
        self._tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path) or type(tokenizer).__name__
        self.source = source
        self.source = self._dated(source, date.fromisoformat(day))

    def _dated(self, source: str, day: date) -> str:
        """``source`` with a clock that stands still, for whoever renders it."""
        if "strftime_now" not in source:
            return source
        # It stands on the first line, so that the lines of faults stay those of the source.
        clock = f"{{% macro strftime_now(f) %}}{_stopped_clock(day)}{{% endmacro %}}"
        return f"{clock}{{{{ '' }}}}{source}"

    def render(self, turns: Turns, *, prompt: bool) -> str:
        """What the template makes of ``turns``; with ``prompt`` it ends in the reply's header.

        Raises:
            CorpusError: the template fails or does not end.
        """
        try:
            with _time_limit(RENDER_SECONDS):
                return self._render(turns, prompt=prompt)
        except TooSlow:
            raise self._endless(RENDER_SECONDS) from None
        except FAULTS as error:
            kind = "" if type(error) is TemplateError else f"{type(error).__name__}: "
            raise self.fault(f"it fails with {kind}{error}", _line_of(error)) from None

    def _render(self, turns: Turns, *, prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=prompt,
        )
        return text

    def probe(self, turns: Turns) -> None:
        """Render once in a process that can be killed: a signal does not stop one long operation.

        Raises:
            CorpusError: the template does not end, or takes all memory.
        """

        def work() -> None:
            self._render(turns, prompt=True)
            self._render(turns, prompt=False)

        if not _ends(work, PROBE_SECONDS):
            raise self._endless(PROBE_SECONDS)

    def _endless(self, seconds: float) -> CorpusError:
        return self.fault(f"it does not end within {seconds:g} s, or takes all memory", None)

    def fault(self, reason: str, line: int | None) -> CorpusError:
        """A complaint about this template, with the ``line`` of its source if one is known."""
        where = f"{self.name}, chat template"
        lines = self.source.split("\n")
        if line is not None and 0 < line <= len(lines):
            where += f", line {line}: {lines[line - 1].strip():.160}"
        return CorpusError(
            escaped(f"the chat template cannot be used: {reason}"),
            where=escaped(where),
            hint=f"set chat_template in the model's file to one of {', '.join(TEMPLATES)}",
        )

    def line_of(self, word: str) -> int | None:
        """The first line of the source that holds ``word``."""
        place = self.source.find(word)
        return None if place < 0 else self.source.count("\n", 0, place) + 1


def _stopped_clock(day: date) -> str:
    """A jinja expression that writes ``day``, at midnight, in the format ``f``."""
    moment = datetime.combine(day, time_of_day.min)
    letters = ascii_letters.replace("s", "")  # seconds of an epoch depend on the time zone
    codes = [f"%{flag}{letter}" for flag in ("-", "") for letter in letters]
    texts = {code: text for code in codes if (text := moment.strftime(code)) != code}
    # Two percent signs are put aside first: what follows them is no code.
    chain = "".join(f" | replace({code!r}, {text!r})" for code, text in texts.items())
    return f"{{{{ f | replace('%%', '\\x00'){chain} | replace('\\x00', '%') }}}}"


def _line_of(error: BaseException) -> int | None:
    """The template's line that failed: jinja puts template lines into tracebacks."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame.lineno for frame in frames if frame.filename == "<template>"]
    return found[-1] if found else None


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the main thread after ``seconds`` of computing; elsewhere nothing can."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _ends(work: Callable[[], object], seconds: float) -> bool:
    """Whether ``work`` ends, if by an error, in a forked process within 2 GiB and ``seconds``.

    These are the processor's. Where a system cannot fork, it is taken to end.
    """
    if not hasattr(os, "fork"):
        return True
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs nothing but jinja
        child = os.fork()
    if child == 0:
        _work_and_leave(work, writing, seconds)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], WAIT * seconds)
        return bool(ready) and os.read(reading, 1) == b"."
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def _work_and_leave(work: Callable[[], object], writing: int, seconds: float) -> None:
    """Of the child: one byte for an end of any kind but for want of time or memory, and gone."""
    import resource

    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it, in one long operation too
        signal.setitimer(signal.ITIMER_PROF, seconds)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (used + PROBE_BYTES, resource.RLIM_INFINITY))
        with suppress(*(fault for fault in FAULTS if fault is not MemoryError)):
            work()
        os.write(writing, b".")
    finally:
        os._exit(0)

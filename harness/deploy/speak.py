"""Speak: answers of one result in one form, streamed to a person or for a file of prompts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.corpus.conversation import Message
from harness.deploy.export import make_parts, make_renderer
from harness.deploy.results import check_deployable
from harness.errors import CorpusError, InvalidFile, UserError
from harness.forms.check import check_form
from harness.forms.make import make
from harness.records.events import Progress
from harness.records.store import StoredRun
from harness.runs.libraries import set_library_defaults
from harness.spec.device import Device
from harness.spec.form import Form
from harness.spec.model import context_of
from harness.spec.storage import meant, write_bytes

if TYPE_CHECKING:
    from harness.corpus.render import Renderer


NO_TEXT = re.compile("[\ud800-\udfff]")  # halves of characters, and bytes that are no text
TEMPERATURES = (0.001, 100.0)
# Drawn from all tokens: what a model's own generation_config.json would leave out is put back.
WHOLE = {"top_k": 0, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}


@dataclass(frozen=True)
class AnswerStyle:
    """How answers are chosen: greedily, or drawn at a temperature."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse temperatures at which nothing can be drawn, or only noise."""
        least, most = TEMPERATURES
        if self.temperature and not least <= self.temperature <= most:
            raise UserError(
                f"a temperature of {self.temperature:g}",
                where="--temperature",
                expected=f"0, or a number from {least:g} to {most:g}",
            )


@dataclass(frozen=True)
class Speaker:
    """A result that can answer: its name, its live model, its way to write a conversation."""

    name: str
    model: Any
    renderer: Renderer
    decoding: AnswerStyle

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The answer to a conversation that ends with the user, piece by piece.

        Raises:
            CorpusError: the conversation leaves no room in the model's context.
        """
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(
            self.renderer.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        failed: list[BaseException] = []
        options = {**self._inputs(messages), "streamer": streamer}

        def work() -> None:
            try:
                self._generate(options)
            except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield from (piece for piece in streamer if piece)
        thread.join()
        if failed:
            raise failed[0]

    def check(self, messages: Sequence[Message]) -> None:
        """Raise what :meth:`answer` would say of a conversation that it cannot answer."""
        self._inputs(messages)

    def answer(self, messages: Sequence[Message]) -> str:
        """The whole answer."""
        options = self._inputs(messages)
        width = options["input_ids"].shape[1]
        tokens = self._generate(options)[0, width:].tolist()
        text: str = self.renderer.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def _inputs(self, messages: Sequence[Message]) -> dict[str, Any]:
        import torch

        from harness.score.probe import soft_prompt_tokens

        ids = torch.tensor([self.renderer.prompt_ids(messages)], device=self.model.device)
        limit = context_of(self.model.config)
        limit = None if limit is None else limit - soft_prompt_tokens(self.model)
        if limit is not None and ids.shape[1] >= limit:
            raise CorpusError(
                f"the conversation has {ids.shape[1]} tokens",
                expected=f"fewer than {limit}, the model's context",
                hint="begin a new one",
            )
        room = self.decoding.max_new_tokens
        room = room if limit is None else min(room, limit - ids.shape[1])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": room,
        }

    def _generate(self, options: dict[str, Any]) -> Any:
        import torch
        from transformers import GenerationConfig

        how = self.decoding
        drawn = {"do_sample": True, "temperature": how.temperature, **WHOLE}
        settings = GenerationConfig(
            max_new_tokens=options.pop("max_new_tokens"),
            eos_token_id=self.renderer.end_of_turn_id,
            pad_token_id=self.renderer.pad_id,
            **(drawn if how.temperature > 0 else {"do_sample": False}),
        )
        torch.manual_seed(how.seed)
        with torch.inference_mode():
            return self.model.generate(**options, generation_config=settings)


@dataclass(frozen=True)
class SpeakerRequest:
    """A form of a run, where to run it, how to answer."""

    form: Form
    device: Device | None = None
    decoding: AnswerStyle = AnswerStyle()
    trust_remote_code: bool = False


def open_speaker(
    run: StoredRun, wanted: SpeakerRequest, scratch: Path, progress: Progress
) -> Speaker:
    """Load a run's result in a form; what passes through files lies in ``scratch``.

    Raises:
        UserError: the run has nothing to deploy, or its method refuses the form.
    """
    from harness.score.settings import own_settings
    from harness.weights.fetch import fetch, quiet_libraries

    plan = check_deployable(run)
    check_form(plan, wanted.form)
    set_library_defaults()
    quiet_libraries()
    source = fetch(plan.model, progress)
    parts = make_parts(run, source, wanted.device, trusted=wanted.trust_remote_code)
    progress.note(f"loading {plan.variant} as {wanted.form.asked}")
    model = make(parts, wanted.form, scratch).eval()
    if own := own_settings(model):
        progress.note(f"the model's own generation settings hold too: {own}")
    name = f"{plan.variant}, seed {plan.seed}"
    return Speaker(name, model, make_renderer(parts), wanted.decoding)


def user_says(text: str, before: Sequence[Message] = ()) -> list[Message]:
    """A conversation with one more turn of the user."""
    return [*before, Message(role="user", text=text, id=f"turn-{len(before)}")]


def read_prompts(path: Path) -> list[str]:
    """Prompts of a file: one a line, or JSON lines with ``prompt``.

    Lines end at line feeds alone: texts may hold other characters that separate lines.

    Raises:
        UserError: no such file, it is not UTF-8, or nothing is in it.
        InvalidFile: a JSON line without a text under ``prompt``.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        what = f"cannot read the prompts: {error.strerror}"
        raise UserError(what, where=path, hint=meant(path)) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read the prompts: byte {error.start} is not UTF-8",
            where=path,
            expected="a text file in UTF-8",
        ) from None
    if path.suffix == ".jsonl":
        found = [
            _prompt_of(line, path, number) for number, line in enumerate(lines, 1) if line.strip()
        ]
    else:
        found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError("no prompts", where=path, expected="one a line")
    return found


def _prompt_of(line: str, path: Path, number: int) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        prompt = None
    if not isinstance(prompt, str) or not prompt.strip() or NO_TEXT.search(prompt):
        raise InvalidFile(
            "no prompt in this line",
            where=f"{path}, line {number}",
            expected='{"prompt": "…"}, a text of whole characters',
        )
    return prompt.strip()


def write_answers(
    speaker: Speaker, prompts: Sequence[str], target: Path, progress: Progress
) -> None:
    """Answer every prompt and write JSON lines with ``prompt`` and ``answer``, all or none.

    Raises:
        CorpusError: a prompt leaves no room in the model's context; found before the first answer.
    """
    lines = []
    for number, prompt in enumerate(prompts, 1):
        try:
            speaker.check(user_says(prompt))
        except CorpusError as error:
            error.where, error.hint = f"prompt {number} of {len(prompts)}", "shorten it"
            raise
    for done, prompt in enumerate(prompts):
        progress.advance(done, len(prompts))
        answer = speaker.answer(user_says(prompt))
        lines.append(json.dumps({"prompt": prompt, "answer": answer}, ensure_ascii=False))
    write_bytes(target, ("\n".join(lines) + "\n").encode())

"""Named chat templates for tokenizers that bring none."""

from __future__ import annotations

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

"""What starts the processes of several devices fits the version of torch that is there."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch.distributed.launcher.api import LaunchConfig

from harness.runs.torchrun import NEWER, _known


@dataclass
class Older:
    """A launch configuration as torch 2.11 has it, as far as it matters."""

    signals_to_handle: str = ""


def test_settings_that_torch_does_not_have_are_left_out() -> None:
    assert set(_known(Older, NEWER)) == {"signals_to_handle"}
    names = {field.name for field in fields(LaunchConfig)}
    assert set(_known(LaunchConfig, NEWER)) == set(NEWER) & names

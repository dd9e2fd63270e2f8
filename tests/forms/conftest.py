"""Quiet libraries, for all tests of this room."""

from __future__ import annotations

from harness.weights.fetch import quiet_libraries

quiet_libraries()

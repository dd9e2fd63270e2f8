"""Entry point: ``python -m harness`` and the console script ``harness``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the exit code is 2 for the user's mistakes, 130 for an interrupt."""
    from harness.cli import main as command_line

    sys.exit(command_line())


if __name__ == "__main__":
    main()

"""Entry point: ``python -m harness`` and the console script ``harness``."""

from __future__ import annotations

import codecs
import locale
import os
import sys


def main() -> None:
    """Run the command line; the exit code is 2 for the user's mistakes, 130 for an interrupt."""
    read_utf8()
    try:
        from harness.cli import main as command_line

        code = command_line()
    except KeyboardInterrupt:  # also while the commands are imported, which takes a second
        print("interrupted", file=sys.stderr)  # noqa: T201 - before there is a console
        code = 130
    sys.exit(code)


def read_utf8() -> None:
    """Start Python again in UTF-8 mode where the locale would have it read files otherwise.

    Libraries open their own files, which are UTF-8, without saying so. What the terminal is sent
    stays in the encoding that it had.
    """
    known = codecs.lookup(locale.getpreferredencoding(do_setlocale=False)).name
    if os.name != "posix" or known == "utf-8":
        return
    output = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.setdefault("PYTHONIOENCODING", output)
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
    again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execv(sys.executable, again)  # noqa: S606 - this very command


if __name__ == "__main__":
    main()

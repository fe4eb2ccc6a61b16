"""Becomes another program, with signals as a program expects them.

Called as `python child_exec.py PROGRAM NAME ARG…`. A shell starts background jobs with SIGINT ignored, and an ignored
signal stays ignored through exec: `dagster dev` then obeys neither SIGINT nor SIGTERM. Resetting it between fork and
exec in Python (`preexec_fn`) can deadlock in a process with threads, so a fresh interpreter does it and replaces
itself. It imports nothing of this package.
"""

import os
import signal
import sys


def main(program: str, arguments: list[str]) -> None:
    """Replace this process; PROGRAM is a path, `arguments` start with the name that the program sees as its own."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(program, arguments)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Processes that end by SIGKILL at a chosen write: no test has to catch a moment.

The end comes from inside: however slow the machine is, it comes at that write and no other.
"""

import os
import signal
import sys

WRITES = os.O_WRONLY | os.O_RDWR
CHANGES = ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree")


def written(event, args):
    "The path that an audit event is about to write, make or remove; empty for other events."
    if event == "open":
        path, _, flags = args
        wrote = isinstance(flags, int) and flags & WRITES
    elif event in CHANGES:
        path, wrote = args[0], True
    else:
        return ""
    return os.fspath(path) if wrote and isinstance(path, str | os.PathLike) else ""


def ends_at(part, nth):
    "From now on: end without a word before write `nth` of a path with `part` in it; -> [count]."
    count = [0]

    def hook(event, args):
        if part in written(event, args):
            count[0] += 1
            if count[0] == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count

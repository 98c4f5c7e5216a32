"""A double of FreeBSD's daemon(8) for tests, written from its manual, on Linux: the options that Roost's scripts use.

It locks its pidfiles, starts the program again with -r after -R seconds, hands TERM on to it and ends at once, opens
the output file anew on HUP with -H, and removes both pidfiles at its end. Exit codes as in the manual: 2 a pidfile
cannot be opened, 3 the program is already running.
"""

from __future__ import annotations

import fcntl
import getopt
import os
import pwd
import signal
import sys
import time
from pathlib import Path
from types import FrameType

OPTIONS = "cfSrHp:P:m:o:s:l:t:u:T:R:"


def open_pidfile(path: str) -> int:
    """Open and lock a pidfile, as pidfile_open(3) does."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        print(f"daemon: pidfile ``{path}'': {error.strerror}", file=sys.stderr)
        sys.exit(2)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"daemon: process already running, pid: {os.read(handle, 20).decode()}", file=sys.stderr)
        sys.exit(3)
    return handle


def write_pid(handle: int, pid: int) -> None:
    """Write a PID without a newline, as pidfile_write(3) does."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(pid).encode(), 0)


class Daemon:
    """The supervising process."""

    def __init__(self, options: dict[str, str], command: list[str]) -> None:
        self.options = options
        self.command = command
        self.child = 0
        self.reopen = False

    def run(self) -> None:
        """Lock, detach, and supervise to the end."""
        paths = [self.options[flag] for flag in ("-P", "-p") if flag in self.options]
        supervisor = open_pidfile(self.options["-P"])
        child = open_pidfile(self.options["-p"])
        if os.fork():
            os._exit(0)
        os.setsid()
        write_pid(supervisor, os.getpid())
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        self.open_log()
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGHUP, self.on_hup)
        while True:
            self.start(child)
            self.wait()
            if "-r" not in self.options:
                break
            time.sleep(float(self.options.get("-R", "1")))
        for path in paths:
            Path(path).unlink()

    def open_log(self) -> None:
        """Open the output file to append; the double gives it to the child itself, the real one copies what comes."""
        self.log = os.open(self.options["-o"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def start(self, pidfile: int) -> None:
        """Start the program with its output in a pipe that we copy."""
        self.pipe, output = os.pipe()
        self.child = os.fork()
        if not self.child:
            os.dup2(output, 1)
            os.dup2(output, 2)
            user = self.options.get("-u")
            if user and os.getuid() == 0:
                entry = pwd.getpwnam(user)
                os.initgroups(user, entry.pw_gid)
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
            os.execvp(self.command[0], self.command)  # noqa: S606  # as daemon(8) does: no shell may read the words
        os.close(output)
        write_pid(pidfile, self.child)

    def wait(self) -> None:
        """Copy the program's output until it has ended."""
        while True:
            data = os.read(self.pipe, 65536)  # tried again by Python when a signal's handler has run
            if self.reopen:
                os.close(self.log)
                self.open_log()
                self.reopen = False
            if not data:
                break
            os.write(self.log, data)
        os.close(self.pipe)
        os.waitpid(self.child, 0)

    def on_term(self, _number: int, _frame: FrameType | None) -> None:
        """Hand it on and end at once, as its sources have it: whoever stops it has to wait for the program."""
        if self.child:
            os.kill(self.child, signal.SIGTERM)
        for flag in ("-P", "-p"):
            Path(self.options[flag]).unlink()
        os._exit(0)

    def on_hup(self, _number: int, _frame: FrameType | None) -> None:
        """Open the output file anew before the next line."""
        self.reopen = "-H" in self.options


def main() -> None:
    """Take the title that setproctitle(3) would give, then be the daemon."""
    found, command = getopt.getopt(sys.argv[1:], OPTIONS)
    options = dict(found)
    if "DAEMON_DOUBLE" not in os.environ:
        title = f"daemon: {options.get('-t', command[0])}"
        os.environ["DAEMON_DOUBLE"] = "1"
        os.execv(sys.executable, [title, __file__, *sys.argv[1:]])  # noqa: S606  # only exec sets the title
    del os.environ["DAEMON_DOUBLE"]
    Daemon(options, command).run()


if __name__ == "__main__":
    main()

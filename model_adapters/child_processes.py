"""Processes that somebody else's code starts for us: their output in a log, their end with ours."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# Reads lists of process ids, a line each; at the end of its input it kills those of the last line.
_GUARD = 'last=; while read -r pids; do last=$pids; done; [ -z "$last" ] || kill -s KILL -- $last'
_ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)): *(\S.*)")
# What a process says that only passes on another's error.
_PASSED_ON = (
    "Engine core initialization failed",
    "EngineDeadError",
    "EngineCore encountered",
    "WorkerProc init",
)


class Guard:
    """Kills processes that this one leaves behind, however it ends: by SIGKILL, a crash or out of memory.

    A shell of a session of its own waits for our end of its pipe to close; closing it in order kills nothing.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def watch(self, pids: Iterable[int]) -> None:
        """From now on these, and no others; -N stands for the process group N."""
        with suppress(OSError, ValueError):  # closed already
            assert self._shell.stdin is not None
            self._shell.stdin.write(" ".join(map(str, pids)) + "\n")
            self._shell.stdin.flush()

    @contextmanager
    def watching_children(self) -> Iterator[None]:
        """While inside, whatever children `multiprocessing` has started; the last ones stay watched."""
        from multiprocessing import active_children

        done = threading.Event()

        def follow() -> None:
            while not done.wait(0.2):
                self.watch(pid for child in active_children() if (pid := child.pid))

        thread = threading.Thread(target=follow, name="guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.watch(pid for child in active_children() if (pid := child.pid))

    def close(self) -> None:
        self.watch(())
        with suppress(OSError):
            assert self._shell.stdin is not None
            self._shell.stdin.close()
        self._shell.wait()


class Log:
    """A file in a folder of its own below the temporary one; removed at the end unless it tells of a failure."""

    def __init__(self, name: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="evalkit-"))
        self.path = self._folder / f"{name}.log"
        self.path.touch()

    def error(self) -> str | None:
        """The last error in the log that does not merely pass on another, on one line; None without one."""
        found = None
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for at, line in enumerate(lines):
            match = _ERROR.search(line)
            if match and not any(words in line for words in _PASSED_ON):
                # pydantic says what is wrong on the lines that follow
                more = lines[at + 1 : at + 4] if "validation error" in line else []
                found = gist(" ".join([match.group(0), *more]))
        return found

    def last_line(self) -> str | None:
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((one_line(line) for line in reversed(lines) if line.strip()), None)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def output_into(path: str | Path) -> Iterator[None]:
    """What this process and the children it starts inside write to standard output and error goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(fd, os.dup(fd)) for fd in (1, 2)]
    try:
        with Path(path).open("ab") as file:
            for fd, _ in kept:
                os.dup2(file.fileno(), fd)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, saved in kept:
            os.dup2(saved, fd)
            os.close(saved)


def gist(text: str) -> str:
    """An error's text on one line, without what pydantic adds: the type, all of the input, a link."""
    return one_line(text.split(" [type=")[0].split("For further information")[0]).rstrip(". ")


def one_line(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """os.environ with `values` where they are not set already, put back at the end."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """`what ... 12 s` on the terminal, where there is one, for as long as it takes."""
    if not sys.stderr.isatty():
        yield
        return
    terminal, done, started = os.dup(2), threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(1):
            os.write(terminal, f"\r{what} ... {time.monotonic() - started:.0f} s".encode())

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.write(terminal, b"\r\x1b[K")
        os.close(terminal)

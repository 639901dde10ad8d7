"""Results on disk: lines that are only ever appended, each writer's in a file of its own, and
claims on work to do."""

import json
import os
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from steerlab.core.errors import SteerlabError

_PREFIX = '{"sum":"%08x",'
_LENGTH = len(_PREFIX % 0)


class Results:
    """The finished work of a folder: `read` gives what is new, `append` adds a record, `claim`
    takes a piece of work.

    A record is one line of JSON with a checksum, written and synced at once. A process that is
    killed leaves at most an unfinished last line, which no one reads. Whoever is killed loses its
    claims, since the system holds them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []  # damaged lines
        self._read: dict[Path, tuple[int, int]] = {}  # of each file: bytes and lines
        self._file: Path | None = None
        self._claims: dict[str, FileLock] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> Iterator[dict[str, Any]]:
        """Records that have come since the last call, whoever wrote them; a damaged line is
        told, the rest is kept."""
        for file in sorted(self.folder.glob("*.jsonl")):
            start, number = self._read.get(file, (0, 0))
            with file.open("rb") as opened:
                opened.seek(start)
                for line in opened:
                    if not line.endswith(b"\n"):
                        break  # its writer is not done, or was killed
                    start, number = start + len(line), number + 1
                    self._read[file] = (start, number)
                    record = _parse(line)
                    if record is None:
                        told = (
                            f"{file} line {number} is damaged; what it held will be run again, the "
                            "rest is kept"
                        )
                        self.problems.append(told)
                        Console(stderr=True).print(
                            f"steerlab: {told}", soft_wrap=True, highlight=False, markup=False
                        )
                    else:
                        yield record

    def append(self, record: dict[str, Any]) -> None:
        """Write one record, whole or not at all."""
        told = json.dumps(record, ensure_ascii=False, separators=(",", ":"))[1:]
        line = ((_PREFIX % zlib.crc32(told.encode())) + told + "\n").encode()
        if self._file is None:
            writer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{writer}"
            self._file = self.folder / f"{name}.jsonl"
        size = self._file.stat().st_size if self._file.exists() else 0
        try:
            with self._file.open("ab") as opened:
                opened.write(line)
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            if self._file.exists():
                os.truncate(self._file, size)
            raise SteerlabError(
                f"could not write {self._file} ({error.strerror or error}); what was finished is "
                "kept: make room and "
                "run again"
            ) from error

    def claim(self, name: str) -> bool:
        """Take a piece of work, unless another process has it now; held until `release` or the
        end of the process."""
        (self.folder / "claims").mkdir(exist_ok=True)
        file = self.folder / "claims" / f"{name}.lock"
        lock = FileLock(file, blocking=False, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        except (
            OSError,
            NotImplementedError,
        ) as error:  # the second is what filelock says of a system without locks
            raise SteerlabError(
                f"could not lock {file} ({error}); put the results on a file system with locks (a "
                "local disk, NFS 4)"
            ) from error
        self._claims[name] = lock
        return True

    def release(self, name: str) -> None:
        """Give a claim back."""
        self._claims.pop(name).release()


def _parse(line: bytes) -> dict[str, Any] | None:
    told = line[:-1]
    try:
        if told[:_LENGTH] != (_PREFIX % zlib.crc32(told[_LENGTH:])).encode():
            return None
        record = json.loads(told)
    except (ValueError, UnicodeDecodeError):
        return None
    del record["sum"]
    return record

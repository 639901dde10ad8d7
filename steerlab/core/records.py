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

from steerlab.core.errors import SteerlabError, note

# Every line starts with the CRC-32 of the rest of it, in a form that is still valid JSON.
_PREFIX = '{"sum":"%08x",'
_LENGTH = len(_PREFIX % 0)


class Results:
    """The finished work of a folder: `read` yields new records, `append` writes one, `claim` takes
    a piece of work.

    A record is one line of JSON with a checksum, written and synced at once. A process that is
    killed leaves at most an unfinished last line, which readers skip. The operating system holds
    the claims, so those of a killed process end with it.

    Args:
        folder: where the records and claims are kept; made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []  # one sentence for each damaged line
        # How far each file was read: its bytes and its lines.
        self._read: dict[Path, tuple[int, int]] = {}
        # Our own file, named at the first append: a process that only reads makes none.
        self._file: Path | None = None
        self._claims: dict[str, FileLock] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the records that any process has written since the last call.

        A damaged line is reported on stderr and in `problems`, and skipped; the others are kept.
        """
        for file in sorted(self.folder.glob("*.jsonl")):
            start, number = self._read.get(file, (0, 0))
            with file.open("rb") as opened:
                opened.seek(start)
                for line in opened:
                    # The writer of an unfinished line is still at work, or was killed. Stay before
                    # it, so that the next call reads it whole.
                    if not line.endswith(b"\n"):
                        break
                    start += len(line)
                    number += 1
                    # Kept before the record is handed out: the caller may stop at any record.
                    self._read[file] = (start, number)
                    record = _parse(line)
                    if record is None:
                        self._report_damage(file, number)
                    else:
                        yield record

    def _report_damage(self, file: Path, number: int) -> None:
        message = (
            f"{file} line {number} is damaged; what it held will be run again, the rest is kept"
        )
        self.problems.append(message)
        note(message)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record, whole or not at all; raises `SteerlabError` where the disk refuses."""
        # The checksum covers everything behind the prefix, which replaces the opening brace.
        body = json.dumps(record, ensure_ascii=False, separators=(",", ":"))[1:]
        try:
            data = body.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can say
            data = json.dumps(record, separators=(",", ":"))[1:].encode()
        line = (_PREFIX % zlib.crc32(data)).encode() + data + b"\n"
        if self._file is None:
            # Host, process and a random part: no two writers share a file, on any machine.
            writer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{writer}"
            self._file = self.folder / f"{name}.jsonl"
        size = self._file.stat().st_size if self._file.exists() else 0
        try:
            with self._file.open("ab") as opened:
                opened.write(line)
                # A finished cell must outlive a machine that goes down, not only the process.
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            # A full disk may have taken part of the line: cut it off again.
            if self._file.exists():
                os.truncate(self._file, size)
            raise SteerlabError(
                f"could not write {self._file} ({error.strerror or error}); what was finished is "
                "kept: make room and run again"
            ) from error

    def claim(self, name: str) -> bool:
        """Take a piece of work and return True, or False if another process has it now.

        The claim lasts until `release` or the end of the process. Raises `SteerlabError` on a file
        system without locks.
        """
        (self.folder / "claims").mkdir(exist_ok=True)
        file = self.folder / "claims" / f"{name}.lock"
        # No soft lock: it is a mere file, which would outlive a killed process.
        lock = FileLock(file, blocking=False, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        # NotImplementedError is how filelock reports a system without locks.
        except (OSError, NotImplementedError) as error:
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
    """The record of a line, without its checksum; None for a line that is damaged."""
    text = line[:-1]  # without the newline
    try:
        if text[:_LENGTH] != (_PREFIX % zlib.crc32(text[_LENGTH:])).encode():
            return None
        record = json.loads(text)
    except (ValueError, UnicodeDecodeError):
        return None
    del record["sum"]
    return record

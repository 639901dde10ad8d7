"""What a write may replace: nothing, or a regular file that steerlab itself wrote."""

import errno
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from steerlab.core.errors import SteerlabError

GENERATOR = '<meta name="generator" content="steerlab">'  # in the head of every page
ORIGIN = "steerlab.origin"  # the key of a control vector's GGUF that says what made it
MADE_BY = {"tool": "steerlab"}  # in what an array file says of its origin
# By ending, what stands in the head of a file that steerlab wrote.
HEADS = {".html": GENERATOR, ".htm": GENERATOR, ".gguf": ORIGIN}
# At the end of what has no head of its own; in both it is a comment.
TAILS = {".svg": b"<!-- steerlab -->\n", ".pdf": b"% steerlab\n"}
_HEAD = 4096  # bytes of a page among which its generator stands
_ORIGIN = 1_000_000  # bytes, more than any origin of arrays has
_HEADER = 100_000_000  # bytes: safetensors itself reads no longer header
_RUNS = ("manifest.json", "sweep.json", "summary.json")  # each says that a folder is a run's

# The files that this process has written, as they were left. A table or a text has no place for a
# mark, and is written again by who wrote it.
_written: dict[Path, tuple[int, ...]] = {}


def target_of(
    file: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
) -> Path:
    """The path that a write to `file` makes or replaces, its symbolic links resolved.

    Raises `SteerlabError` where something lies there that must not be replaced: a device, a pipe
    or a socket, a regular file that steerlab did not write, or what the work itself reads; and
    `OSError` for a folder, or a path that the system refuses.

    Args:
        file: where something is to be written.
        inputs: files, and folders of files, that are read; `force` never covers them.
        force: replace a regular file, whoever wrote it.
    """
    path = Path(file)
    # `strict` raises for a loop of links; only of what is not there it asks too much.
    real = Path(os.path.realpath(path))
    shown = str(path) if real == Path(os.path.abspath(path)) else f"{path} (which is {real})"
    try:
        kind = os.lstat(real).st_mode
    except FileNotFoundError:
        return real
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISLNK(kind):  # a link that `realpath` could not follow to its end
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if not stat.S_ISREG(kind):
        raise SteerlabError(
            f"{shown} is {_name_of(kind)}, which is never replaced; give the name of a file"
        )
    # What a link of another ending leads to is another kind of file.
    ours = real.suffix == path.suffix and is_ours(real)
    for read in map(Path, inputs):
        # The name of a model on the Hub is no path.
        if not read.exists():
            continue
        if os.path.samefile(real, read) or (not ours and _holds(read, real)):
            raise SteerlabError(
                f"{shown} is read by this very command ({read}); give another name to write to"
            )
    if not force and not ours:
        raise SteerlabError(
            f"{shown} is there, and steerlab did not write it; give another name, or replace it "
            "with --force (in Python force=True)"
        )
    return real


def is_ours(file: Path) -> bool:
    """Whether steerlab wrote a file: it says so itself, it lies in the folder of a run, or this
    process wrote it."""
    if not file.is_file():
        return False
    real = file.resolve()
    # figures/ and directions/ lie in a run's folder.
    above = (real.parent, real.parent.parent)
    return (
        _written.get(real) == _left(real)
        or _holds_true(_says_so, file)
        or _holds_true(_is_vouched_for, file)
        or any(_holds_true(_says_so, folder / name) for folder in above for name in _RUNS)
    )


def wrote(file: Path) -> None:
    """Note that this process has written a file, whose path has no links."""
    _written[file] = _left(file)


def _left(file: Path) -> tuple[int, ...]:
    """What changes when somebody else writes a file."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def mark(file: Path, ending: str) -> None:
    """Put the mark of steerlab into a drawing that another package has written."""
    if ending in TAILS:
        with file.open("ab") as opened:
            opened.write(TAILS[ending])
    elif ending == ".png":
        data = file.read_bytes()
        file.write_bytes(data[:-12] + _chunk() + data[-12:])  # the last chunk, IEND, has 12 bytes


def marked_page(page: str, table: bytes | None = None) -> str:
    """A page of HTML with its generator in the head, and the checksum of the table beside it."""
    vouched = "" if table is None else f'<meta name="steerlab-table" content="{checksum(table)}">'
    return page.replace("<head>", f"<head>{GENERATOR}{vouched}", 1)


def checksum(content: bytes) -> str:
    """What a file says of another one that has no place for a mark itself."""
    return hashlib.sha256(content).hexdigest()


def _holds_true(check: Callable[[Path], bool], file: Path) -> bool:
    """What a check says of a file; what cannot be read is not known as one's own."""
    try:
        return stat.S_ISREG(file.stat().st_mode) and check(file)
    except (OSError, ValueError, RuntimeError, BadZipFile, zlib.error):
        return False


def _says_so(file: Path) -> bool:
    """Whether the content of a file names steerlab as what wrote it."""
    ending = file.suffix
    if ending == ".safetensors":
        metadata = _metadata(file)
        return "steerlab" in metadata or str(metadata.get("format", "")).startswith("steerlab")
    if ending == ".json":
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            return False
        # Files of before "steerlab" stood in them are known by what only they hold.
        return (
            "steerlab" in content
            or content.get("library_name") == "steerlab"  # beside a card for the Hub
            or (
                content.get("format") == 1
                and bool({"settings", "grid", "results", "command"} & content.keys())
            )
        )
    if ending in (".npz", ".pt"):
        return _archive_says_so(file)
    with file.open("rb") as opened:
        if ending in HEADS:
            return HEADS[ending].encode() in opened.read(_HEAD)
        if ending in TAILS or ending == ".png":
            tail = TAILS.get(ending) or _chunk()
            opened.seek(max(0, file.stat().st_size - len(tail) - 12))
            return tail in opened.read()
    return False


def _is_vouched_for(file: Path) -> bool:
    """Whether a file beside it, which steerlab wrote, holds its checksum: the page of a table, the
    weights of a configuration, and what says what made vectors for another tool."""
    if file.suffix == ".csv":
        page = file.with_suffix(".html")
        with page.open("rb") as opened:
            head = opened.read(_HEAD)
        return GENERATOR.encode() in head and checksum(file.read_bytes()).encode() in head
    if file.name == "cfg.json":
        metadata = _metadata(file.with_name("sae_weights.safetensors"))
        # Autoencoders of before the checksum stood there have the digest alone.
        return "steerlab" in metadata and metadata.get("config") in (
            None,
            checksum(file.read_bytes()),
        )
    beside = json.loads(file.with_name(file.name + ".json").read_bytes())
    known = isinstance(beside, dict) and "steerlab" in beside and "sha256" in beside
    return known and beside["sha256"] == checksum(file.read_bytes())


def _archive_says_so(file: Path) -> bool:
    """Whether the origin that stands in an archive of arrays or tensors names steerlab."""
    wanted = json.dumps(MADE_BY)[1:-1].encode()
    with ZipFile(file) as held:
        for entry in held.infolist():
            says = entry.filename.endswith(("origin.npy", "data.pkl"))
            # NumPy writes a letter as four bytes.
            if says and entry.file_size <= _ORIGIN:
                return wanted in held.read(entry).replace(b"\0", b"")
    return False


def _metadata(file: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file, without its tensors."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
        if not 0 < length <= min(_HEADER, file.stat().st_size):
            return {}
        header = json.loads(opened.read(length))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _chunk() -> bytes:
    """The chunk of a PNG file that names its software."""
    body = b"tEXtSoftware\0steerlab"
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _holds(folder: Path, real: Path) -> bool:
    """Whether a file lies in a folder that is read, such as a corpus or a model."""
    return folder.is_dir() and real.is_relative_to(folder.resolve())


def _name_of(kind: int) -> str:
    """What a file that is not a regular one is called."""
    kinds = {
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for test, name in kinds.items() if test(kind)), "no regular file")

"""Files that are whole or not there: every write is one atomic step, and replaces nothing but a
file that steerlab wrote."""

import csv
import errno
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from steerlab.core.errors import SteerlabError
from steerlab.core.targets import checksum, target_of, wrote

if TYPE_CHECKING:
    import pandas as pd  # a table brings it along: reading a file of settings should not

# How files end; any other dot in a folder's name is part of it, as in llama-3.1-8b.
FILES = frozenset(
    ".bin .csv .docx .gguf .htm .html .jpeg .jpg .json .jsonl .md .npy .npz .parquet .pdf .pickle "
    ".pkl .png .pt .pth "
    ".safetensors .svg .tsv .txt .xlsx .yaml .yml .zip".split()
)


_LARGEST_CONFIG = 10_000_000  # bytes


def need_ending(
    path: str | os.PathLike[str], *allowed: str, made: str = "a folder", done: str = "written"
) -> Path:
    """The path, if its name ends as what is written there does; to be asked before any work.

    Without `allowed`, what is written is a folder, or whatever `made` says, and the name must not
    end as a file's does. `done` is "read" where a file is read.
    """
    path = _named(path)
    given = path.suffix
    if allowed and given not in allowed:
        found, kinds = f"ends in {given}" if given else "has no ending", " or ".join(allowed)
        raise SteerlabError(
            f"{path} {found}, but what is {done} there is {kinds}; give a name that ends in {kinds}"
        )
    if not allowed and given.lower() in FILES:
        raise SteerlabError(
            f"{path} ends in {given}, as a file does, but what is written there is {made}; give a "
            f"name without {given}"
        )
    return path


def need_target(
    path: str | os.PathLike[str],
    *allowed: str,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    force: bool = False,
) -> Path:
    """The path, if a file with one of these endings can be written there; to be asked before any
    work.

    Args:
        path: the file that will be written.
        allowed: the endings that it may have.
        inputs: what the work reads, which is never written over.
        force: replace a regular file that steerlab did not write.
    """
    file = need_ending(path, *allowed)
    with explained(file):
        given = [each for each in inputs if each is not None]
        parent = target_of(file, inputs=given, force=force).parent
        _need_writable(parent)
    return file


def need_folder(path: str | os.PathLike[str]) -> Path:
    """The path, if a folder is there or can be made; to be asked before any work."""
    folder = need_ending(path)
    with explained(folder):
        there = folder
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        _need_writable(there)
    return folder


@contextmanager
def replacing(*files: Path, force: bool = False) -> Iterator[Sequence[Path]]:
    """Give temporary files beside the targets; they replace them once the block has written all.

    Each replacement is one step of the file system, so a reader sees the old file or the new one,
    never a part. A block that fails leaves the old files as they were and nothing beside them.
    Only a regular file that steerlab wrote is replaced; with `force` any regular file, and nothing
    else ever (`targets.target_of`). The errors of writing pass through: whoever knows what is lost
    adds the sentence (`explained`).
    """

    def targets() -> list[Path]:
        return [target_of(file, force=force) for file in files]

    real = targets()
    temporary = [_beside(file) for file in real]
    try:
        yield temporary
        # Asked again, since the block may have taken hours.
        real = targets()
        # Only now, so that targets that belong together are replaced when all of them are written.
        for fresh, file in zip(temporary, real, strict=True):
            os.replace(fresh, file)
            wrote(file)
    finally:
        for fresh in temporary:
            # The error that made the block fail matters more than one of tidying up after it.
            with suppress(OSError):
                fresh.unlink(missing_ok=True)


@contextmanager
def explained(target: str | Path) -> Iterator[None]:
    """Raise a failed write as a `SteerlabError` that names the target and says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        raise SteerlabError(
            f"could not write {target} ({error}); make room, or give a folder that is there and "
            "can be written"
        ) from error


def read_bytes(file: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Raises `OSError` where there is none, and `SteerlabError` for a folder, a pipe or a device,
    whose reading may never end, and for more than `limit` bytes.
    """
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise SteerlabError(f"{file} is {what}; give the name of a file")
    if limit is not None and status.st_size > limit:
        raise SteerlabError(
            f"{file} has {status.st_size:,} bytes, and such a file has at most {limit:,}; give "
            "another one"
        )
    return Path(file).read_bytes()


def read_config(file: Path) -> dict[str, Any]:
    """The object in a JSON file that came with weights; raises for what is missing or damaged."""
    try:
        config = json.loads(read_bytes(file, limit=_LARGEST_CONFIG))
    # RecursionError is what deep nesting gives.
    except (OSError, ValueError, RecursionError) as error:
        raise SteerlabError(
            f"{file} is no JSON that can be read ({error}); fetch it again"
        ) from error
    if not isinstance(config, dict):
        raise SteerlabError(f"{file} holds no configuration; fetch it again")
    return config


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; nothing where there is no file.

    Raises `SteerlabError` for a file that is damaged, holds something else, or was altered after
    `write_json` wrote it.
    """
    if not os.path.lexists(file):
        return {}
    with_advice = "it was damaged after it was written: restore it, or give another folder"
    try:
        content = json.loads(read_bytes(file))
    except OSError as error:
        raise SteerlabError(f"{file} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not file.stat().st_size else str(error) or "nested too deeply"
        raise SteerlabError(f"{file} is no valid JSON ({reason}); {with_advice}") from error
    if not isinstance(content, dict):
        raise SteerlabError(f"{file} holds no JSON object; {with_advice}")
    # Files of before the checksum stood in them have none; unless its own name was damaged.
    told = content.pop(_SUM, None)
    odd = told is not None and told != _sum(content)
    lost = told is None and (any(_is_sum(content, key) for key in content) or _ends_in_sum(content))
    if odd or lost:
        raise SteerlabError(f"{file} does not agree with its checksum; {with_advice}")
    return content


def write_json(file: Path, value: Mapping[str, Any], *, force: bool = False) -> None:
    """Write JSON in one step, with a checksum of the rest under the key `steerlab`."""
    text = json.dumps({**value, _SUM: _sum(value)}, indent=1, ensure_ascii=False)
    write_text(need_ending(file, ".json"), text, force=force)


def write_text(file: Path, text: str, *, force: bool = False) -> None:
    """Write a text in one step."""
    with replacing(file, force=force) as (fresh,):
        fresh.write_text(text, "utf-8")


def write_table(file: Path, table: "pd.DataFrame", *, force: bool = False) -> None:
    """Write a table as its name says, .parquet or .csv, in one step."""
    need_ending(file, ".parquet", ".csv")
    with replacing(file, force=force) as (fresh,):
        if file.suffix == ".parquet":
            table.to_parquet(fresh, write_page_checksum=True)
        else:
            fresh.write_bytes(csv_of(table))


def csv_of(table: "pd.DataFrame", *, digits: str | None = None) -> bytes:
    """A table as CSV, which any reader reads back as it was.

    Args:
        table: what is written, without its index.
        digits: the format of numbers, such as "%.6g"; by default all that they have.
    """
    made = partial(table.to_csv, index=False, float_format=digits)
    text = str(made())
    # Readers of CSV end a row at a CR alone too, and Python's writer leaves it bare.
    return (str(made(quoting=csv.QUOTE_NONNUMERIC)) if "\r" in text else text).encode()


def read_table(file: Path) -> "pd.DataFrame":
    """A table that `write_table` wrote as .parquet; raises `SteerlabError` for a damaged one."""
    import pandas as pd
    from pyarrow import ArrowException

    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise SteerlabError(f"{file} is no file; give the folder of a finished run")
        return pd.read_parquet(file, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, ArrowException) as error:
        raise SteerlabError(
            f"{file} is truncated or no parquet file ({error}); run again"
        ) from error


_SUM = "steerlab"  # the key of a file's checksum, which says too who wrote it


def _sum(value: Mapping[str, Any]) -> str:
    """The checksum of an object, whatever the order of its keys."""
    return checksum(json.dumps(value, sort_keys=True).encode())[:16]


def _ends_in_sum(value: Mapping[str, Any]) -> bool:
    """Whether the last that stands there looks as `write_json` leaves a checksum: then its name was
    damaged, and something else may be too."""
    last = next(reversed(list(value.values())), None)
    return isinstance(last, str) and re.fullmatch(r"[0-9a-f]{16}", last) is not None


def _is_sum(value: Mapping[str, Any], key: str) -> bool:
    """Whether what stands under a key is the checksum of the rest."""
    given = value[key]
    if not isinstance(given, str) or len(given) != 16:
        return False
    return given == _sum({name: each for name, each in value.items() if name != key})


_UNFINISHED = re.compile(r".*\.[0-9a-f]{12}\.new", re.DOTALL)


def is_unfinished(file: Path) -> bool:
    """Whether a file is one that a write which was killed left behind."""
    return _UNFINISHED.fullmatch(file.name) is not None


def _beside(file: Path) -> Path:
    """A name that no other process takes, on this machine or another one."""
    return file.parent / f"{file.name}.{uuid.uuid4().hex[:12]}.new"


def _named(path: str | os.PathLike[str]) -> Path:
    """A path whose name can be written: any other could be neither printed nor kept in a file."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise SteerlabError(
            f"the name {os.fspath(path)!r} holds bytes that are no UTF-8; give another name"
        ) from error
    if "\0" in os.fspath(path):
        raise SteerlabError(f"the name {os.fspath(path)!r} holds a NUL byte; give another name")
    return Path(path)


def _need_writable(folder: Path) -> None:
    """Raise the system's own error where no file can be made in a folder."""
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

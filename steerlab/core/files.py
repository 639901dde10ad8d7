"""Files that are whole or not there: every write is one atomic step."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from steerlab.core.errors import SteerlabError

# How files end; any other dot in a folder's name is part of it, as in llama-3.1-8b.
FILES = frozenset(
    ".bin .csv .docx .gguf .htm .html .jpeg .jpg .json .jsonl .md .npy .npz .parquet .pdf .pickle "
    ".pkl .png .pt .pth "
    ".safetensors .svg .tsv .txt .xlsx .yaml .yml .zip".split()
)


def need_ending(path: str | os.PathLike[str], *allowed: str, made: str = "a folder") -> Path:
    """The path, if its name ends as what is written there does; to be asked before any work.

    Without `allowed`, what is written is a folder, or whatever `made` says, and the name must not
    end as a file's does.
    """
    path = Path(path)
    given = path.suffix
    if allowed and given not in allowed:
        found, kinds = f"ends in {given}" if given else "has no ending", " or ".join(allowed)
        raise SteerlabError(
            f"{path} {found}, but what is written there is {kinds}; give a name that ends in "
            f"{kinds}"
        )
    if not allowed and given.lower() in FILES:
        raise SteerlabError(
            f"{path} ends in {given}, as a file does, but what is written there is {made}; give a "
            f"name without {given}"
        )
    return path


@contextmanager
def replacing(*files: Path) -> Iterator[Sequence[Path]]:
    """Give temporary files beside the targets; they replace them once the block has written all.

    Each replacement is one step of the file system, so a reader sees the old file or the new one,
    never a part. A block that fails leaves the old files as they were and nothing beside them. The
    errors of writing pass through: whoever knows what is lost adds the sentence (`explained`).
    """
    temporary = [_beside(file) for file in files]
    try:
        yield temporary
        # Only now, so that targets that belong together are replaced when all of them are written.
        for fresh, file in zip(temporary, files, strict=True):
            os.replace(fresh, file)
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


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing where there is none."""
    content: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return content


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one step."""
    write_text(need_ending(file, ".json"), json.dumps(value, indent=1, ensure_ascii=False))


def write_text(file: Path, text: str) -> None:
    """Write a text in one step."""
    with replacing(file) as (fresh,):
        fresh.write_text(text, "utf-8")


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a table as its name says, .parquet or .csv, in one step."""
    need_ending(file, ".parquet", ".csv")
    with replacing(file) as (fresh,):
        if file.suffix == ".parquet":
            table.to_parquet(fresh)
        else:
            table.to_csv(fresh, index=False)


def _beside(file: Path) -> Path:
    """A name that no other process takes, on this machine or another one."""
    return file.parent / f"{file.name}.{uuid.uuid4().hex[:6]}.new"

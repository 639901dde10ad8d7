"""Files that are whole or not there: every write is one atomic step."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.errors import SteerlabError

# How files end; any other dot in a folder's name is part of it, as in llama-3.1-8b.
FILES = frozenset(
    ".bin .csv .docx .gguf .htm .html .jpeg .jpg .json .jsonl .md .npy .npz .parquet .pdf .pickle "
    ".pkl .png .pt .pth "
    ".safetensors .svg .tsv .txt .xlsx .yaml .yml .zip".split()
)


def need_ending(path: str | Path, *allowed: str, made: str = "a folder") -> Path:
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


def read_json(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one step."""
    write_text(need_ending(file, ".json"), json.dumps(value, indent=1, ensure_ascii=False))


def write_text(file: Path, text: str) -> None:
    """Write a text in one step."""
    fresh = _fresh(file)
    try:
        fresh.write_text(text, "utf-8")
        os.replace(fresh, file)
    finally:
        fresh.unlink(missing_ok=True)


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a table as its name says, .parquet or .csv, in one step."""
    need_ending(file, ".parquet", ".csv")
    fresh = _fresh(file)
    try:
        if file.suffix == ".parquet":
            table.to_parquet(fresh)
        else:
            table.to_csv(fresh, index=False)
        os.replace(fresh, file)
    finally:
        fresh.unlink(missing_ok=True)


def _fresh(file: Path) -> Path:
    """A name that no other process takes, on this machine or another one."""
    return file.with_name(f"{file.name}.{uuid.uuid4().hex[:6]}.new")

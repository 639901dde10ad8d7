"""The folder of a run: taken once, each of its files whole or not there."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.terms import SteerlabError


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder that is empty, or whose manifest.json says that the same settings made it; others raise."""
    file = folder / "manifest.json"
    foreign = occupied(folder)
    if file.exists():
        made = read_json(file).get("settings", {})
        if other := [key for key, value in settings.items() if made.get(key) != value]:
            told = ", ".join(f"{key} {made.get(key)!r} there, {settings[key]!r} here" for key in other)
            raise SteerlabError(f"{folder} holds a run with other settings ({told}); give another --out or delete it")
    elif foreign:
        raise SteerlabError(f"{folder} holds files, but no run; give an empty or a new folder as --out")
    folder.mkdir(parents=True, exist_ok=True)


def occupied(folder: Path) -> bool:
    """Whether a folder holds anything beside files that were never finished."""
    return folder.is_dir() and any(path.suffix != ".new" for path in folder.iterdir())


def read_json(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one step."""
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False))


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

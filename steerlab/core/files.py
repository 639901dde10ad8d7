"""Files that are whole or not there: every write is one atomic step."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


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

"""Questions of CLaS-Bench's form, in files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.languages import LANGUAGES

TEXTS = {
    "de": ["Warum ist der Himmel blau?", "Was ist Zeit?", "Wie kocht man Reis?"],
    "en": ["Why is the sky blue?", "What is time?", "How do you cook rice?"],
    "no": ["Hvorfor er himmelen blå?", "Hva er tid?", "Hvordan koker man ris?"],
}


def rows_of(iso: str, texts: list[str]) -> pd.DataFrame:
    """Rows of CLaS-Bench's form, not in the order of their ids."""
    rows = [
        {
            "id": f"{iso}-{i}",
            "language_code": iso,
            "language": LANGUAGES[iso].name,
            "question_id": i,
            "question": text,
        }
        for i, text in enumerate(texts, start=81)
    ]
    return pd.DataFrame(rows[::-1])


WRITE: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "parquet": lambda rows, file: rows.to_parquet(file),
    "csv": lambda rows, file: rows.to_csv(file, index=False),
    "jsonl": lambda rows, file: rows.to_json(file, orient="records", lines=True, force_ascii=False),
}


def written(
    folder: Path, kind: str = "jsonl", more: Mapping[str, pd.DataFrame] | None = None
) -> Path:
    """A folder as the Hub has it, a folder of files for each language; `more` replaces or adds a
    language."""
    for iso, rows in (
        {iso: rows_of(iso, texts) for iso, texts in TEXTS.items()} | dict(more or {})
    ).items():
        (folder / iso).mkdir(parents=True, exist_ok=True)
        WRITE[kind](rows, folder / iso / f"train-00000-of-00001.{kind}")
    return folder


def changed(iso: str, **columns: Any) -> pd.DataFrame:
    return rows_of(iso, TEXTS[iso]).assign(**columns)

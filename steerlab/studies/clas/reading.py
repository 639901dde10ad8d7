"""Parallel questions: CLaS-Bench's from the Hub, others from a folder of the same form, or the
stand-in."""

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.corpus import SPLITS, Corpus, corpus
from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.languages import LANGUAGES, code_of
from steerlab.studies.clas.languages import LABELS

HUB = "DGurgurov/CLaS-Bench"
PACKAGED = Path(__file__).parents[2] / "data" / "questions"
COLUMNS = ("language_code", "question_id", "question")
KINDS = (".parquet", ".csv", ".jsonl", ".json")
ABOUT = (
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
)  # what a data set says of itself


# No direction is estimated from questions, so that none is kept for that: `test` is all that is
# not `dev`, and `all` is for a run that chooses nothing.
_SPLITS = {"dev": ("dev",), "test": ("estimate", "test"), "all": SPLITS}


def questions(source: str | Path | None = None) -> Corpus:
    """The questions of a Hub data set or of a folder, in all its languages; without a source, the
    stand-in.

    They are aligned by their id, which is their number; the splits are `dev` (about a fifth),
    `test` (all others) and `all`. The form is CLaS-Bench's: parquet, CSV or JSON-lines files whose
    rows have `language_code` (a code, or `language` its English name), `question_id` and
    `question`. A data set is fetched once and then read from the cache of the Hub. Raises for a
    missing column, an empty file, an unknown language, an empty or repeated question, and for
    languages whose ids differ, since then they are not parallel.
    """
    if source is None:
        read = corpus(PACKAGED)
        return _corpus("stand-in questions", dict(read.lines), read.numbers)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if (
            folder.exists()
            or str(source).count("/") != 1
            or str(source).startswith((".", "/", "~"))
        ):
            raise SteerlabError(
                f"there is no folder {source} of questions; give one, or a Hub id such as {HUB}"
            )
        folder = _fetched(str(source))
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in KINDS and file.is_file()]
    tables = [
        _table(file) for file in files if file.name not in ABOUT and not file.name.startswith(".")
    ]
    if not tables:
        raise SteerlabError(
            f"{source} holds no {', '.join(KINDS)} file of questions; give one for each language"
        )
    return _aligned(pd.concat(tables, ignore_index=True), str(source))


def _fetched(name: str) -> Path:
    """The folder of a Hub data set in the cache, brought up to date if the Hub can be reached."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        kinds = [f"*{kind}" for kind in KINDS]
        return Path(
            huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=kinds)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise SteerlabError(
            f"could not fetch the questions {name!r} from the Hub, and they are not in its cache "
            f"({first_line_of(error)}); check the id, connect once, or give a folder of the "
            "same form"
        ) from error


def _table(file: Path) -> pd.DataFrame:
    """The rows of one file: language (our code), id and question."""
    try:
        rows = _read(file)
    except (ValueError, OSError) as error:  # pandas' and Arrow's errors are of these two kinds
        raise SteerlabError(
            f"{file} is no whole {file.suffix} table ({first_line_of(error)})"
        ) from error
    if missing := [name for name in COLUMNS if name not in rows.columns]:
        raise SteerlabError(
            f"{file} has no column {missing[0]!r}; it has {', '.join(map(str, rows.columns))}, and "
            "questions need "
            f"{', '.join(COLUMNS)}: rename its columns"
        )
    if rows.empty:
        raise SteerlabError(
            f"{file} holds no questions; a language without questions is left out with its file"
        )
    names = rows["language"] if "language" in rows.columns else [""] * len(rows)
    codes = [
        _code(code, name, file) for code, name in zip(rows["language_code"], names, strict=True)
    ]
    texts = [
        _text(text, number, file)
        for text, number in zip(rows["question"], rows["question_id"], strict=True)
    ]
    ids = [
        int(number) if str(number).isdecimal() else str(number) for number in rows["question_id"]
    ]
    return pd.DataFrame({"language": codes, "id": pd.Series(ids, dtype=object), "question": texts})


def _read(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    if not file.stat().st_size:
        return pd.DataFrame(columns=list(COLUMNS))
    if file.suffix == ".csv":
        # Lines end at LF or CRLF, as everywhere; pandas would end one at a CR alone too.
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return pd.read_csv(
            io.StringIO(text, newline=""),
            dtype={"language_code": str},
            keep_default_na=False,
            lineterminator="\n",
        )
    return pd.read_json(file, lines=file.suffix == ".jsonl", dtype={"language_code": str})


def _code(code: Any, name: Any, file: Path) -> str:
    # A listed language's English name says more than a code that the file may use its own way.
    if code not in LANGUAGES:
        for lang, language in LANGUAGES.items():
            if language.name == name:
                return lang
    known = code_of(code) if isinstance(code, str) else None
    if known is not None:
        return known
    raise SteerlabError(
        f"{file} has the unknown language code {code!r}; known codes: {' '.join(LANGUAGES)}"
    )


def _text(text: Any, number: Any, file: Path) -> str:
    stripped = text.strip() if isinstance(text, str) else ""
    if not stripped:
        raise SteerlabError(f"question {number} of {file} is empty; each question needs its text")
    return stripped


def _aligned(rows: pd.DataFrame, name: str) -> Corpus:
    """The questions in the order of their ids, which must be the same in every language."""
    repeated = rows.duplicated(["language", "id"])
    if repeated.any():
        language, number = rows.loc[repeated, ["language", "id"]].iloc[0]
        raise SteerlabError(
            f"{name} has question {number} in {language!r} twice; keep one of the two"
        )
    by_language = {
        str(lang): dict(zip(part["id"], part["question"], strict=True))
        for lang, part in rows.groupby("language", sort=False)
    }
    first = next(iter(by_language))
    ids = set(by_language[first])
    for lang, questions in by_language.items():
        odd = sorted(ids ^ set(questions), key=str)
        if odd:
            raise SteerlabError(
                f"the questions of {name} are not parallel: {len(odd)} ids are in only one of "
                f"{first!r} and {lang!r}, "
                f"such as {odd[0]}; each question needs its translation in every language"
            )
    # Ids that are numbers are kept as the sentences' numbers; others only give the order.
    numbered = all(isinstance(number, int) for number in ids)
    order = sorted(ids) if numbered else sorted(ids, key=str)
    lines = {
        lang: tuple(questions[number] for number in order)
        for lang, questions in by_language.items()
    }
    numbers = tuple(order) if numbered else tuple(range(len(order)))
    return _corpus(os.path.basename(name.rstrip("/")), lines, numbers)


def _corpus(name: str, lines: dict[str, tuple[str, ...]], numbers: tuple[int, ...]) -> Corpus:
    """Questions with their languages in CLaS-Bench's order, others after them."""
    ordered = {
        lang: lines[lang] for lang in dict.fromkeys([*LABELS, *LANGUAGES, *lines]) if lang in lines
    }
    return Corpus(name, ordered, numbers, splits=_SPLITS)

"""CLaS-Bench's questions are read in its form, and its languages have the identifier's labels."""

from pathlib import Path

import pandas as pd
import pytest
from clas_questions import TEXTS, WRITE, changed, rows_of, written

import steerlab.scores.langid as langid
from steerlab.core.corpus import SPLITS
from steerlab.core.errors import SteerlabError
from steerlab.scores.langid import identifier
from steerlab.studies.clas import (
    LABELS,
    questions,
)
from steerlab.studies.clas.reading import PACKAGED

# ---------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize("kind", WRITE)
def test_a_folder_is_read_by_id_in_the_order_of_the_paper(tmp_path: Path, kind: str) -> None:
    (tmp_path / "README.md").write_text("no questions here", "utf-8")
    (tmp_path / "dataset_infos.json").write_text("{}", "utf-8")
    read = questions(written(tmp_path, kind))
    assert {iso: list(lines) for iso, lines in read.lines.items()} == TEXTS
    assert read.langs == ("en", "de", "no"), "the order of CLaS-Bench"
    assert read.numbers == (81, 82, 83)


def test_one_file_may_hold_all_languages(tmp_path: Path) -> None:
    whole = pd.concat([rows_of(iso, texts) for iso, texts in TEXTS.items()])
    whole.drop(columns=["id", "language"]).to_csv(tmp_path / "all.csv", index=False)
    assert questions(tmp_path).lines == questions(written(tmp_path / "apart")).lines


def test_ids_that_are_words_and_codes_that_are_names(tmp_path: Path) -> None:
    renamed = {iso: rows_of(iso, texts) for iso, texts in TEXTS.items()}
    for rows in renamed.values():
        rows["question_id"] = [f"q{number}" for number in rows["question_id"]]
    renamed["no"]["language_code"] = "nob"
    read = questions(written(tmp_path, more=renamed))
    assert (read.numbers, read["no"]) == ((0, 1, 2), tuple(TEXTS["no"]))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_questions_end_where_lines_of_a_corpus_do(tmp_path: Path, kind: str, newline: str) -> None:
    """A lone CR or U+2028 in a question, unquoted as another program wrote it, makes no new row."""
    asked = ["Was\rist das?", "Wo\u2028ist er?", "Wer\x85ist sie?"]
    folder = written(tmp_path, kind, {"de": changed("de", question=asked[::-1])})
    file = next((folder / "de").iterdir())
    text = file.read_bytes().decode().replace("\n", newline)
    if kind == "csv":
        assert '"' not in text, "it is not quoted"
    file.write_bytes(text.encode())
    assert list(questions(folder)["de"]) == asked


WRONG = {
    "column 'question_id'; it has id, language_code, language, question, and questions need": {
        "de": changed("de").drop(columns="question_id")
    },
    "unknown language code 'xx'; known codes: en": {
        "de": changed("de", language_code="xx", language="Elvish")
    },
    "holds no questions; a language without questions is left out with its file": {
        "de": changed("de")[:0]
    },
    "question 83 of .* is empty": {"de": changed("de", question=["", "a", "b"])},
    "question 81 in 'de' twice": {"de": pd.concat([changed("de"), changed("de")[2:]])},
    "not parallel: 1 ids are in only one of 'de' and 'en', such as 81": {"en": changed("en")[:2]},
}


@pytest.mark.parametrize("told", WRONG)
def test_wrong_questions_say_what_is_wrong(tmp_path: Path, told: str) -> None:
    kind = "csv" if "without questions" in told else "jsonl"
    with pytest.raises(SteerlabError, match=told):
        questions(written(tmp_path, kind, WRONG[told]))


def test_what_is_no_folder_of_questions(tmp_path: Path) -> None:
    with pytest.raises(
        SteerlabError, match="holds no .parquet, .csv, .jsonl, .json file of questions"
    ):
        questions(tmp_path)
    with pytest.raises(
        SteerlabError, match="there is no folder .*nowhere of questions; give one, or a Hub id"
    ):
        questions(tmp_path / "nowhere")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SteerlabError, match="broken.parquet is no whole .parquet table"):
        questions(tmp_path)
    (tmp_path / "broken.parquet").unlink()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(SteerlabError, match="empty.jsonl holds no questions"):
        questions(tmp_path)


def test_the_hub_is_read_through_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network a data set is read if it was fetched before, and told about if it was
    not."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SteerlabError, match="could not fetch the questions 'some/questions' from the Hub"
    ):
        questions("some/questions")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "datasets--some--questions"
    written(cached / "snapshots" / commit, "parquet")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert {iso: list(lines) for iso, lines in questions("some/questions").lines.items()} == TEXTS
    with pytest.raises(SteerlabError, match="could not fetch the questions 'not an/id'"):
        questions("not an/id")


def test_dev_and_test_share_no_question_and_leave_none_out() -> None:
    read = questions()
    dev, test = read.split("dev"), read.split("test")
    assert test.splits == read.splits, "a part is split like the whole"
    assert sorted(dev.numbers + test.numbers) == list(read.split("all").numbers)
    assert 0 < len(dev) < len(test)
    assert dev.take(2).split("all").numbers == dev.take(2).numbers
    with pytest.raises(
        SteerlabError,
        match="'stand-in questions' has no split 'estimate'; its splits are dev, test, all",
    ):
        read.split(SPLITS[0])


# ----------------------------------------------------------------------------------------- stand-in


def test_the_stand_in_is_whole() -> None:
    read = questions()
    assert len(read.langs) == 16
    assert len(read) >= 24
    for iso in read.langs:
        lines = read[iso]
        assert len(set(lines)) == len(lines), f"{iso} has a question twice"
        assert not [line for line in lines if line != " ".join(line.split()) or len(line) < 8]
        assert set(identifier().identify(lines)) == {iso}
    assert len({line for iso in read.langs for line in read[iso]}) == 16 * len(read), (
        "nothing is left untranslated"
    )
    assert {file.suffix for file in PACKAGED.iterdir()} == {".txt"}


# ---------------------------------------------------------------------------------------- languages


def test_the_labels_are_those_that_the_identifier_counts() -> None:
    """NLLB's labels of the 32 languages mean them, and those of their near relatives do not."""
    assert len(LABELS) == 32
    assert {
        label: langid._code(f"__label__{label}") for labels in LABELS.values() for label in labels
    } == {label: iso for iso, labels in LABELS.items() for label in labels}
    relatives = [
        "arz_Arab",
        "acm_Arab",
        "apc_Arab",
        "prs_Arab",
        "azj_Latn",
        "zsm_Latn",
        "kmr_Latn",
        "cat_Latn",
    ]
    relatives += [
        "rus_Latn",
        "hin_Latn",
        "arb_Latn",
        "wuu_Hans",
        "bos_Latn",
        "fao_Latn",
        "ory_Orya",
    ]
    assert not {langid._code(f"__label__{label}") for label in relatives} & LABELS.keys()
    assert identifier().languages >= LABELS.keys()

"""A corpus of any piles of text: register, topic, bias, programming languages, in one language or
across many."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from steerlab.core.corpus import Corpus, need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import AT, concept_of, label, need_concept
from steerlab.core.languages import language as lookup


def contrast(
    piles: Any,
    *,
    aligned: bool | None = None,
    text: str = "text",
    concept: str = "label",
    language: str = "language",
    name: str = "contrast",
) -> Corpus:
    """A corpus whose labels are concepts, in languages or without: `informal@de`, or `python`.

    What reads a corpus of languages reads it too: `collect`, every estimator, `sweep`, figures.
    Texts keep their inner line breaks; they are stripped and in the composed Unicode form (NFC).

    Raises `SteerlabError` for fewer than two labels, a label without texts, an empty text, a
    language that is none, and a concept whose name is a language's code.

    Args:
        piles: `{"informal": {"de": [...], "fr": [...]}, "formal": {...}}`, or without languages
            `{"python": [...], "rust": [...]}`; or a table with a row for each text: a pandas
            DataFrame, a `datasets` Dataset, or a list of dicts or of (text, concept) or
            (text, concept, language).
        aligned: whether the i-th texts of all labels are versions of one another, which splits,
            sweeps and paired estimators take them to be; by default where there are equally many
            under each label. Two piles that merely have one size: give False.
        text: the column of the text, in a table.
        concept: the column of the concept.
        language: the column of the language; without one, labels are concepts alone.
        name: what the corpus is called in results.
    """
    columns = (text, concept, language)
    lines: dict[str, list[str]] = {}
    pairs = _of_mapping(piles) if isinstance(piles, Mapping) else _of_rows(piles, columns)
    for key, texts in pairs:
        lines.setdefault(key, []).extend(texts)
    if len(lines) < 2:
        raise SteerlabError(
            f"a contrast needs two labels or more, and was given {', '.join(lines) or 'none'}; "
            "give another pile to set it against"
        )
    cleaned = {key: _cleaned(key, texts) for key, texts in lines.items()}
    sizes = {key: len(texts) for key, texts in cleaned.items()}
    equal = len(set(sizes.values())) == 1
    if aligned and not equal:
        listed = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise SteerlabError(
            f"aligned texts are equally many under each label, and these differ in number: "
            f"{listed}; mend them, or leave aligned out"
        )
    whole = equal if aligned is None else aligned
    numbers = tuple(range(next(iter(sizes.values())))) if whole else ()
    return Corpus(name, cleaned, numbers, aligned=whole)


def _of_mapping(piles: Mapping[Any, Any]) -> Iterator[tuple[str, list[str]]]:
    """(label, texts) of a dict of concepts, or of concepts and languages."""
    for key, value in piles.items():
        if not isinstance(value, Mapping):
            yield _plain(key), need_texts(value, f"the pile {key!r}")
            continue
        need_concept(key)
        if not value:
            raise SteerlabError(f"the concept {key!r} has no language; give {{'de': [...]}}")
        for lang, texts in value.items():
            yield _crossed(key, lang), need_texts(texts, f"the pile {key!r} in {lang!r}")


def _plain(key: Any) -> str:
    """The label of a pile that has no language beside it."""
    if isinstance(key, str) and AT in key:
        return label(key)
    known = label(need_concept(key))  # raises for what looks like a mistyped code
    if concept_of(known) is None:
        raise SteerlabError(
            f"the concept {key!r} is also the code of {lookup(known).name}; call it otherwise, such"
            f" as '{key} text', or give corpora of languages to corpus or texts"
        )
    return known


def _crossed(concept: Any, lang: Any) -> str:
    if not isinstance(lang, str):
        raise SteerlabError(f"{lang!r} is no language's code; give one such as 'de'")
    return f"{need_concept(concept)}{AT}{lookup(lang).iso}"


def _of_rows(table: Any, columns: tuple[str, str, str]) -> Iterator[tuple[str, list[str]]]:
    """(label, [text]) of each row of a table."""
    for number, (words, concept, lang) in enumerate(_rows(table, columns)):
        if not isinstance(words, str):
            raise SteerlabError(
                f"the text of row {number} is {words!r:.40}, not a string; leave the row out"
            )
        yield (_plain(concept) if _missing(lang) else _crossed(concept, lang)), [words]


def _missing(value: Any) -> bool:
    """None, or what a table has for no value."""
    return value is None or value != value


def _rows(table: Any, columns: tuple[str, str, str]) -> Iterable[tuple[Any, Any, Any]]:
    """(text, concept, language or None) of each row."""
    if hasattr(table, "to_pandas"):  # a Dataset of the package datasets
        table = table.to_pandas()
    names = getattr(table, "columns", None)
    if names is not None:
        text, concept, lang = columns
        for needed in (text, concept):
            if needed not in names:
                raise SteerlabError(
                    f"the table has no column {needed!r}; it has {', '.join(map(str, names))}: "
                    "give text= and concept= by their names there"
                )
        langs = table[lang] if lang in names else [None] * len(table)
        return zip(table[text], table[concept], langs, strict=True)
    if not isinstance(table, Iterable) or isinstance(table, (str, bytes)):
        raise SteerlabError(
            f"a contrast is made of piles, not of a {type(table).__name__}; give a dict of lists, a"
            " table, or a list of (text, concept) or (text, concept, language)"
        )
    return [_row(row, number, columns) for number, row in enumerate(table)]


def _row(row: Any, number: int, columns: tuple[str, str, str]) -> tuple[Any, Any, Any]:
    text, concept, lang = columns
    if isinstance(row, Mapping) and text in row and concept in row:
        return row[text], row[concept], row.get(lang)
    if isinstance(row, (tuple, list)) and len(row) in (2, 3):
        return row[0], row[1], row[2] if len(row) == 3 else None
    raise SteerlabError(
        f"row {number} is {repr(row)[:60]}; give (text, concept), (text, concept, language), or a "
        f"dict with {text!r} and {concept!r}"
    )


def _cleaned(key: str, texts: list[str]) -> tuple[str, ...]:
    """The texts of a label, none empty."""
    if not texts:
        raise SteerlabError(f"the label {key!r} has no text; give some, or leave it out")
    cleaned = tuple(unicodedata.normalize("NFC", each).strip() for each in texts)
    for number, each in enumerate(cleaned):
        if not each:
            raise SteerlabError(f"text {number} of {key!r} is empty; leave it out")
    return cleaned

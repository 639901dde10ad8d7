"""Write docs/identifiers.md, how right language identifiers are and whether their probabilities say
so, by language and length: `python experiments/identifiers.py`.

The texts are the packaged sentences (all three splits), whole and cut to their first words, so that
the language of each is known. `--limit` reads fewer of them and writes nothing unless `--out` says
where.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import steerlab as sl
from steerlab.analysis.intervals import by_sentence, statistic_by_sentence
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.corpus import Corpus
from steerlab.core.languages import language
from steerlab.scores.langid import Identifier

PAGE = Path(__file__).parents[1] / "docs" / "identifiers.md"
WORDS = (1, 2, 4, 8, 16, None)  # of a prefix; None for the whole line
UNSPACED = {"ja": 2}  # characters that stand for a word where words have no spaces between them
BINS = 10  # of probabilities, of equal width
RESAMPLES = 500
HEAD = """# Language identifiers

<!-- experiments/identifiers.py writes this page -->

How often an identifier names the language of a text that is in it, and how that compares with the probability that it
gives its own answer. The texts are the {lines} packaged sentences in {langs} languages: whole lines, and their first 1 to
16 words (for Japanese {characters} characters stand for a word). Every cell of a table by language has n = {lines} texts,
a row of all languages n = {rows:,}; brackets are 95 % intervals over sentences.

- **fastText** is {first}, the identifier of every run, which chooses among its own 176 languages.
- **lingua** chooses among the {langs} languages, as the second identifier of a run does: it cannot err towards others.
- **lingua, all** chooses among its own 75 languages.

Outputs are judged by their first line, 32 tokens at most: read the rows of 8 and 16 words for them. A model that is
steered writes worse than these sentences do, so that this is the best case.

## By length

*Calibration error* is the expected one (Naeini, Cooper and Hauskrecht 2015): answers are put into {bins} bins of equal
width by their probability, and the distance of the mean probability from the share that is right is averaged over bins,
weighted by their texts. With bins of few texts it cannot be 0. *Right at p ≥ .5* is what the column
`in_language_probable` of a run counts: the answer is right and its probability .5 or more; *of these right* is how often
such an answer is right.

"""
WORTH = """

## What a probability is worth

Whole lines and prefixes together: of the answers with a probability in the bin, how many are right.

"""


def prefix(text: str, words: int | None, lang: str) -> str:
    """The first words of a text; all of it for None, or where it has no more."""
    if words is None:
        return text
    if lang in UNSPACED:
        return text[: words * UNSPACED[lang]]
    return " ".join(text.split()[:words])


def answers(identifier: Identifier, texts: Corpus, langs: Sequence[str]) -> pd.DataFrame:
    """A row for each prefix of each line: lang, sentence, words, named, p, right."""
    tables = []
    for lang in langs:
        for words in WORDS:
            lines = [prefix(line, words, lang) for line in texts[lang]]
            named, p = identifier.weigh(lines)
            table = pd.DataFrame({"named": named, "p": p, "sentence": list(texts.numbers)})
            tables.append(table.assign(lang=lang, words=spoken(words)))
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(right=rows["named"] == rows["lang"])


def spoken(words: int | None) -> str:
    """A length as the tables have it."""
    return "whole line" if words is None else f"{words}"


def calibration_error(p: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The expected calibration error of answers with probabilities `p [text]`: Σ n_b / n
    |mean p - share right| over bins b of equal width."""
    index = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(index, p - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(p))


def share(rows: pd.DataFrame, column: str) -> str:
    """A mean with its interval by sentence."""
    if rows.empty:
        return ""
    values, sentences = rows[column].to_numpy(float), rows["sentence"].to_numpy()
    return spelled(by_sentence(values, sentences, share=True))


def by_length(named: dict[str, pd.DataFrame]) -> str:
    """Accuracy, probability and calibration of each identifier by length, over all languages."""
    lines = []
    for name, rows in named.items():
        for words in WORDS:
            part = rows[rows["words"] == spoken(words)]
            columns = [part["p"].to_numpy(float), part["right"].to_numpy(float)]
            error = statistic_by_sentence(
                calibration_error, columns, part["sentence"].to_numpy(), resamples=RESAMPLES
            )
            likely = part[part["p"] >= 0.5]
            lines.append(
                {
                    "identifier": name,
                    "words": spoken(words),
                    "right": share(part, "right"),
                    "mean probability": share(part, "p"),
                    "calibration error": spelled(error),
                    "right at p ≥ .5": share(
                        part.assign(both=part["right"] & (part["p"] >= 0.5)), "both"
                    ),
                    "of these right": share(likely, "right"),
                }
            )
    return markdown(pd.DataFrame(lines))


def worst(named: dict[str, pd.DataFrame], words: int = 8) -> str:
    """The languages that are named right least often, at one length."""
    lines = []
    for name, rows in named.items():
        part = rows[rows["words"] == spoken(words)]
        means = part.groupby("lang")["right"].mean().sort_values(kind="stable").head(3)
        least = ", ".join(f"{language(str(lang)).name} {mean:.2f}" for lang, mean in means.items())
        lines.append(f"{name}: {least}")
    return f"\n\nOf {words} words least often right: {'; '.join(lines)}.\n"


def by_language(rows: pd.DataFrame, column: str) -> str:
    """A column by language and length, with intervals."""
    lines = []
    for lang in dict.fromkeys(rows["lang"]):
        line = {"language": language(lang).name}
        for words in WORDS:
            part = rows[(rows["lang"] == lang) & (rows["words"] == spoken(words))]
            line[spoken(words)] = share(part, column)
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def by_probability(named: dict[str, pd.DataFrame]) -> str:
    """The share that is right in each bin of probability, with the number of texts."""
    lines = []
    for index in range(BINS):
        low, high = index / BINS, (index + 1) / BINS
        line = {"probability": f"{low:.1f} to {high:.1f}"}
        for name, rows in named.items():
            inside = np.minimum((rows["p"] * BINS).astype(int), BINS - 1) == index
            line[name] = f"{share(rows[inside], 'right')} n = {int(inside.sum()):,}".strip()
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def page(limit: int | None = None) -> str:
    """The whole page."""
    texts = sl.corpus().take(limit)
    langs = texts.langs
    first = sl.scores.identifier()
    judges = {
        "fastText": first,
        "lingua": sl.scores.lingua(langs),
        "lingua, all": sl.scores.lingua(),
    }
    named = {name: answers(judge, texts, langs) for name, judge in judges.items()}
    head = HEAD.format(
        lines=len(texts),
        langs=len(langs),
        rows=len(texts) * len(langs),
        characters=UNSPACED["ja"],
        first=first.name.partition("@")[0],
        bins=BINS,
    )
    parts = [head, by_length(named), worst(named), WORTH, by_probability(named)]
    for name in ("fastText", "lingua"):
        rows = named[name]
        parts += [f"\n\n## {name}: share that is right\n\n", by_language(rows, "right")]
        parts += [f"\n\n## {name}: mean probability of its answer\n\n", by_language(rows, "p")]
    return "".join([*parts, "\n"])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="sentences to read; by default all")
    parser.add_argument("--out", type=Path, help="where to; by default docs/identifiers.md")
    options = parser.parse_args()
    text = page(options.limit)
    path = options.out or (None if options.limit else PAGE)
    if path is None:
        print(text)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

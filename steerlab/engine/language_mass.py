"""Language mass: how much of the next token's probability lies on a language's own tokens, and what
it costs to move it.

After Neural FOXP2 (arXiv 2602.00945), whose released sets of tokens are empty or wrong for
byte-level tokenizers, because they were tested on raw token strings. Here the sets come from text:
a language's own tokens are those that its text has more often than that of all others.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.analysis.intervals import by_sentence, named
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, stack
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

__all__ = ["Lexicon", "gold_masses", "language_masses", "lexicon", "mass_shift", "mass_summary"]

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

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many tokens each language has."""
        return dict(zip(self.langs, (self.weights > 0).sum(1).tolist(), strict=True))


@dataclass(frozen=True)
class Masses:
    """Language masses of each text, with and without each edit, averaged over positions.

    Args:
        langs: the codes of the languages.
        mass: under each edit, `[edit text lang]`.
        unsteered: without an edit, `[text lang]`.
        kl: KL(steered ‖ unsteered) of the next-token distributions in nats, averaged over the same
            positions, `[edit text]`.
    """

    langs: tuple[str, ...]
    mass: Float[Tensor, "edit text lang"]
    unsteered: Float[Tensor, "text lang"]
    kl: Float[Tensor, "edit text"]

    @property
    def gain(self) -> Float[Tensor, "edit text lang"]:
        """ΔM: the mass under each edit less the unsteered one."""
        return self.mass - self.unsteered


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
    return Lexicon(corpus.langs, weight[:, column_of].float(), pieces)


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


@torch.inference_mode()
def language_masses(
    model: Any,
    texts: Sequence[str],
    edits: Sequence[Edit],
    words: Lexicon,
    *,
    positions: str = "last",
    batch: int | None = None,
) -> Masses:
    """Each language's share of the next token's probability, under each edit and without one.

    The share is Σ_u w(u) p(u) over the tokens u, with the weights w of `lexicon`. A text runs once
    below the edits, and each edit's row joins it at the depth at which the edit first acts. Raises
    `SteerlabError` for a lexicon of another vocabulary and while another edit is on the model.

    Args:
        model: what `load` takes.
        texts: the texts to read.
        edits: the edits, each of which is on for all texts.
        words: which tokens are each language's own.
        positions: `last`: after the last token of each text, which then is a prompt (FOXP2's first
            step); `all`: the mean over all of its tokens but BOS.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    if positions not in ("last", "all"):
        raise SteerlabError(f"masses are read at positions 'last' or 'all', not at {positions!r}")
    if words.weights.shape[1] != model.vocabulary:
        raise SteerlabError(
            f"the lexicon has {words.weights.shape[1]} tokens and {model.name} {model.vocabulary}: "
            "make its own with lexicon(model, corpus)"
        )
    ids = encode(model.tokenizer, texts)
    steered = [Edit(()), *edits]  # edit 0 of each text is none: what the others are compared with
    tokens = [row for row in ids for _ in steered]  # row = text · number of edits + edit
    carries = list(range(len(steered))) * len(ids)
    with rows_on(model, tokens, stack(steered), carries=carries, unsteered=True) as rows:
        reading = _Reading(
            rows,
            len(steered),
            words.weights.to(model.device),
            all_positions=positions == "all",
        )
        reading.run(batch)
    mass = rearrange(reading.mass, "(text edit) lang -> edit text lang", edit=len(steered))
    kl = rearrange(reading.kl, "(text edit) -> edit text", edit=len(steered))
    # Contiguous, as the last bits of means over it depend on how it lies in memory.
    mass, kl = mass.contiguous(), kl.contiguous()
    return Masses(words.langs, mass[1:], mass[0], kl[1:])


class _Reading:
    """One run over texts × edits, of which edit 0 is none.

    Row `text · count + edit` is a text under an edit; `mass` [row lang] and `kl` [row] are filled
    batch by batch.
    """

    def __init__(
        self,
        rows: Rows,
        count: int,
        weights: Float[Tensor, "lang vocab"],
        *,
        all_positions: bool,
    ):
        self.rows = rows
        self.count = count  # of edits, the one that is none included
        self.weights = weights
        self.all_positions = all_positions
        self.mass = torch.zeros(len(rows.ids), len(weights))
        self.kl = torch.zeros(len(rows.ids))

    def run(self, batch: int | None) -> None:
        """Read all rows; those without an edit join the batches of their texts."""
        model = self.rows.model
        ids = self.rows.ids
        every = self.all_positions
        if batch is None:
            # Half of what is advised: in each batch, rows without an edit may come to as many more.
            longest = max(map(len, ids), default=0)
            batch = max(1, batches.advise(model, longest, every=every) // 2)
        steered = [row for row in range(len(ids)) if row % self.count]
        only = steered or range(len(ids))  # without edits, the texts themselves
        plan = batches.plan(model, ids, self.rows.depth, only=only, every=every, batch=batch)
        self.rows.run(self.work, plan)

    def work(self, chosen: Sequence[int]) -> None:
        """Read a batch and, beside it, the same texts without an edit.

        Rows without an edit run the shared prompt to its end, so that they cost little.
        """
        ids = self.rows.ids
        texts = dict.fromkeys(row // self.count for row in chosen)
        unedited = [text * self.count for text in texts]
        unedited.sort(key=lambda row: (len(ids[row]), ids[row]))
        steered = [row for row in chosen if row % self.count]
        rows = self.rows.as_they_run([*unedited, *steered])
        index = {row: number for number, row in enumerate(rows)}
        logits, _ = self.rows.forward(rows, keep="all" if self.all_positions else "last")
        begins = max(1, len(self.rows.model.begins["bos"]))  # BOS, or the first token without one
        unsteered = logits[:0, 0]  # replaced by the first row of each text
        # Text by text, and of each text first the row without an edit, which the others are
        # compared with: so the unsteered distributions of one text at a time are in memory.
        for row in sorted(rows):
            read = max(1, len(ids[row]) - begins) if self.all_positions else 1
            log_chances = logits[index[row], -read:].float().log_softmax(-1)
            if not row % self.count:
                unsteered = log_chances
            chances = log_chances.exp()
            self.mass[row] = (chances @ self.weights.T).mean(0).cpu()
            self.kl[row] = (chances * (log_chances - unsteered)).sum(-1).mean().cpu()


def gold_masses(
    model: Any, corpus: Corpus, words: Lexicon, *, batch: int | None = None
) -> Float[Tensor, "spoken lang"]:
    """The mean mass of each language's tokens on each language's own text, without an edit,
    `[spoken lang]`: a check of a lexicon, as the diagonal should be the highest.

    Args:
        model: what `load` takes.
        corpus: text of each language.
        words: which tokens are each language's own.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    means = []
    for lang in corpus.langs:
        masses = language_masses(model, corpus[lang], [], words, positions="all", batch=batch)
        means.append(masses.unsteered.mean(0))
    return torch.stack(means)


def mass_shift(
    model: Any,
    texts: Sequence[str],
    edits: Mapping[str, Edit],
    words: Lexicon,
    *,
    sentences: Sequence[int] | None = None,
    positions: str = "last",
    batch: int | None = None,
) -> pd.DataFrame:
    """`language_masses` as rows: one for each edit, text and language.

    Columns: `edit`, `sentence`, `language`, `mass`, `unsteered`, `gain` (ΔM = mass - unsteered) and
    `kl` in nats.

    Args:
        model: what `load` takes.
        texts: the texts to read.
        edits: the edits by name.
        words: which tokens are each language's own.
        sentences: the number of each text, by which `mass_summary` resamples; by default its index.
        positions: `last` or `all`, as for `language_masses`.
        batch: the most rows that run together; by default as many as memory advises.
    """
    numbers = range(len(texts)) if sentences is None else sentences
    if len(numbers) != len(texts):
        raise SteerlabError(
            f"give one sentence number for each text; {len(numbers)} for {len(texts)} texts"
        )
    masses = language_masses(
        model, texts, list(edits.values()), words, positions=positions, batch=batch
    )
    rows = []
    for edit, name in enumerate(edits):
        for text, number in enumerate(numbers):
            kl = float(masses.kl[edit, text])
            steered = masses.mass[edit, text].tolist()
            unsteered = masses.unsteered[text].tolist()
            for lang, mass, before in zip(words.langs, steered, unsteered, strict=True):
                row = {
                    "edit": name,
                    "sentence": number,
                    "language": lang,
                    "mass": mass,
                    "unsteered": before,
                    "gain": mass - before,
                    "kl": kl,
                }
                rows.append(row)
    return pd.DataFrame(rows)


def mass_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean gain and KL of each edit and language over the rows of `mass_shift`, with 95 %
    intervals by resampling sentences, on `n` texts."""
    table = []
    for (edit, lang), part in rows.groupby(["edit", "language"], sort=False):
        line: dict[str, Any] = {
            "edit": edit,
            "language": lang,
            "unsteered": float(part["unsteered"].mean()),
        }
        for name in ("gain", "kl"):
            interval = by_sentence(
                part[name].to_numpy(float), part["sentence"].to_numpy(), share=False
            )
            line |= named(name, interval)
        table.append(line | {"n": len(part)})
    return pd.DataFrame(table)

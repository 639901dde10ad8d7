"""Language mass: how much of the next token's probability lies on a language's own tokens, and what
moving it costs.

After Neural FOXP2 (arXiv 2602.00945), whose released token sets are empty or wrong for byte-level
tokenizers, because they were tested on raw token strings. Here the sets come from text: what a
language says more often than all others.
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

# a token is a language's own if more than this share of its relative frequencies is that language's
SHARE = 0.5
LEAST = 2  # times that the language's text has it
_SAMPLES = 10
_PARTIAL = "\ufffd"  # what a piece of a character decodes to


@dataclass(frozen=True)
class Lexicon:
    """Which tokens are whose: `weights [lang vocab]` from 0 to 1, at most one language for each
    token.

    `pieces`: what a token id decodes to. A language without tokens, and a token of two languages,
    raise.
    """

    langs: tuple[str, ...]
    weights: Float[Tensor, "lang vocab"]
    pieces: Mapping[int, str]

    def __post_init__(self) -> None:
        sizes = (self.weights > 0).sum(1).tolist()
        if empty := [lang for lang, size in zip(self.langs, sizes, strict=True) if not size]:
            full = {lang: self.sample(lang) for lang in self.langs if lang not in empty}
            raise SteerlabError(
                f"no token stands for {' '.join(empty)}, so that no mass could ever be seen; give "
                "more text, a smaller "
                f"share= or least=. Tokens of the others: {full}"
            )
        shared = (self.weights > 0).sum(0) > 1
        if shared.any():
            tokens = shared.nonzero()[:, 0].tolist()
            shown = {self.pieces.get(u, str(u)): self._owners(u) for u in tokens[:_SAMPLES]}
            raise SteerlabError(
                f"{len(tokens)} tokens stand for two languages or more, so that one's mass is also "
                f"the other's: {shown}"
                " and so on; give share= of .5 or more"
            )

    def _owners(self, token: int) -> str:
        return " ".join(
            lang
            for lang, weight in zip(self.langs, self.weights[:, token].tolist(), strict=True)
            if weight
        )

    def sample(self, lang: str, count: int = _SAMPLES) -> list[str]:
        """Some of a language's tokens, decoded, evenly spread over their ids: look at them
        before you trust a mass."""
        tokens = self.weights[self.langs.index(lang)].nonzero()[:, 0].tolist()
        step = max(1, len(tokens) // count)
        return [self.pieces.get(token, str(token)) for token in tokens[::step][:count]]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many tokens each language has."""
        return dict(zip(self.langs, (self.weights > 0).sum(1).tolist(), strict=True))


@dataclass(frozen=True)
class Masses:
    """Mean masses of each text under each edit: `mass [edit text lang]`, `unsteered [text lang]`,
    `kl [edit text]`.

    `kl`: nats, KL(steered ‖ unsteered) of the next-token distributions, averaged over the same
    positions.
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
    """The tokens of each language of a corpus: w(u) = f_l(u) / Σ_k f_k(u), where this is above
    `share`, else 0.

    f_l(u): relative frequency of u among the tokens of l's text that count. They are taken for what
    they decode to, without spaces around, so that a word with a space before it and one without
    count together; those without a letter (digits, punctuation) and special tokens are nobody's. A
    piece of a character, which byte-level tokenizers have, counts as itself. `least`: how often the
    language's text has it, at the least.
    """
    model = load(model)
    if not 0 < share < 1 or least < 1:
        raise SteerlabError(
            f"share lies between 0 and 1 and least is 1 or more; given: {share} and {least}"
        )
    counts = torch.stack([_counts(model, corpus[lang]) for lang in corpus.langs])
    pieces = _pieces(model)
    distinct = list(dict.fromkeys(pieces.values()))
    index = {piece: number for number, piece in enumerate(distinct)}
    # Tokens that decode to the same are one unit; all that are nobody's are the last one.
    units = torch.full((model.vocabulary,), len(distinct))
    units[list(pieces)] = torch.tensor([index[piece] for piece in pieces.values()])
    grouped = torch.zeros(len(counts), len(distinct) + 1, dtype=torch.float64)
    grouped.index_add_(1, units, counts)
    grouped[:, -1] = 0
    frequency = grouped / grouped.sum(1, keepdim=True).clamp(min=1)
    weight = frequency / frequency.sum(0).clamp(min=1e-30)
    weight[(weight <= share) | (grouped < least)] = 0
    return Lexicon(corpus.langs, weight[:, units].float(), pieces)


def _counts(model: Model, texts: Sequence[str]) -> Tensor:
    ids = [token for row in encode(model.tokenizer, texts) for token in row]
    return torch.bincount(torch.tensor(ids), minlength=model.vocabulary).double()


def _pieces(model: Model) -> dict[int, str]:
    """What each token that may be a language's decodes to; a piece of a character keeps its
    number."""
    special = set(model.tokenizer.all_special_ids)
    decoded = model.tokenizer.batch_decode([[token] for token in range(len(model.tokenizer))])
    pieces: dict[int, str] = {}
    for token, piece in enumerate(decoded):
        if token in special or token >= model.vocabulary:
            continue
        if _PARTIAL in piece:
            pieces[token] = f"{piece.strip()}<{token}>"
        elif any(unicodedata.category(letter)[0] in "LM" for letter in piece):
            pieces[token] = piece.strip()
    return pieces


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
    """Each language's share of the next token's probability, Σ_u w(u) p(u), under each edit and
    without one.

    `positions`: after the `last` token of each text, which then is a prompt (FOXP2's first step),
    or the mean over `all` of its tokens but BOS. A text runs once below the edits, and each edit's
    row joins it at its own depth.
    """
    model = load(model)
    if positions not in ("last", "all"):
        raise SteerlabError(f"masses are read at positions 'last' or 'all', not at {positions!r}")
    if words.weights.shape[1] != model.vocabulary:
        raise SteerlabError(
            f"the lexicon has {words.weights.shape[1]} tokens and {model.name} {model.vocabulary}: "
            "make its own"
        )
    ids = encode(model.tokenizer, texts)
    steered = [Edit(()), *edits]  # edit 0 of each text is none
    tokens = [row for row in ids for _ in steered]  # row = text · edits + edit
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
    """One run over texts × edits, of which edit 0 is none: masses [row lang] and divergences [row]
    of each row."""

    def __init__(
        self,
        rows: Rows,
        count: int,
        weights: Float[Tensor, "lang vocab"],
        *,
        all_positions: bool,
    ):
        self.rows, self.count, self.weights = rows, count, weights
        self.all_positions = all_positions
        self.mass = torch.zeros(len(rows.ids), len(weights))
        self.kl = torch.zeros(len(rows.ids))

    def run(self, batch: int | None) -> None:
        """Read all rows; those without an edit join the batches of their texts."""
        model, ids = self.rows.model, self.rows.ids
        every = self.all_positions
        steered = [row for row in range(len(ids)) if row % self.count]
        if batch is None:  # half of what is advised, for the rows without an edit in each batch
            longest = max(map(len, ids), default=0)
            batch = max(1, batches.advise(model, longest, every=every) // 2)
        only = steered or range(len(ids))
        self.rows.run(
            self.work,
            batches.plan(model, ids, self.rows.depth, only=only, every=every, batch=batch),
        )

    def work(self, chosen: Sequence[int]) -> None:
        """A batch, and beside it its texts without an edit, which leave the shared rows after
        the last block."""
        ids = self.rows.ids
        texts = dict.fromkeys(row // self.count for row in chosen)
        plain = sorted(
            (text * self.count for text in texts), key=lambda row: (len(ids[row]), ids[row])
        )
        steered = [row for row in chosen if row % self.count]
        rows = self.rows.as_they_run([*plain, *steered])
        index = {row: number for number, row in enumerate(rows)}
        logits, _ = self.rows.forward(rows, keep="all" if self.all_positions else "last")
        bos = self.rows.model.tokenizer.bos_token_id is not None
        unsteered = logits[:0, 0]
        # Text by text, and of each text first the row without an edit, which the others are
        # compared with: so the unsteered distributions of one text at a time are in memory.
        for row in sorted(rows):
            read = len(ids[row]) - bos if self.all_positions else 1
            log_chances = logits[index[row], -read:].float().log_softmax(-1)
            if not row % self.count:
                unsteered = log_chances
            chances = log_chances.exp()
            self.mass[row] = (chances @ self.weights.T).mean(0).cpu()
            self.kl[row] = (chances * (log_chances - unsteered)).sum(-1).mean().cpu()


def gold_masses(
    model: Any, corpus: Corpus, words: Lexicon, *, batch: int | None = None
) -> Float[Tensor, "spoken lang"]:
    """Mean masses of each language's tokens on each language's own text, unsteered: the diagonal
    should be highest."""
    model = load(model)
    each = [
        language_masses(model, corpus[lang], [], words, positions="all", batch=batch).unsteered
        for lang in corpus.langs
    ]
    return torch.stack([unsteered.mean(0) for unsteered in each])


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
    """Tidy rows of `language_masses`: edit, sentence, language, `mass`, `unsteered`, `gain` (ΔM)
    and `kl` in nats.

    `sentences`: the number of each text, by default its index.
    """
    numbers = range(len(texts)) if sentences is None else sentences
    if len(numbers) != len(texts):
        raise SteerlabError(
            f"give one sentence number for each text; {len(numbers)} for {len(texts)} texts"
        )
    masses = language_masses(
        model, texts, list(edits.values()), words, positions=positions, batch=batch
    )
    lines: list[dict[str, Any]] = []
    for edit, name in enumerate(edits):
        for text, number in enumerate(numbers):
            each = zip(
                words.langs,
                masses.mass[edit, text].tolist(),
                masses.unsteered[text].tolist(),
                strict=True,
            )
            kl = float(masses.kl[edit, text])
            lines += [
                {
                    "edit": name,
                    "sentence": number,
                    "language": lang,
                    "mass": mass,
                    "unsteered": unsteered,
                    "gain": mass - unsteered,
                    "kl": kl,
                }
                for lang, mass, unsteered in each
            ]
    return pd.DataFrame(lines)


def mass_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """`mass_shift`'s rows, a line for each edit and language: `gain` and `kl` with 95 %
    intervals, on `n` texts."""
    table = []
    for (edit, lang), part in rows.groupby(["edit", "language"], sort=False):
        line: dict[str, Any] = {
            "edit": edit,
            "language": lang,
            "unsteered": float(part["unsteered"].mean()),
        }
        for name in ("gain", "kl"):
            interval = by_sentence(part[name].to_numpy(float), part["sentence"].to_numpy())
            line |= named(name, interval)
        table.append(line | {"n": len(part)})
    return pd.DataFrame(table)

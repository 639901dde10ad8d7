"""Language mass: how much of the next token's probability lies on a language's own tokens, and what
it costs to move it.

After Neural FOXP2 (arXiv 2602.00945), with the sets of tokens of `engine.token_lexicon`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.analysis.intervals import by_sentence, named
from steerlab.core.corpus import Corpus, as_texts
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, stack
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.prompts import encode
from steerlab.engine.token_lexicon import Lexicon, lexicon
from steerlab.models.loading import load

__all__ = ["Lexicon", "gold_masses", "language_masses", "lexicon", "mass_shift", "mass_summary"]


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


@torch.inference_mode()
def language_masses(
    model: Any,
    texts: str | Sequence[str],
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
        texts: the texts to read, or one text.
        edits: the edits, each of which is on for all texts.
        words: which tokens are each language's own.
        positions: `last`: after the last token of each text, which then is a prompt (FOXP2's first
            step); `all`: the mean over all of its tokens but BOS.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    if positions not in ("last", "all"):
        raise SteerlabError(f"masses are read at positions 'last' or 'all', not at {positions!r}")
    words.need_fits(model)
    ids = encode(model.tokenizer, as_texts(texts, "language_masses"))
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
    texts: str | Sequence[str],
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
        texts: the texts to read, or one text.
        edits: the edits by name.
        words: which tokens are each language's own.
        sentences: the number of each text, by which `mass_summary` resamples; by default its index.
        positions: `last` or `all`, as for `language_masses`.
        batch: the most rows that run together; by default as many as memory advises.
    """
    texts = as_texts(texts, "mass_shift")
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

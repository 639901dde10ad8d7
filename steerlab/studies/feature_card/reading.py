"""What a few features do on a corpus: how often they fire in each language, and the texts on
which they fire most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex  # type: ignore[import-untyped]
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine import forward
from steerlab.engine.batching import InOrder
from steerlab.engine.inputs import need_room, tokens_of
from steerlab.engine.prompts import prompt
from steerlab.models.model import Model
from steerlab.models.positions import Positions
from steerlab.sae import SAE


@dataclass(frozen=True)
class Example:
    """A text on which a feature fires: pieces of it that read by themselves, with the feature's
    largest value in each.

    A piece is a token, or the tokens that together make a character and the marks on it.
    """

    language: str
    pieces: tuple[tuple[str, float], ...]
    top: float


@dataclass(frozen=True)
class Reading:
    """One feature on a corpus: by language the share of tokens at which it is on (`rate`), its mean
    over all tokens (`level`), and the number of `tokens`; `top`, its largest value; `examples`, the
    highest first.

    BOS and padding do not count.
    """

    rate: dict[str, float]
    level: dict[str, float]
    tokens: dict[str, int]
    top: float
    examples: tuple[Example, ...]

    @property
    def overall(self) -> float:
        """The share of all tokens at which the feature is on."""
        total = sum(self.tokens.values())
        return sum(self.rate[lang] * count for lang, count in self.tokens.items()) / total


@torch.inference_mode()
def read(
    model: Model, corpus: Corpus, sae: SAE, units: Sequence[int], *, texts: int, batch: int
) -> list[Reading]:
    """A reading of each feature, in one pass over every line of the corpus in the form "line"."""
    sae = sae.to(model.device)
    sums = torch.zeros(len(corpus.langs), 2, len(units), dtype=torch.float64)
    counts = dict.fromkeys(corpus.langs, 0)
    best = [_Best(texts) for _ in units]
    inputs = InOrder(model)
    for index, lang in enumerate(corpus.langs):
        lines = corpus[lang]
        for start in range(0, len(lines), batch):
            some = lines[start : start + batch]
            batch_values = _values(inputs, sae, units, tokens_of(model, lang, some, "line"))
            for line, values in zip(some, batch_values, strict=True):
                counts[lang] += len(values)
                sums[index] += torch.stack([(values > 0).double().sum(0), values.double().sum(0)])
                for kept, own in zip(best, values.T, strict=True):
                    kept.offer(lang, line, own)
    sizes = torch.tensor(list(counts.values()), dtype=torch.float64)[:, None, None].clamp(min=1)
    means = (sums / sizes).tolist()
    return [
        Reading(
            rate={lang: means[index][0][number] for index, lang in enumerate(corpus.langs)},
            level={lang: means[index][1][number] for index, lang in enumerate(corpus.langs)},
            tokens=counts,
            top=kept.top,
            examples=tuple(
                Example(lang, pieces_of(model.tokenizer, line, values), max(values))
                for lang, line, values in kept.texts
            ),
        )
        for number, kept in enumerate(best)
    ]


class _Best:
    """The texts with the largest values of one feature, each text once."""

    def __init__(self, count: int):
        self.count = count
        # (language, line, the feature's value at each token), the highest value first.
        self.texts: list[tuple[str, str, list[float]]] = []
        # What a text has to exceed to be kept; 0 while there is room.
        self._least = 0.0

    def offer(self, lang: str, line: str, values: Tensor) -> None:
        """Keep a text if it is one of those with the largest values so far."""
        top = float(values.max())
        if top <= self._least or any(line == kept for _, kept, _ in self.texts):
            return
        self.texts.append((lang, line, values.tolist()))
        self.texts = sorted(self.texts, key=lambda text: -max(text[2]))[: self.count]
        self._least = max(self.texts[-1][2]) if len(self.texts) == self.count else 0.0

    @property
    def top(self) -> float:
        return max((max(values) for _, _, values in self.texts), default=0.0)


def _values(
    inputs: InOrder, sae: SAE, units: Sequence[int], ids: list[list[int]]
) -> list[Float[Tensor, "pos unit"]]:
    """The features of each text, at those of its tokens that count (no BOS, no padding)."""
    model = inputs.model
    need_room(model, ids)

    def work(rows: Sequence[int]) -> list[Tensor]:
        seen: list[Tensor] = []

        def look(h: Tensor, _: Positions) -> None:
            seen.append(latents(sae, units, h).cpu())

        text = forward.read(model, [ids[row] for row in rows], [(sae.site, sae.layer, look)])
        return [own[counted] for own, counted in zip(seen[0], text.cpu(), strict=True)]

    by_text: list[Tensor] = []
    for of_batch in inputs.run(ids, work):
        by_text += of_batch
    return by_text


def latents(
    sae: SAE, units: Sequence[int], h: Float[Tensor, "*any width"]
) -> Float[Tensor, "*any unit"]:
    """The values of some latents."""
    if sae.kind == "topk":
        # Which are on depends on all of them.
        return sae.encode(h)[..., list(units)]
    encoder, bias, threshold = sae.readers(units)
    pre = h.float() @ encoder.mT + bias
    return pre.relu() * (pre > threshold)


def pieces_of(tokenizer: Any, line: str, values: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """A line cut where its tokens meet, unless that is inside a character: byte-level tokens may be
    parts of one.

    `values`: of the tokens of the prompt, which is the line and a line break. Spaces go with the
    token after them.
    """
    text = prompt(tokenizer, "line", line)
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    if len(spans) != len(values):
        raise SteerlabError(
            f"the text {line[:40]!r} has {len(spans)} tokens and {len(values)} values; read it "
            "again"
        )
    # A piece may end only where a character, as a reader sees it, ends.
    borders = {0}
    for cluster in regex.findall(r"\X", text):
        borders.add(max(borders) + len(cluster))
    pieces: list[tuple[int, float]] = []  # each one's end, and value
    for (_, end), value in zip(spans, values, strict=True):
        last = pieces[-1][0] if pieces else 0
        # The piece before ended inside a character: this token goes with it.
        if pieces and (end <= last or last not in borders):
            pieces[-1] = max(end, last), max(value, pieces[-1][1])
        else:
            pieces.append((end, value))
    starts = [0, *(end for end, _ in pieces)]
    return tuple(
        (text[start:end], value) for start, (end, value) in zip(starts, pieces, strict=False)
    )

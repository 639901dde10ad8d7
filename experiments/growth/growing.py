"""Training of one small model, on a GPU or on a CPU: a Llama of some width that reads sixteen
languages and translations between English and some of them."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from text import LANGS, Text
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).resolve().parents[1] / "polyglot"))
from data import VOCABULARY
from train import ADAM_RATE, MOMENTUM, MUON_RATE, WARM_UP_STEPS, orthogonal

LAYERS, HEAD, HIDDEN_SHARE = 8, 32, 2.75
LENGTH, ROWS = 128, 64  # tokens of a row, rows of a step
ALONE = 0.4  # the share of documents in one language; the rest are translations
GIVEN = 0.3  # of the loss, on the line that a translation is made from
MOST = 8  # lines of a document
POOL = 8192  # documents that are drawn at once


@dataclass(frozen=True)
class Recipe:
    """What decides a trained model.

    Args:
        width: of the residual stream; heads of 32, 8 layers.
        parallel: languages, beside English, that translations are read in; the others are read
            alone. They are the first of an order that the seed draws.
        seed: of weights, order and what is read.
        points: tokens seen at which the model is measured; training ends at the last.
    """

    width: int
    parallel: int
    seed: int
    points: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"width{self.width}-parallel{self.parallel}-seed{self.seed}"

    @property
    def taught(self) -> list[str]:
        """The languages that translations are read in."""
        order = np.random.default_rng(self.seed).permutation(len(LANGS) - 1) + 1
        return [LANGS[place] for place in order[: self.parallel]]


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=recipe.width,
            intermediate_size=int(HIDDEN_SHARE * recipe.width),
            num_hidden_layers=LAYERS,
            num_attention_heads=recipe.width // HEAD,
            num_key_value_heads=recipe.width // HEAD,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


class Reader:
    """An endless, seeded stream of rows of packed documents, drawn on the device that trains.

    A document is BOS and three to eight lines of one language, or lines that say the same in two
    to four. Languages are drawn by their lines to the power 1/2, English half as often again.
    """

    def __init__(self, text: Text, recipe: Recipe, device: str):
        self.device = device
        self.random = torch.Generator(device).manual_seed(recipe.seed)
        put = lambda array, kind=torch.long: torch.as_tensor(  # noqa: E731
            array.astype(np.int64), dtype=kind, device=device
        )
        self.tokens, self.ends = put(text.tokens), put(text.ends)
        self.lengths = torch.diff(self.ends, prepend=self.ends.new_zeros(1))
        self.first = put(text.first)
        size = torch.diff(self.first).double().sqrt()
        size[0] *= 1.5
        self.alone = size / size.sum()
        # Only English and the languages that are taught are read as translations.
        taught = [LANGS.index(lang) for lang in recipe.taught]
        self.groups = put(text.groups)
        closed = torch.ones(len(LANGS), dtype=torch.bool, device=device)
        closed[[0, *taught]] = False
        self.groups[:, closed] = -1
        self.having = [torch.nonzero(self.groups[:, place] >= 0)[:, 0] for place in taught]
        counts = torch.tensor([len(each) for each in self.having], dtype=torch.float64)
        self.paired = (counts.sqrt() / counts.sqrt().sum()).to(device)
        self.taught = torch.tensor(taught, device=device)

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.random, device=self.device)

    def _drawn(self, shares: torch.Tensor, count: int) -> torch.Tensor:
        return torch.multinomial(shares, count, replacement=True, generator=self.random)

    def alone_lines(self, count: int) -> torch.Tensor:
        """Lines of documents in one language, -1 where there is none, [doc MOST]."""
        lang = self._drawn(self.alone, count)
        low, high = self.first[lang], self.first[lang + 1]
        lines = low[:, None] + (self._uniform(count, MOST) * (high - low)[:, None]).long()
        many = 3 + (self._uniform(count, 1) * 6).long()
        return lines.masked_fill(torch.arange(MOST, device=self.device) >= many, -1)

    def translated_lines(self, count: int) -> torch.Tensor:
        """Lines of documents that say the same in several languages, [doc MOST]."""
        which = self._drawn(self.paired, count)
        group = torch.empty(count, dtype=torch.long, device=self.device)
        for place, having in enumerate(self.having):
            here = torch.nonzero(which == place)[:, 0]
            group[here] = having[(self._uniform(len(here)) * len(having)).long()]
        lang = self.taught[which]
        english = self.groups[group, 0]
        other = self.groups[group, lang]
        turned = self._uniform(count) < 0.25
        lines = torch.full((count, MOST), -1, dtype=torch.long, device=self.device)
        lines[:, 0] = torch.where(turned, other, english)
        lines[:, 1] = torch.where(turned, english, other)
        # In four of ten, up to two more languages that the group has.
        score = self._uniform(count, len(LANGS)).masked_fill(self.groups[group] < 0, -1)
        score[:, 0] = -1
        score[torch.arange(count, device=self.device), lang] = -1
        best, more = score.topk(2, dim=1)
        wanted = self._uniform(count, 1) < torch.tensor([0.4, 0.2], device=self.device)
        extra = self.groups[group].gather(1, more)
        lines[:, 2:4] = extra.masked_fill((best < 0) | ~wanted, -1)
        return lines

    def pool(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, the weights of their loss and the numbers of their documents, each [token]."""
        alone = POOL if not len(self.taught) else int(POOL * ALONE)
        parts, given = [self.alone_lines(alone)], [torch.zeros(alone, device=self.device)]
        if alone < POOL:
            parts.append(self.translated_lines(POOL - alone))
            given.append(torch.ones(POOL - alone, device=self.device))
        order = torch.randperm(POOL, generator=self.random, device=self.device)
        lines, translated = torch.cat(parts)[order], torch.cat(given)[order].bool()
        there = lines >= 0
        sizes = torch.where(there, self.lengths[lines.clamp(min=0)], 0)
        sizes = torch.cat([torch.ones_like(sizes[:, :1]), sizes], 1)  # BOS
        begins = torch.where(there, self.ends[lines.clamp(min=0)], 0) - sizes[:, 1:]
        begins = torch.cat([torch.full_like(begins[:, :1], -1), begins], 1).reshape(-1)
        flat = sizes.reshape(-1)
        part = torch.repeat_interleave(torch.arange(len(flat), device=self.device), flat)
        offset = torch.arange(len(part), device=self.device) - (flat.cumsum(0) - flat)[part]
        begin = begins[part]
        tokens = torch.where(begin < 0, 1, self.tokens[(begin + offset).clamp(min=0)])
        document, place = part // (MOST + 1), part % (MOST + 1)
        weight = torch.where(translated[document] & (place == 1), GIVEN, 1.0)
        return tokens, weight, document

    def rows(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """(tokens, weights, document numbers), each [ROWS LENGTH], without an end."""
        while True:
            made = self.pool()
            count = len(made[0]) // (ROWS * LENGTH)
            cut = [each[: count * ROWS * LENGTH].view(count, ROWS, LENGTH) for each in made]
            for tokens, weight, document in zip(*cut, strict=True):
                # Each row begins as a prompt does, in the middle of a document too.
                yield tokens.index_fill(1, tokens.new_zeros(1), 1), weight, document


class Muon:
    """Muon for the matrices of the blocks, those of one shape together."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]):
        self.shapes: dict[Any, list[torch.nn.Parameter]] = {}
        for each in parameters:
            self.shapes.setdefault(each.shape, []).append(each)
        self.momentum = {
            shape: torch.zeros(len(same), *shape, device=same[0].device)
            for shape, same in self.shapes.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, same in self.shapes.items():
            gradient = torch.stack([each.grad for each in same if each.grad is not None])
            buffer = self.momentum[shape].mul_(MOMENTUM).add_(gradient)
            turn = orthogonal((gradient + MOMENTUM * buffer).bfloat16()).float()
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(list(same), 1 - 0.01 * rate)
            torch._foreach_add_(list(same), list(turn.unbind()), alpha=-rate * scale)


def loss_of(
    hf: LlamaForCausalLM, tokens: torch.Tensor, weight: torch.Tensor, document: torch.Tensor
) -> torch.Tensor:
    """Nats a token, each document seeing itself alone; the first token of a document is given."""
    length = tokens.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    sees = (document[:, :, None] == document[:, None, :]) & causal
    position = sees.sum(-1) - 1
    half = torch.bfloat16 if tokens.is_cuda else torch.float32
    bias = torch.zeros(sees.shape, dtype=half, device=tokens.device)
    bias = bias.masked_fill(~sees, torch.finfo(half).min)[:, None]
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
        out = hf.model(
            input_ids=tokens, attention_mask=bias, position_ids=position, use_cache=False
        ).last_hidden_state
        logits = functional.linear(out[:, :-1], hf.lm_head.weight)
    keep = (document[:, 1:] == document[:, :-1]) * weight[:, 1:]
    nats = functional.cross_entropy(
        logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    return (nats * keep.flatten()).sum() / keep.sum()


def grown(text: Text, recipe: Recipe, device: str) -> Iterator[tuple[int, float, LlamaForCausalLM]]:
    """(tokens seen, mean loss since the last point, the model) at each point of the recipe.

    The rate is constant after its warm-up, so that the points of one run are comparable.
    """
    hf: Any = new_model(recipe)
    hf = hf.to(device)
    blocks = [each for each in hf.model.layers.parameters() if each.ndim == 2]
    rest = [each for each in hf.parameters() if not any(each is one for one in blocks)]
    muon = Muon(blocks)
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    points, seen = list(recipe.points), 0
    losses: list[torch.Tensor] = []
    for step, row in enumerate(Reader(text, recipe, device).rows()):
        loss = loss_of(hf, *row)
        loss.backward()
        scale = min(1.0, (step + 1) / WARM_UP_STEPS)
        muon.step(MUON_RATE * scale)
        adam.param_groups[0]["lr"] = ADAM_RATE * scale
        adam.step()
        hf.zero_grad(set_to_none=True)
        seen += row[0].numel()
        losses.append(loss.detach())
        if seen >= points[0]:
            yield points.pop(0), float(torch.stack(losses).mean()), hf.eval()
            hf.train()
            losses = []
            if not points:
                return

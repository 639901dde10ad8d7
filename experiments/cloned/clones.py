"""A language and its clone: the same text in letters of its own, so that the right effect of
steering is known exactly.

Every token of the second language is one of the first, moved by the size of the vocabulary
(Schäfer et al. 2024, arXiv 2404.07982). What a model that was steered from the first to the second
should say next is therefore what it would have said, each token moved: there is nothing to judge.
"""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 512  # tokens of a language
LENGTH = 64  # tokens of a sequence
SHAPE: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
_KEPT = re.compile(r"[^a-z0-9 .,'?!-]")
_SHIFT = 0xE000  # a block of letters that no text has


def plain(line: str) -> str:
    """A line in the letters of the first language."""
    return " ".join(_KEPT.sub("", line.lower()).split())


def cloned(text: str) -> str:
    """The same in the letters of the second."""
    return "".join(chr(ord(letter) + _SHIFT) for letter in text)


def tokenizer(lines: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of both languages: token i + WORDS is the clone of token i; BOS is the
    last."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = _words()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=[], show_progress=False)
    base.train_from_iterator(lines, trainer)
    bpe = json.loads(base.to_str())["model"]
    order = sorted(bpe["vocab"], key=bpe["vocab"].get)
    vocab = {token: index for index, token in enumerate(order)}
    vocab |= {cloned(token): index + len(order) for index, token in enumerate(order)}
    vocab["<bos>"] = 2 * len(order)
    merges = [tuple(pair) for pair in bpe["merges"]]
    merges += [(cloned(a), cloned(b)) for a, b in merges]
    both = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    both.pre_tokenizer = _words()
    both.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=both, bos_token="<bos>", pad_token="<bos>")


def _words() -> Any:
    space = f" {chr(ord(' ') + _SHIFT)}"
    return pre_tokenizers.Split(Regex(f"[{space}]?[^{space}]+"), "isolated")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Args:
        tokens: how many it sees.
        share: of the sequences, those in the clone.
        seed: decides weights, order and which sequences are cloned.
        rows: the sequences of a step.
        rate: the largest learning rate; it warms up over 50 steps and falls to a tenth as a cosine.
    """

    tokens: int
    share: float = 0.5
    seed: int = 0
    rows: int = 32
    rate: float = 2e-3


def train(stream: Sequence[int], words: int, recipe: Recipe) -> LlamaForCausalLM:
    """A model trained on a stream of tokens of the first language.

    Args:
        stream: the tokens, which are cut into sequences.
        words: how many tokens the language has.
        recipe: how it is trained.
    """
    torch.manual_seed(recipe.seed)
    drawn = np.random.default_rng(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=2 * words + 1, bos_token_id=2 * words, eos_token_id=None, **SHAPE)
    )
    count = (len(stream) - 1) // LENGTH
    data = torch.tensor(stream[: count * LENGTH]).view(count, LENGTH)
    steps = recipe.tokens // (recipe.rows * LENGTH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            min(1.0, (step + 1) / 50) * (0.1 + 0.45 * (1 + np.cos(np.pi * step / max(steps, 1))))
        ),
    )
    model.train()
    for _ in range(steps):
        rows = data[drawn.integers(count, size=recipe.rows)].clone()
        rows[torch.from_numpy(drawn.random(recipe.rows) < recipe.share)] += words
        rows[:, 0] = 2 * words
        loss = model(input_ids=rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def lines_of(file: Path, count: int, seed: int = 0) -> list[str]:
    """So many lines of a file, at random, in the letters of the first language."""
    every = [line for raw in file.read_text("utf-8").splitlines() if len(line := plain(raw)) > 20]
    distinct = list(dict.fromkeys(every))
    random.Random(seed).shuffle(distinct)
    return distinct[:count]


def stream_of(tokenizer: Any, lines: Sequence[str]) -> list[int]:
    """The tokens of lines, one after another, a space between them."""
    ids = tokenizer([f" {line}" for line in lines], add_special_tokens=False).input_ids
    return [token for row in ids for token in row]


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, stream: Sequence[int], words: int, *, clone: bool) -> float:
    """Of held-out tokens, in the first language or its clone."""
    count = len(stream) // LENGTH
    rows = torch.tensor(stream[: count * LENGTH]).view(count, LENGTH) + (words if clone else 0)
    rows[:, 0] = 2 * words
    losses = [model(input_ids=part, labels=part).loss for part in rows.split(64)]
    return float(torch.stack(losses).mean().exp())

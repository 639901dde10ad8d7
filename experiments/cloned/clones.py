"""A language and its clone: the same text in letters of its own, so that the right effect of
steering is known exactly.

Every token of the second language is one of the first, moved by the size of the vocabulary
(Schäfer et al. 2024, arXiv 2404.07982). What a model that was steered from the first to the second
should say next is therefore what it would have said, each token moved: there is nothing to judge.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

WORDS = 512  # tokens of a language
LENGTH = 64  # tokens of a sequence, BOS included
HELD = {"perplexity": 2000, "estimate": 240, "dev": 60, "test": 120}  # lines
_KEPT = re.compile(r"[^a-z0-9 .,'?!-]")
_BLOCK = 0x4E00  # more letters side by side than there are tokens


def plain(line: str) -> str:
    """A line in the letters of the first language."""
    return " ".join(_KEPT.sub("", line.lower()).split())


def lines_of(file: Path, seed: int = 0) -> list[str]:
    """The distinct lines of a file in an order by chance, in the letters of the first language;
    those of up to 20 letters are left out."""
    every = [line for raw in file.read_text("utf-8").splitlines() if len(line := plain(raw)) > 20]
    distinct = list(dict.fromkeys(every))
    random.Random(seed).shuffle(distinct)
    return distinct


def cutter(lines: Iterable[str]) -> Tokenizer:
    """Byte-pair encoding of the first language, trained on lines."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[ ]?[^ ]+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=[], show_progress=False)
    made.train_from_iterator(lines, trainer)
    return made


def letter(token: int) -> str:
    """A letter that stands for a token, so that any row of tokens can be written as a text.

    The first is a plain "a": with it steerlab tries what a tokenizer puts before a text.
    """
    return chr(_BLOCK + token) if token else "a"


def written(ids: Iterable[int]) -> str:
    """Tokens as a text that `tokenizer` reads."""
    return "".join(map(letter, ids))


def tokenizer(words: int) -> PreTrainedTokenizerFast:
    """Reads what `written` gives: a token for each letter, BOS (the last token) before them."""
    bos = 2 * words
    vocab = {letter(token): token for token in range(bos)} | {"<bos>": bos}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", pad_token="<bos>")


def swap_of(words: int, frac: float = 1.0) -> Tensor:
    """What each token is in the other language, [2 · words + 1].

    Args:
        words: how many tokens a language has.
        frac: the share of tokens that have a clone, by chance; the others are common to both
            languages, as BOS is.
    """
    order = np.random.default_rng(0).permutation(words)
    moved = torch.from_numpy(np.sort(order[: round(frac * words)]))
    swap = torch.arange(2 * words + 1)
    swap[moved], swap[moved + words] = moved + words, moved
    return swap


@dataclass(frozen=True)
class Text:
    """A text that was cut into tokens of the first language.

    Args:
        words: how many tokens the language has.
        stream: to train on, one line after another, a space between them.
        held: the same of lines that are held out for perplexity.
        splits: the tokens of each held-out line, by what it is for.
    """

    words: int
    stream: np.ndarray[Any, Any]
    held: np.ndarray[Any, Any]
    splits: dict[str, list[list[int]]]

    @classmethod
    def of(cls, file: Path) -> "Text":
        """Read a file, one sentence a line."""
        lines = lines_of(file)
        if len(lines) < 2 * sum(HELD.values()):
            raise SystemExit(
                f"{file} has {len(lines)} distinct lines of more than 20 letters; "
                f"{2 * sum(HELD.values())} are needed"
            )
        training = lines[sum(HELD.values()) :]
        cut = cutter(training)
        splits, start = {}, HELD["perplexity"]
        for name in ("estimate", "dev", "test"):
            encoded = cut.encode_batch(lines[start : start + HELD[name]])
            splits[name] = [each.ids[: LENGTH - 1] for each in encoded]
            start += HELD[name]
        held = _stream(cut, lines[: HELD["perplexity"]])
        return cls(cut.get_vocab_size(), _stream(cut, training), held, splits)


def _stream(cut: Tokenizer, lines: Sequence[str]) -> np.ndarray[Any, Any]:
    encoded = cut.encode_batch([f" {line}" for line in lines])
    return np.concatenate([np.array(each.ids, np.int16) for each in encoded])


def sequences(stream: np.ndarray[Any, Any], words: int) -> Tensor:
    """A stream cut into rows that begin with BOS, [row pos]."""
    count = len(stream) // LENGTH
    rows = torch.from_numpy(stream[: count * LENGTH].astype(np.int64)).view(count, LENGTH).clone()
    rows[:, 0] = 2 * words
    return rows

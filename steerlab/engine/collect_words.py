"""One vector for each word of a list, over the texts that hold it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.word_vectors import WordVectors
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, need_room
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def collect_words(
    model: Any,
    words: Iterable[str],
    texts: Sequence[str],
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
) -> WordVectors:
    """Read texts once and average the activations over the tokens of each word of a list.

    A word is matched whole, whatever its capitals; each of its tokens in each place counts once.
    BOS does not count. It takes words x layers x width numbers.

    Raises `SteerlabError` for no words, and where no text holds any of them.

    Args:
        model: what `load` takes, with a tokenizer that knows the places of its tokens.
        words: the list.
        texts: what is read.
        layers: which layers to read; by default all.
        site: where in a layer.
    """
    model = load(model)
    listed = tuple(dict.fromkeys(word.lower() for word in words))
    if not listed:
        raise SteerlabError("there are no words; give some")
    texts = need_texts(texts, "what reads words")
    chosen = chosen_layers(model, layers)
    ids = encode(model.tokenizer, texts)
    need_room(model, ids)
    index = {word: number for number, word in enumerate(listed)}
    owners = [
        _owners(model.tokenizer, text, row, index) for text, row in zip(texts, ids, strict=True)
    ]
    with_words = [number for number, owner in enumerate(owners) if any(o >= 0 for o in owner)]
    sums = torch.zeros(len(listed), len(chosen), model.width_of(site), dtype=torch.float64)
    count = torch.zeros(len(listed), dtype=torch.long)

    def work(rows: Sequence[int]) -> tuple[dict[int, Tensor], Tensor, list[list[int]]]:
        seen: dict[int, Tensor] = {}
        looks = [(site, layer, _keep(seen, layer)) for layer in chosen]
        some = [with_words[row] for row in rows]
        text = read(model, [ids[row] for row in some], looks)
        return seen, text.cpu(), [owners[row] for row in some]

    with torch.inference_mode():
        for seen, text, owner in InOrder(model).run([ids[row] for row in with_words], work):
            place = torch.full(text.shape, -1)
            for row, numbers in enumerate(owner):  # the padding is on the left
                place[row, text.shape[1] - len(numbers) :] = torch.tensor(numbers)
            place[~text] = -1
            there = place >= 0
            for number, layer in enumerate(chosen):
                h = seen[layer].cpu()[there].double()
                sums[:, number].index_add_(0, place[there], h)
            count += torch.bincount(place[there], minlength=len(listed))
    kept = count > 0
    return WordVectors(
        tuple(word for word, there in zip(listed, kept.tolist(), strict=True) if there),
        (sums[kept] / count[kept, None, None]).float(),
        count[kept],
        chosen,
        site,
        {"model": model.metadata, "texts": len(texts)},
        tuple(word for word, there in zip(listed, kept.tolist(), strict=True) if not there),
    )


def _owners(tokenizer: Any, text: str, ids: list[int], index: dict[str, int]) -> list[int]:
    """Of each token the number of the word that it is part of; -1 for none of the list."""
    given = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    before = len(ids) - len(given.input_ids)
    if before < 0 or ids[before:] != list(given.input_ids):
        raise SteerlabError(
            f"the tokens of {text[:40]!r} begin in a way of their own, so that the places of its "
            "words are not known; leave special tokens out of the text"
        )
    spans = [
        (match.start(), match.end(), index[match.group().lower()])
        for match in _WORD.finditer(text)
        if match.group().lower() in index
    ]
    owners = [-1] * before
    for start, end in given.offset_mapping:
        inside = [
            word
            for first, last, word in spans
            # A token may begin with the space before its word.
            if end > first and start < last and text[start:end].strip()
        ]
        owners.append(inside[0] if inside else -1)
    return owners


def _keep(seen: dict[int, Tensor], layer: int) -> HookFn:
    def look(h: Tensor, _: Positions) -> None:
        seen[layer] = h

    return look

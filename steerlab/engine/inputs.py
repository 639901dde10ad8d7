"""What every pass over a corpus needs first: the layers, the tokens, and that these fit the
model."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from steerlab.core.corpus import Corpus, need_texts
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import encode, prompt
from steerlab.models.encoder import Encoder
from steerlab.models.model import Model


def need_count(name: str, value: Any, least: int = 1) -> int:
    """A number of things; what is no whole number, and one below `least`, raise
    `SteerlabError`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise SteerlabError(f"{name} is {value!r}; give a whole number, {least} or more")
    if value < least:
        raise SteerlabError(f"{name} is {value}; give {least} or more")
    return int(value)


def chosen_layers(model: Model, layers: Any) -> tuple[int, ...]:
    """The layers that were asked for, by default all of the model; no layer, and one that the model
    does not have, raise `SteerlabError`."""
    if isinstance(layers, int):
        layers = (layers,)
    if isinstance(layers, str) or not isinstance(layers, Iterable | None):
        raise SteerlabError(f"layers is {layers!r}; give their numbers, such as [4, 5]")
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    if wrong := [layer for layer in chosen if not isinstance(layer, int | np.integer)]:
        raise SteerlabError(f"a layer is a whole number, not {wrong[0]!r}")
    if not chosen:
        raise SteerlabError(f"name at least one of {model.name}'s layers 0 to {model.n_layers - 1}")
    for layer in chosen:
        model.need_layer(layer)
    if len(set(chosen)) < len(chosen):
        raise SteerlabError(f"a layer stands twice in {chosen}; name each once")
    return chosen


def tokens_of(model: Model, lang: str, lines: Sequence[str], form: str | None) -> list[list[int]]:
    """The token ids of each line of one language, in a prompt form or as it is.

    Args:
        model: whose tokenizer reads them.
        lang: the language of the lines, in which a form with an instruction asks for an answer.
        lines: the lines.
        form: the prompt form; None for none. An encoder reads the line as it is.
    """
    if isinstance(model, Encoder):
        if form not in (None, "line"):
            raise SteerlabError(
                f"{model.name} is an encoder, which reads a sentence as it is and not in the "
                f"prompt form {form!r}; leave form out"
            )
        return model.encode(need_texts(lines, "what reads texts"))
    if form is None:
        return encode(model.tokenizer, lines)
    tokenizer = model.tokenizer
    prompts = [prompt(tokenizer, form, line, source=lang, target=lang) for line in lines]
    return encode(tokenizer, prompts)


def need_room(model: Model, ids: Sequence[Sequence[int]], *, new: int = 0) -> None:
    """Raise `SteerlabError` where a row of tokens is longer than the model was made for, or becomes
    so with `new` tokens behind it, and where the model has no embedding of a token.

    Args:
        model: whose `context` is the limit.
        ids: the tokens of each row.
        new: how many tokens will follow.
    """
    largest = max((max(row, default=0) for row in ids), default=0)
    if largest >= model.embedded:
        token = model.tokenizer.convert_ids_to_tokens(largest)
        raise SteerlabError(
            f"the token {token!r} has the number {largest}, and {model.name} has an embedding of "
            f"{model.embedded}: the tokenizer is another model's, or has had tokens added; take "
            "its own, or resize the embedding (resize_token_embeddings) and train it"
        )
    length = max(map(len, ids), default=0)
    if length + new <= model.context:
        return
    if new:
        raise SteerlabError(
            f"a prompt of {length} tokens and {new} new ones make {length + new}; {model.name} was "
            f"made for {model.context}: shorten the prompt or max_new_tokens"
        )
    raise SteerlabError(
        f"a text has {length} tokens; {model.name} was made for {model.context}: cut it"
    )


def corpus_metadata(corpus: Corpus) -> dict[str, object]:
    """What an artefact records of the corpus that it was made with."""
    return {"name": corpus.name, "hash": corpus.hash, "lines": len(corpus)}

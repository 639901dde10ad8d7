"""Prompt forms: the named ways in which a sentence is put to a model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steerlab.terms import SteerlabError, language

FORMS = ("line", "instructed", "chat")


def prompt(tokenizer: Any, form: str, text: str, *, source: str = "en", target: str | None = None) -> str:
    """The text of a prompt, without the BOS that `encode` adds.

    `line`: the sentence and a line break. `instructed`: both languages named, so that the target's line is asked for.
    `chat`: the tokenizer's chat template with the sentence as the user's message.
    """
    if form == "line":
        return text + "\n"
    if form == "instructed":
        if target is None:
            raise SteerlabError("the prompt form 'instructed' names the target language; give target=")
        return f"{language(source).name}: {text}\n{language(target).name}:"
    if form == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise SteerlabError("this tokenizer has no chat template; use the prompt form 'line' or 'instructed'")
        message = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    raise SteerlabError(f"there is no prompt form {form!r}; the forms are {', '.join(FORMS)}")


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt with exactly one BOS where the tokenizer has one; a prompt without tokens raises."""
    bos, encoded = tokenizer.bos_token_id, []
    for text in texts:
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        if bos is not None:
            while ids[:1] == [bos]:  # a chat template may bring its own
                ids = ids[1:]
            ids = [bos, *ids]
        if not ids or ids == [bos]:
            raise SteerlabError(f"the prompt {text!r} has no tokens; give some text")
        encoded.append(ids)
    return encoded


def pad(ids: Sequence[Sequence[int]], padding: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(tokens, mask) [row pos], padded on the left."""
    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), padding or 0)
    mask = torch.zeros(len(ids), length, dtype=torch.bool)
    for row, found in enumerate(ids):
        tokens[row, length - len(found) :] = torch.tensor(found)
        mask[row, length - len(found) :] = True
    return tokens.to(device), mask.to(device)

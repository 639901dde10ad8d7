"""Prompt forms: the named ways in which a sentence is put to a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES, language

FORMS = ("line", "instructed", "chat")
INSTRUCTED = ("line", "chat")  # forms that a suffix may join, as in "chat+target"
SUFFIXES = ("english", "target", "source")
_FILE = Path(__file__).parents[1] / "data" / "instructions.tsv"


def prompt(
    tokenizer: Any, form: str, text: str, *, source: str = "en", target: str | None = None
) -> str:
    """The text of a prompt, without the BOS that `encode` adds.

    `line`: the sentence and a line break. `instructed`: both languages named, so that the target's
    line is asked for. `chat`: the tokenizer's chat template with the sentence as the user's
    message. To `line` and `chat` a suffix may be joined, which asks after the text for an answer in
    the target language: `+english`, `+target` or `+source` is the language that it asks in, or any
    code, such as `chat+de`.
    """
    form, asking = read_form(form)
    if asking:
        if target is None:
            raise SteerlabError(
                f"the prompt form '{form}+{asking}' asks for the target language; give target="
            )
        asking = {"english": "en", "target": target, "source": source}.get(asking, asking)
        text = f"{text} {instruction(asking, target)}"
    if form == "line":
        return text + "\n"
    if form == "instructed":
        if target is None:
            raise SteerlabError(
                "the prompt form 'instructed' names the target language; give target="
            )
        return f"{language(source).name}: {text}\n{language(target).name}:"
    if not getattr(tokenizer, "chat_template", None):
        raise SteerlabError(
            "this tokenizer has no chat template; use the prompt form 'line' or 'instructed'"
        )
    message = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def read_form(form: str) -> tuple[str, str]:
    """A form and the suffix joined to it ("" without): "chat+de" -> ("chat", "de"); an unknown
    one raises."""
    base, plus, asking = form.partition("+")
    exists = asking in SUFFIXES or asking in LANGUAGES
    if base not in FORMS or (plus and not (exists and base in INSTRUCTED)):
        joined = ", ".join(f"+{suffix}" for suffix in SUFFIXES)
        raise SteerlabError(
            f"there is no prompt form {form!r}; the forms are {', '.join(FORMS)}; to "
            f"{' and '.join(INSTRUCTED)} "
            f"an instruction may be joined by {joined} or + and a language's code, as in chat+de"
        )
    return base, asking


def instruction(asking: str, target: str) -> str:
    """What asks, in the language `asking`, for an answer in `target`.

    English names the target in English; any other language but the target itself calls it by its
    own name.
    """
    language(asking), language(target)
    instructions = _instructions()
    if asking == target:
        return instructions[asking].own
    name = language(target).name if asking == "en" else instructions[target].name
    return instructions[asking].other.format(name)


@dataclass(frozen=True)
class _Instruction:
    """A language's name for itself, its request for an answer in itself, and one for an answer
    in `{}`."""

    name: str
    own: str
    other: str


@lru_cache(maxsize=1)
def _instructions() -> dict[str, _Instruction]:
    rows = [line.split("\t") for line in _FILE.read_text("utf-8").splitlines()]
    return {lang: _Instruction(*texts) for lang, *texts in rows}


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt with exactly one BOS where the tokenizer has one; a prompt
    without tokens raises."""
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


def pad(
    ids: Sequence[Sequence[int]], padding: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(tokens, mask) [row pos], padded on the left."""
    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), padding or 0)
    mask = torch.zeros(len(ids), length, dtype=torch.bool)
    for row, own in enumerate(ids):
        tokens[row, length - len(own) :] = torch.tensor(own)
        mask[row, length - len(own) :] = True
    return tokens.to(device), mask.to(device)

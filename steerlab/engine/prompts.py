"""Prompt forms, the named ways in which a sentence is put to a model; and their tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import spoken
from steerlab.core.languages import code_of, language
from steerlab.core.tokens import beginning, specials
from steerlab.engine.shots import SHOT_FORMS, Shot, read_shots, with_shots

FORMS = ("line", "instructed", "chat")
INSTRUCTED = ("line", "chat")  # forms that a suffix may join, as in "chat+target"
SUFFIXES = ("english", "target", "source")
_FILE = Path(__file__).parents[1] / "data" / "instructions.tsv"


def prompt(
    tokenizer: Any,
    form: str,
    text: str,
    *,
    source: str = "en",
    target: str | None = None,
    shots: Sequence[Shot] = (),
    template: Mapping[str, Any] | None = None,
) -> str:
    """The text of a prompt, without the BOS that `encode` adds.

    - `line`: the sentence and a line break.
    - `instructed`: the sentence behind its language's name, and the target's name behind which its
      translation should follow.
    - `chat`: the tokenizer's chat template with the sentence as the user's message.
    - `echo`, `echo:4`: examples (`engine.shots`), each said twice, then the sentence, once.
    - `fewshot`, `fewshot:2`: as `instructed`, behind examples with their translations.

    To `line` and `chat` a suffix may be joined. It asks, after the text, for an answer in the
    target language, and says in which language it asks: `+english`, `+target`, `+source`, or any
    code, such as `chat+de`.

    Raises `SteerlabError` for an unknown form, one that needs a target without one, and `chat`
    without a chat template.

    Args:
        tokenizer: of the model.
        form: the prompt form.
        text: the sentence.
        source: the code of the language of the sentence.
        target: the code of the language that the answer should be in.
        shots: the examples of `echo` and `fewshot`, as many as the form has.
        template: options of the chat template; by default `enable_thinking=False`, by which models
            that think first answer at once. One that the template does not read raises.
    """
    whole, (form, asking) = form, read_form(form)
    if form in SHOT_FORMS:
        return with_shots(whole, text, shots, source=source, target=target)
    if asking:
        if target is None:
            raise SteerlabError(
                f"the prompt form '{form}+{asking}' asks for the target language; give target="
            )
        # A word stands for a language; anything else is a language's code already.
        asking = {"english": "en", "target": target, "source": source}.get(asking, asking)
        text = f"{text} {instruction(asking, target)}"
    if form == "line":
        return text + "\n"
    if form == "instructed":
        if target is None:
            raise SteerlabError(
                "the prompt form 'instructed' names the target language; give target="
            )
        asker, asked = (
            spoken(lang, "the prompt form 'instructed'").name for lang in (source, target)
        )
        return f"{asker}: {text}\n{asked}:"
    return chat(tokenizer, [{"role": "user", "content": text}], template=template)


def chat(
    tokenizer: Any,
    turns: Sequence[Mapping[str, str]],
    *,
    template: Mapping[str, Any] | None = None,
) -> str:
    """The text of a talk up to where the model's answer begins, by the tokenizer's chat template.

    Raises `SteerlabError` without a template, and for turns that it refuses, such as two of the
    user's in a row.

    Args:
        tokenizer: of the model.
        turns: each with its `role` and its `content`.
        template: options of the template, as `prompt` takes them.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SteerlabError(
            "this tokenizer has no chat template; use the prompt form 'line' or 'instructed', or "
            "at an endpoint /v1/completions"
        )
    need_options(tokenizer, template or {})
    # Templates that know no such option pass over it. With thinking on, what is judged would be
    # the beginning of a thought, in English.
    options = {"enable_thinking": False, **(template or {})}
    try:
        made = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True, **options
        )
    # A template is a program of its own: what it raises has no class in common.
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        roles = " and ".join(dict.fromkeys(turn["role"] for turn in turns))
        raise SteerlabError(
            f"the chat template of this tokenizer refuses a {roles}'s message ({error}); use the "
            "prompt form 'line' or 'instructed', or another template"
        ) from error
    return str(made)


def need_options(tokenizer: Any, template: Mapping[str, Any]) -> None:
    """Raise for an option that a chat template does not read, which would be passed over."""
    text = str(tokenizer.chat_template)
    for name in template:
        if not re.search(rf"\b{re.escape(name)}\b", text):
            raise SteerlabError(
                f"the chat template of this tokenizer reads no option {name!r}, so that it would "
                "change nothing; leave it out"
            )


def read_form(form: str) -> tuple[str, str]:
    """A form and the suffix joined to it, or "": "chat+de" -> ("chat", "de"), "echo:5" -> ("echo",
    ""); an unknown one raises `SteerlabError`."""
    if with_examples := read_shots(form):
        return with_examples[0], ""
    base, plus, asking = form.partition("+")
    is_language = asking in SUFFIXES or code_of(asking) in _instructions()
    if base not in FORMS or (plus and not (is_language and base in INSTRUCTED)):
        joined = ", ".join(f"+{suffix}" for suffix in SUFFIXES)
        raise SteerlabError(
            f"there is no prompt form {form!r}; the forms are {', '.join(FORMS)}; to "
            f"{' and '.join(INSTRUCTED)} "
            f"an instruction may be joined by {joined} or + and a language's code, as in chat+de; "
            f"{' and '.join(SHOT_FORMS)} put examples first, as many as echo:4 says"
        )
    return base, asking


def instruction(asking: str, target: str) -> str:
    """The sentence that asks, in the language `asking`, for an answer in `target`.

    English calls the target by its English name, any other language by the target's own name, where
    the packaged instructions have it. An unknown language, and one that has no instruction to ask
    in, raise `SteerlabError`.
    """
    asking, target = (spoken(lang, "an instruction").iso for lang in (asking, target))
    if asking not in _instructions():
        raise SteerlabError(
            f"there is no instruction in {language(asking).name} ({asking}); there are those of "
            f"{' '.join(_instructions())}: ask in English, by +english"
        )
    request = _instructions()[asking]
    if asking == target:
        return request.own
    if asking == "en" or target not in _instructions():
        return request.other.format(language(target).name)
    return request.other.format(_instructions()[target].name)


@dataclass(frozen=True)
class _Instruction:
    """What asks in one language for an answer.

    Args:
        name: what the language calls itself.
        own: asks for an answer in this language.
        other: asks for an answer in another one, whose name takes the place of `{}`.
    """

    name: str
    own: str
    other: str


@lru_cache(maxsize=1)
def _instructions() -> dict[str, _Instruction]:
    """The instructions by the code of the language that asks, from the packaged file: its columns
    are the code and the fields of `_Instruction`."""
    instructions = {}
    for line in _FILE.read_text("utf-8").splitlines():
        lang, name, own, other = line.split("\t")
        instructions[lang] = _Instruction(name, own, other)
    return instructions


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each prompt, begun once as the tokenizer itself begins a text.

    That is BOS as a rule, the end of a text for XGLM, and nothing for BLOOM, GPT-2 and Qwen: what
    a model never saw before a text is not put there. A text that begins with another special token,
    as a chat's does, is left as it is. One string in place of the list, and a prompt without
    tokens, raise `SteerlabError`.
    """
    begins = list(beginning(tokenizer))
    special = set(specials(tokenizer))
    encoded = []
    for text in need_texts(texts, "what reads texts"):
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        if begins:
            brought = ids[: len(begins)] == begins  # as a template's text may, and more than once
            while ids[: len(begins)] == begins:
                ids = ids[len(begins) :]
            if brought or not ids or ids[0] not in special:
                ids = [*begins, *ids]
        if not ids or ids == begins:
            raise SteerlabError(f"the prompt {text!r} has no tokens; give some text")
        encoded.append(ids)
    return encoded


def pad(
    ids: Sequence[Sequence[int]], padding: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor, `[row pos]`, and a mask that is true where there is no
    padding, `[row pos]`.

    The padding is on the left, so that the last position of every row is its last token.

    Args:
        ids: the tokens of each row.
        padding: the token to pad with; None where the tokenizer has none, as any does behind a
            mask.
        device: where the tensors are put.
    """
    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), padding or 0)
    mask = torch.zeros(len(ids), length, dtype=torch.bool)
    for row, of_row in enumerate(ids):
        start = length - len(of_row)
        tokens[row, start:] = torch.tensor(of_row)
        mask[row, start:] = True
    return tokens.to(device), mask.to(device)

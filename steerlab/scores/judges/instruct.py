"""An instruct model on this machine as the judge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jinja2

from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import generate
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.judges import rubric
from steerlab.scores.judges.answers import Answer


@dataclass(frozen=True)
class Instruct:
    """Asks an instruct model, of the Hub or in a folder, to rate outputs: 0, 0.5 or 1 by
    `rubric.RUBRIC`.

    The model needs a chat template; where the template knows `enable_thinking`, thinking is
    switched off. With a temperature above 0 replies also depend on which rows are judged together.

    Args:
        model: what `load` takes.
        revision: as for `load`.
        dtype: as for `load`.
        device: as for `load`.
        temperature: of the replies; 0 takes the likeliest token.
        seed: decides replies that are drawn at a temperature.
        max_tokens: the most tokens of a reply.
        batch: the most rows that run together; by default as many as speed and memory advise.
    """

    model: Any
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 256
    batch: int | None = None

    @property
    def name(self) -> str:
        """Everything that decides a rating; the model is loaded for it."""
        model = json.dumps(self._load().metadata, sort_keys=True)
        # At temperature 0 the seed decides nothing: another seed is the same judge.
        seed = f", seed {self.seed}" if self.temperature else ""
        sampling = f"temperature {self.temperature:g}{seed}, at most {self.max_tokens} tokens"
        return f"instruct {model}, rubric {rubric.version()}, {sampling}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0, 0.5 or 1, NaN where the reply cannot be read, and `reply`
        [answer]."""
        return rubric.rate(answers, self.ask, judge=str(self._load().name))

    def ask(self, asked: Sequence[list[dict[str, str]]]) -> list[str]:
        """The model's reply to each list of messages."""
        model = self._load()
        prompts = [_chat(model, messages) for messages in asked]
        return generate(
            model,
            prompts,
            max_new_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            one_line=False,  # the rating stands in the last line of a reply
            batch=self.batch,
        )

    def need_template(self) -> None:
        """Raise `SteerlabError` where the model cannot be asked, having no chat template."""
        _chat(self._load(), rubric.messages(Answer("?", "?", "?", 0, "en", "en")))

    def _load(self) -> Model:
        """The model, loaded once for each name; a model itself is taken as it is."""
        if isinstance(self.model, str):
            return _loaded(self.model, self.revision, self.dtype, self.device)
        return load(self.model)


@lru_cache(maxsize=1)
def _loaded(source: str, revision: str | None, dtype: str | None, device: str | None) -> Model:
    return load(source, revision=revision, dtype=dtype, device=device)


def _chat(model: Model, messages: list[dict[str, str]]) -> str:
    """The prompt of a chat, by the model's template; a model without one raises `SteerlabError`.

    Where a template refuses system messages, that message is put before the user's.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        raise SteerlabError(
            f"{model.name} has no chat template, so it cannot be asked to judge; give an instruct "
            "model"
        )
    template = partial(
        model.tokenizer.apply_chat_template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # a template that does not know it leaves it unread
    )
    try:
        return str(template(messages))
    except jinja2.TemplateError:
        joined = "\n\n".join(message["content"] for message in messages)
        return str(template([{"role": "user", "content": joined}]))

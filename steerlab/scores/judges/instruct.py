"""An instruct model on this machine as the judge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    """Rates by what an instruct model of the Hub, or in a folder, says of an output: 0, 0.5 or 1 by
    `rubric.RUBRIC`.

    `model`, `revision`, `dtype` and `device` are what `load` takes; the model needs a chat
    template, and one that knows `enable_thinking` is told not to think. At a temperature replies
    are drawn with the seed, and then the rows that are judged together decide them too.
    """

    model: Any
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 256
    batch: int | None = None  # rows that run together; by default what memory advises

    @property
    def name(self) -> str:
        drawn = f", seed {self.seed}" if self.temperature else ""
        told = f"temperature {self.temperature:g}{drawn}, at most {self.max_tokens} tokens"
        return (
            f"instruct {json.dumps(self._load().metadata, sort_keys=True)}, rubric "
            f"{rubric.version()}, {told}"
        )

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0, 0.5 or 1, NaN where the reply cannot be read, and `reply`
        [answer]."""
        return rubric.rate(answers, self.ask, judge=str(self._load().name))

    def ask(self, asked: Sequence[list[dict[str, str]]]) -> list[str]:
        """The model's reply to each list of messages."""
        model = self._load()
        return generate(
            model,
            [_chat(model, messages) for messages in asked],
            max_new_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            one_line=False,
            batch=self.batch,
        )

    def _load(self) -> Model:
        if isinstance(self.model, str):
            return _loaded(self.model, self.revision, self.dtype, self.device)
        return load(self.model)


@lru_cache(maxsize=1)
def _loaded(source: str, revision: str | None, dtype: str | None, device: str | None) -> Model:
    return load(source, revision=revision, dtype=dtype, device=device)


def _chat(model: Model, messages: list[dict[str, str]]) -> str:
    """The prompt of a chat; where a template refuses a system's message, that is put before the
    user's."""
    if not getattr(model.tokenizer, "chat_template", None):
        raise SteerlabError(
            f"{model.name} has no chat template, so it cannot be asked to judge; give an instruct "
            "model"
        )
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        return str(model.tokenizer.apply_chat_template(messages, **options))
    except jinja2.TemplateError:
        joined = "\n\n".join(message["content"] for message in messages)
        return str(
            model.tokenizer.apply_chat_template([{"role": "user", "content": joined}], **options)
        )

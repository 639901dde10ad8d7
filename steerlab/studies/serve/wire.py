"""What goes over the wire: OpenAI's objects, whole and in pieces."""

import json
import math
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from steerlab.studies.serve.batches import Ended


def error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


@dataclass(frozen=True)
class Answer:
    """One answer: its name, what it is an answer of, and what was asked that an end tells.

    Args:
        chat: whether it is of a talk; else it continues a text.
        model: as the request called it.
        prompt: how many tokens were read.
        seed: what was sampled by.
    """

    chat: bool
    model: str
    prompt: int
    seed: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, ended: Ended) -> dict[str, Any]:
        """The answer in one piece."""
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        )
        made = self._object("chat.completion" if self.chat else "text_completion")
        made["choices"] = [self._choice(said, ended.reason)]
        return made | {"usage": self.usage(ended), "steering": self.steering(ended)}

    def begun(self) -> dict[str, Any] | None:
        """The first piece, where there is one."""
        if not self.chat:
            return None
        return self._piece({"delta": {"role": "assistant", "content": ""}}, None)

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the answer."""
        return self._piece({"delta": {"content": text}} if self.chat else {"text": text}, None)

    def end(self, ended: Ended) -> dict[str, Any]:
        """The last piece."""
        made = self._piece({"delta": {}} if self.chat else {"text": ""}, ended.reason)
        return made | {"steering": self.steering(ended)}

    def count(self, ended: Ended) -> dict[str, Any]:
        """What comes behind the last piece, where it was asked for."""
        return self._streamed() | {"choices": [], "usage": self.usage(ended)}

    def usage(self, ended: Ended) -> dict[str, int]:
        """How many tokens were read and written."""
        total = self.prompt + ended.tokens
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": ended.tokens,
            "total_tokens": total,
        }

    def steering(self, ended: Ended) -> dict[str, Any]:
        """What shows that the answer was steered: the edit's digest and its dose, null where that
        is not known."""
        dose = ended.dose if math.isfinite(ended.dose) else None
        return {"edit": ended.edit or None, "dose": dose, "seed": self.seed}

    def _piece(self, said: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return self._streamed() | {"choices": [self._choice(said, reason)]}

    def _streamed(self) -> dict[str, Any]:
        return self._object("chat.completion.chunk" if self.chat else "text_completion")

    def _choice(self, said: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}

    def _object(self, kind: str) -> dict[str, Any]:
        begins = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{begins}-{self.name}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def event(said: dict[str, Any] | str) -> str:
    """A server-sent event."""
    text = said if isinstance(said, str) else json.dumps(said)
    return f"data: {text}\n\n"

"""What goes over the wire: OpenAI's objects, whole and in pieces."""

import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.tokens import Spelling
from steerlab.studies.serve.batches import Echoed, Ended, Said
from steerlab.studies.serve.logprobs import of_chat, of_completion, placed


def error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


@dataclass(frozen=True)
class Answer:
    """What is answered to a request: its name, what it is an answer of, and what was asked that an
    end tells.

    Args:
        chat: whether it is of a talk; else it continues texts.
        model: as the request called it.
        prompt: how many tokens were read.
        seeds: what each choice was sampled by, of which the first is the request's.
        spelling: of the model's tokens; None where no log-probabilities are asked for.
        echo: what stands before each choice; empty for nothing.
    """

    chat: bool
    model: str
    prompt: int
    seeds: tuple[int, ...]
    spelling: Spelling | None = None
    echo: tuple[str, ...] = ()
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, events: Sequence[Said | Echoed], ends: Mapping[int, Ended]) -> dict[str, Any]:
        """All in one piece."""
        made = self._object("chat.completion" if self.chat else "text_completion")
        made["choices"] = [
            self._whole_choice([each for each in events if each.index == index], ends[index])
            for index in range(len(self.seeds))
        ]
        every = [ends[index] for index in range(len(self.seeds))]
        return made | {"usage": self.usage(every), "steering": self.steering(every)}

    def begun(self) -> Iterator[dict[str, Any]]:
        """The first piece of each choice, where there is one."""
        if self.chat:
            for index in range(len(self.seeds)):
                said = {"delta": {"role": "assistant", "content": ""}}
                yield self._piece(index, said, None)

    def piece(self, said: Said | Echoed) -> dict[str, Any]:
        """A piece of a choice."""
        text = {"delta": {"content": said.text}} if self.chat else {"text": said.text}
        return self._piece(said.index, text, None, self._logprobs([said]))

    def end(self, ended: Ended) -> dict[str, Any]:
        """The last piece of a choice."""
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        made = self._piece(ended.index, said, ended.reason)
        return made | {"steering": self.steering([ended])}

    def count(self, ends: Sequence[Ended]) -> dict[str, Any]:
        """What comes behind the last piece, where it was asked for."""
        return self._streamed() | {"choices": [], "usage": self.usage(ends)}

    def usage(self, ends: Sequence[Ended]) -> dict[str, int]:
        """How many tokens were read and written."""
        written = sum(ended.tokens for ended in ends)
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": written,
            "total_tokens": self.prompt + written,
        }

    def steering(self, ends: Sequence[Ended]) -> dict[str, Any]:
        """What shows that choices were steered: the edit's digest and its dose, the mean over the
        choices, null where that is not known; and the seed of the first."""
        dose = sum(ended.dose for ended in ends) / len(ends)
        return {
            "edit": ends[0].edit or None,
            "dose": dose if math.isfinite(dose) else None,
            "seed": self.seeds[ends[0].index],
        }

    def _whole_choice(self, events: Sequence[Said | Echoed], ended: Ended) -> dict[str, Any]:
        text = "".join(each.text for each in events)
        said: dict[str, Any] = {"text": text}
        if self.chat:
            said = {"message": {"role": "assistant", "content": text}}
        made = self._choice(ended.index, said, ended.reason, self._logprobs(events))
        # A single choice is steered as the whole answer says.
        return made | ({"steering": self.steering([ended])} if len(self.seeds) > 1 else {})

    def _logprobs(self, events: Sequence[Said | Echoed]) -> dict[str, Any] | None:
        """Those of the tokens that events add, where they are asked for."""
        if self.spelling is None:
            return None
        read = [each for event in events if isinstance(event, Echoed) for each in event.scores]
        said = [each for event in events if isinstance(event, Said) for each in event.tokens]
        if self.chat:
            return of_chat(self.spelling, said)
        shift = len(self.echo[events[0].index]) if self.echo and events else 0
        before = of_completion(self.spelling, placed(self.spelling, read))
        after = of_completion(self.spelling, said, shift=shift)
        return {key: before[key] + after[key] for key in before}

    def _piece(
        self,
        index: int,
        said: dict[str, Any],
        reason: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return self._streamed() | {"choices": [self._choice(index, said, reason, logprobs)]}

    def _streamed(self) -> dict[str, Any]:
        return self._object("chat.completion.chunk" if self.chat else "text_completion")

    def _choice(
        self,
        index: int,
        said: dict[str, Any],
        reason: str | None,
        logprobs: dict[str, Any] | None,
    ) -> dict[str, Any]:
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}

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

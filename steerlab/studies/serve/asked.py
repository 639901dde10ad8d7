"""What a request to the endpoint may say, checked: OpenAI's words, and `steer`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, check
from steerlab.studies.explore.setting import HOTTEST, Steering
from steerlab.sweeps.settings import Number

LONGEST = 100_000  # characters of all that is to be read
MOST_TOKENS = 2048
USUAL_TOKENS = 256  # where a request does not say how many
MOST_STOPS = 4
UNSTEERED = "none"


def _need_text(text: str) -> None:
    if not text:
        raise SteerlabError("there is nothing to continue; write something")
    if len(text) > LONGEST:
        raise SteerlabError(f"the text has {len(text):,} characters; give {LONGEST:,} at most")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SteerlabError("the text holds half of a surrogate pair, which is no character")


def _need_stops(stop: Any) -> None:
    given = [stop] if isinstance(stop, str) else list(stop or ())
    if len(given) > MOST_STOPS or not all(given):
        raise SteerlabError(f"give at most {MOST_STOPS} texts to stop at, none of them empty")


def _only(allowed: Any) -> Any:
    """A check for what clients may send of which one value is served."""

    def need(given: Any) -> None:
        if given is not None and given != allowed:
            raise SteerlabError(f"{given!r} is not served; leave it out, or give {allowed!r}")

    return check(need)


class Part(Checked):
    """A piece of a message's content; text is the one kind that is read."""

    type: Literal["text"]
    text: str


class Message(Checked):
    """A turn of a talk."""

    role: Literal["system", "user", "assistant"]
    content: str | tuple[dict[str, Any], ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """What is said in it."""
        if isinstance(self.content, str):
            return self.content
        return "".join(Part.of(part, "content: ").text for part in self.content)


class Asked(Checked):
    """What both kinds of requests may say."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    steer: dict[str, Any] | str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=HOTTEST)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[str | tuple[str, ...] | None, check(_need_stops)] = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    user: str | None = None
    n: Annotated[int | None, _only(1)] = None
    top_p: Annotated[float | None, _only(1)] = None
    presence_penalty: Annotated[float | None, _only(0)] = None
    frequency_penalty: Annotated[float | None, _only(0)] = None

    @property
    def steering(self) -> Steering | str | None:
        """The steering's keys, the name of an edit that is served, or None where the request does
        not say."""
        if isinstance(self.steer, dict):
            return Steering.of(self.steer, "steer: ")
        return self.steer

    @property
    def new_tokens(self) -> int:
        """How many tokens there may be."""
        return self.max_tokens or USUAL_TOKENS

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def counted(self) -> bool:
        """Whether a streamed answer says in the end how many tokens it had."""
        return bool((self.stream_options or {}).get("include_usage"))


class AskedCompletion(Asked):
    """A text to go on with."""

    prompt: Annotated[str, check(_need_text)]
    best_of: Annotated[int | None, _only(1)] = None
    echo: Annotated[bool | None, _only(False)] = None


class AskedChat(Asked):
    """A talk to go on with."""

    messages: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    logprobs: Annotated[bool | None, _only(False)] = None

    @property
    def new_tokens(self) -> int:
        """How many tokens there may be, by either name."""
        return self.max_completion_tokens or self.max_tokens or USUAL_TOKENS

    @property
    def turns(self) -> list[dict[str, str]]:
        """The talk as chat templates read it."""
        said = [Message.of(each, f"messages.{i}: ") for i, each in enumerate(self.messages)]
        turns = [{"role": each.role, "content": each.text} for each in said]
        _need_text("".join(turn["content"] for turn in turns))
        return turns

"""What a request to the endpoint may say, checked: OpenAI's words, and `steer`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, check, shortened
from steerlab.studies.explore.setting import HOTTEST, Steering
from steerlab.studies.serve.unserved import Unserved, UnservedOfChats, UnservedOfCompletions
from steerlab.sweeps.settings import Number

LONGEST = 100_000  # characters of all that is to be read
MOST_TOKENS = 2048
USUAL_TOKENS = 256  # where a request does not say how many
MOST_STOPS = 4
MOST_ANSWERS = 32  # to a prompt
MOST_CHOICES = 128  # to all prompts of a request
UNSTEERED = "none"
_PROMPTS = "a text, a list of texts, a list of token ids, or a list of such lists"


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


def _need_prompt(prompt: Any) -> None:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts:
        raise SteerlabError(f"{shortened(prompt)} was given; give {_PROMPTS}")
    if _are_tokens(texts):
        return
    if not all(isinstance(text, str) for text in texts) and not all(map(_are_tokens, texts)):
        raise SteerlabError(f"{shortened(prompt)} was given; give {_PROMPTS}")
    for text in texts:
        if isinstance(text, str):
            _need_text(text)


def _are_tokens(prompt: Any) -> bool:
    """Whether a prompt is a list of numbers of tokens."""
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(type(token) is int and token >= 0 for token in prompt)
    )


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


class Asked(Unserved):
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
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _need_sampled(self) -> "Asked":
        """Refuse what is asked of sampling where nothing is sampled."""
        if self.answers > 1 and not self.temperature:
            raise SteerlabError(
                f"n: at temperature 0, or without one, all {self.n} answers would be the same; "
                "give a temperature above 0, or leave n out"
            )
        if self.share < 1 and self.temperature is None:
            raise SteerlabError(
                f"top_p: {self.top_p:g} was given, and without a temperature nothing is sampled; "
                "give a temperature above 0, or leave top_p out"
            )
        return self

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
        return USUAL_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def answers(self) -> int:
        """How many answers there are to each prompt."""
        return self.n or 1

    @property
    def share(self) -> float:
        """The share of the probability that is sampled from."""
        return 1.0 if self.top_p is None else self.top_p

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens are told beside each; None where no log-probabilities
        are."""
        return None

    @property
    def echoes(self) -> bool:
        """Whether the prompt is said before its answer."""
        return False

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def counted(self) -> bool:
        """Whether a streamed answer says in the end how many tokens it had."""
        return bool((self.stream_options or {}).get("include_usage"))


class AskedCompletion(UnservedOfCompletions, Asked):
    """Texts to go on with."""

    prompt: Annotated[Any, check(_need_prompt)]
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @model_validator(mode="after")
    def _need_whole(self) -> "AskedCompletion":
        """Refuse what does not go together."""
        if self.best_of not in (None, self.answers):
            raise SteerlabError(
                f"best_of: {self.best_of} was given, and all answers are told, of which there are "
                f"{self.answers}; leave it out, or give n={self.best_of}"
            )
        if self.max_tokens == 0 and not self.echo:
            raise SteerlabError(
                "max_tokens: with 0 there is nothing to say; give 1 or more, or echo=true"
            )
        if (count := len(self.prompts) * self.answers) > MOST_CHOICES:
            raise SteerlabError(
                f"{len(self.prompts)} prompts with {self.answers} answers each make {count}; ask "
                f"for {MOST_CHOICES} at most"
            )
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each a text, or the numbers of its tokens."""
        alone = isinstance(self.prompt, str) or _are_tokens(self.prompt)
        return [self.prompt] if alone else list(self.prompt)

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens are told beside each."""
        return self.logprobs

    @property
    def echoes(self) -> bool:
        """Whether the prompt is said before its answer."""
        return bool(self.echo)


class AskedChat(UnservedOfChats, Asked):
    """A talk to go on with."""

    messages: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _need_logprobs(self) -> "AskedChat":
        """Refuse a number of log-probabilities where none is asked for."""
        if self.top_logprobs and not self.logprobs:
            raise SteerlabError(
                f"top_logprobs: {self.top_logprobs} was given without log-probabilities; give "
                "logprobs=true too, or leave it out"
            )
        return self

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens are told beside each."""
        return (self.top_logprobs or 0) if self.logprobs else None

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

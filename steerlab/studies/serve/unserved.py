"""What OpenAI's protocol has and is not served: refused by name, but where it changes nothing."""

from typing import Annotated, Any

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, check, shortened


def _only(*allowed: Any) -> Any:
    """A check for what clients may send of which these values alone are served: those that change
    nothing."""

    def need(given: Any) -> None:
        if given is not None and given not in allowed:
            give = f", or give {allowed[0]!r}" if allowed else ""
            raise SteerlabError(f"{shortened(given)} is not served; leave it out{give}")

    return check(need)


class Unserved(Checked):
    """Of both kinds of requests."""

    presence_penalty: Annotated[float | None, _only(0)] = None
    frequency_penalty: Annotated[float | None, _only(0)] = None
    logit_bias: Annotated[Any, _only({})] = None


class UnservedOfCompletions(Checked):
    """Of requests for a text."""

    suffix: Annotated[Any, _only("")] = None


class UnservedOfChats(Checked):
    """Of requests for a turn of a talk."""

    response_format: Annotated[Any, _only({"type": "text"})] = None
    tools: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    parallel_tool_calls: bool | None = None  # of tools, of which there are none
    functions: Annotated[Any, _only([])] = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    modalities: Annotated[Any, _only(["text"])] = None
    audio: Annotated[Any, _only()] = None
    prediction: Annotated[Any, _only()] = None
    reasoning_effort: Annotated[Any, _only("none")] = None
    verbosity: Annotated[Any, _only("medium")] = None
    web_search_options: Annotated[Any, _only()] = None
    store: Annotated[bool | None, _only(False)] = None
    service_tier: Annotated[Any, _only("auto", "default")] = None
    metadata: dict[str, str] | None = None  # labels, which change no answer
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

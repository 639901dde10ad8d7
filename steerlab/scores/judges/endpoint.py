"""Any server that speaks OpenAI's chat completions as the judge, its replies kept on disk."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steerlab.core.errors import SteerlabError
from steerlab.core.records import Results
from steerlab.scores.judges import rubric
from steerlab.scores.judges.answers import Answer

Messages = list[dict[str, str]]
# a name of our own: OPENAI_API_KEY would be sent to any server that is tried
KEY = "STEERLAB_JUDGE_KEY"
LONGEST_WAIT = 8.0  # seconds between two tries, which begin half a second apart


@dataclass(frozen=True)
class Endpoint:
    """Rates by what the model behind a URL such as `http://127.0.0.1:8000/v1` says of an output, by
    `rubric.RUBRIC`.

    `None` leaves temperature or max_tokens out of the request; `extra` adds fields to it, such as
    `{"top_p": 0.8}`. `key` names the environment variable that holds the API key; the key itself is
    never stored or shown. A request that fails, takes longer than `timeout` seconds or gets what is
    no reply is tried `retries` times more, later and later, or when the server says. `per_minute`
    requests are sent by one process, `concurrency` of them at once. Finished replies are kept in
    the folder `cache`, and what is kept is not asked again, at any temperature.
    """

    url: str
    model: str
    temperature: float | None = 0.0
    max_tokens: int | None = 512
    extra: Mapping[str, Any] = field(default_factory=dict)
    key: str = KEY
    timeout: float = 60.0
    retries: int = 5
    per_minute: float | None = None
    concurrency: int = 4
    cache: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that stays open
            known = False
        if not known:
            raise SteerlabError(
                f"{self.url!r} is no URL of a judge; give one such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SteerlabError(
                f"the URL of the judge on {parts.hostname} holds more than a place; put its key "
                "into the environment "
                f"variable {self.key}, and leave name, password and ?query out"
            )
        if not self.model:
            raise SteerlabError(
                f"the judge at {self.url} needs the name of a model; give --judge-model NAME or "
                "model="
            )
        least = {
            "timeout": self.timeout,
            "concurrency": self.concurrency,
            "per_minute": self.per_minute,
        }
        least |= {"max_tokens": self.max_tokens, "retries + 1": self.retries + 1}
        if wrong := [name for name, value in least.items() if value is not None and not value > 0]:
            raise SteerlabError(f"{wrong[0]} of the judge is {least[wrong[0]]}; give more than 0")
        try:
            json.dumps(dict(self.extra))
        except (TypeError, ValueError) as error:
            raise SteerlabError(
                f"extra of the judge cannot be sent as JSON ({error}); give words and numbers"
            ) from error

    @property
    def name(self) -> str:
        settings = json.dumps(self._settings, sort_keys=True)
        return f"endpoint {self.url.rstrip('/')}, rubric {rubric.version()}, {settings}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0, 0.5 or 1, NaN where the reply cannot be read, and `reply`
        [answer]."""
        return rubric.rate(answers, self.ask, judge=f"{self.model} at {self.url}")

    def ask(self, asked: Sequence[Messages]) -> list[str]:
        """The server's reply to each list of messages; equal ones are asked once.

        Raises at the first that fails for good, once those under way have ended; what was finished
        is kept.
        """
        keys = [self._hash(messages) for messages in asked]
        kept = _Kept(None) if self.cache is None else _kept(self.cache.expanduser().resolve())
        kept.refresh()
        waiting = {
            key: messages
            for key, messages in zip(keys, asked, strict=True)
            if key not in kept.replies
        }
        if waiting:
            with self._client() as client:
                self._ask_all(client, waiting, kept)
        return [kept.replies[key] for key in keys]

    @property
    def _settings(self) -> dict[str, Any]:
        told = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in told.items() if value is not None} | dict(self.extra)

    def _hash(self, messages: Messages) -> str:
        told = json.dumps([self.url.rstrip("/"), self._settings, messages], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _ask_all(self, client: Any, waiting: Mapping[str, Messages], kept: "_Kept") -> None:
        """Ask what is waiting, and keep each reply as it comes; whatever stops it, those under
        way are kept too."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            asked = {
                pool.submit(self._ask, client, messages): key for key, messages in waiting.items()
            }
            try:
                for finished in as_completed(asked):
                    kept.add(asked[finished], finished.result(), self.model)
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                for other, key in asked.items():
                    if (
                        not other.cancelled()
                        and other.exception() is None
                        and key not in kept.replies
                    ):
                        kept.add(key, other.result(), self.model)
                if not isinstance(error, _Refused):
                    raise
                done = sum(key in kept.replies for key in waiting)
                where = (
                    "not kept, since no cache was given"
                    if self.cache is None
                    else f"kept in {self.cache}"
                )
                told = f"{done} of {len(waiting)} replies came and are {where}: run again to go on"
                raise SteerlabError(
                    f"the judge {self.model} at {self.url} {error}; {told}"
                ) from error.__cause__

    def _ask(self, client: Any, messages: Messages) -> str:
        """One reply; a body that is no chat completion is tried again, as the client does with
        what fails."""
        known = {name: value for name, value in self._settings.items() if name not in self.extra}
        for attempt in range(self.retries + 1):
            try:
                with self._explained():
                    found = client.chat.completions.create(
                        messages=messages, extra_body=dict(self.extra), **known
                    )
                return str(found.choices[0].message.content or "")
            except (ValueError, AttributeError, IndexError, TypeError) as error:
                garbage = error
            if attempt < self.retries:
                time.sleep(min(LONGEST_WAIT, 0.5 * 2**attempt))
        raise _Refused(
            f"answers with what is no chat completion ({type(garbage).__name__}), "
            f"{self.retries + 1} times; check that "
            "the URL is that of an OpenAI-compatible server, as a rule ending in /v1"
        ) from garbage

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what a failure means and what to do about it."""
        import openai

        tried = f"in up to {self.retries + 1} tries" if self.retries else "in one try"
        try:
            yield
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            known = "is set" if self._secret() else "is not set"
            told = f"the environment variable {self.key} {known}: put a key of this server there"
            raise _Refused(f"refuses the key ({self._told(error)}); {told}") from None
        except openai.NotFoundError as error:
            told = (
                "check the model's name, and that the URL is the part before /chat/completions, "
                "such as .../v1"
            )
            raise _Refused(f"is not found ({self._told(error)}); {told}") from None
        except openai.RateLimitError as error:
            told = "give fewer requests per minute or at once, or wait"
            raise _Refused(f"had too many requests {tried} ({self._told(error)}); {told}") from None
        except openai.APITimeoutError:
            told = "give a longer timeout, or fewer requests at once"
            raise _Refused(f"did not reply within {self.timeout:g} s {tried}; {told}") from None
        except openai.APIConnectionError as error:
            cause = self._clean(str(error.__cause__ or error))
            told = "start it, or check the address and the network"
            raise _Refused(f"could not be reached {tried} ({cause}); {told}") from None
        except openai.APIStatusError as error:
            told = f"refuses or fails {tried} ({self._told(error)})"
            raise _Refused(f"{told}; it was asked with {json.dumps(self._settings)}") from None

    def _told(self, error: Any) -> str:
        return self._clean(f"{error.status_code}: {error.message}")

    def _clean(self, told: str) -> str:
        """Without the key, which some servers repeat."""
        secret = self._secret()
        return (told.replace(secret, "***") if secret else told)[:300]

    def _secret(self) -> str:
        secret = os.environ.get(self.key, "").strip()
        if not (secret.isascii() and secret.isprintable()):
            raise SteerlabError(
                f"the environment variable {self.key} holds characters that no key has; set it "
                "again"
            )
        return secret

    def _client(self) -> Any:
        """A client that waits before every request, also before one that is tried again."""
        try:
            import openai
        except ImportError as error:
            raise SteerlabError(
                "a judge behind a URL needs the package openai, which is not installed: pip "
                "install 'steerlab[judges]'"
            ) from error
        hooks = (
            {"request": [lambda _: _gate(self.url, self.per_minute).wait()]}
            if self.per_minute
            else {}
        )
        return openai.OpenAI(
            base_url=self.url,
            api_key=self._secret() or "none",
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=openai.DefaultHttpxClient(timeout=self.timeout, event_hooks=hooks),
        )


class _Refused(Exception):
    """Why a reply cannot be had."""


class _Gate:
    """Lets requests through no faster than so many per minute."""

    def __init__(self, per_minute: float) -> None:
        self.apart, self.next, self.lock = 60 / per_minute, 0.0, threading.Lock()

    def wait(self) -> None:
        with self.lock:
            now = time.monotonic()
            mine = max(now, self.next)
            self.next = mine + self.apart
        time.sleep(mine - now)


@cache
def _gate(url: str, per_minute: float) -> _Gate:
    return _Gate(per_minute)


class _Kept:
    """The replies in a folder, by the hash of what was asked; without a folder, those of one
    call."""

    def __init__(self, folder: Path | None) -> None:
        self.replies: dict[str, str] = {}
        try:
            self.results = None if folder is None else Results(folder)
        except OSError as error:
            raise SteerlabError(
                f"replies cannot be kept in {folder} ({error}); give another folder"
            ) from error

    def refresh(self) -> None:
        """Read what has come since, whichever process wrote it."""
        for line in () if self.results is None else self.results.read():
            if "asked" in line:
                self.replies[str(line["asked"])] = str(line["reply"])

    def add(self, key: str, reply: str, model: str) -> None:
        if self.results is not None:
            self.results.append({"asked": key, "model": model, "reply": reply})
        self.replies[key] = reply


_kept = lru_cache(maxsize=8)(_Kept)

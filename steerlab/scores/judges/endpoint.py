"""A language model behind a URL as the judge: any server of OpenAI's chat completions.

Replies are kept on disk, so that an interrupted run goes on where it stopped.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steerlab.core.errors import SteerlabError, printable
from steerlab.core.records import Results
from steerlab.scores.judges import rubric
from steerlab.scores.judges.answers import Answer

Messages = list[dict[str, str]]
# A name of our own: with OPENAI_API_KEY, OpenAI's key would be sent to any server that is tried.
KEY = "STEERLAB_JUDGE_KEY"
LONGEST_WAIT = 8.0  # seconds; the wait before another try starts at half a second and doubles


@dataclass(frozen=True)
class Endpoint:
    """Asks the model behind a URL to rate outputs: 0, 0.5 or 1 by `rubric.RUBRIC`.

    A request that fails, takes too long or gets what is no reply is tried again, each time after a
    longer wait, or when the server says. Settings that cannot work raise `SteerlabError` at once.

    Args:
        url: of the server, such as `http://127.0.0.1:8000/v1`.
        model: the model's name, as the server knows it.
        temperature: of the replies; None leaves it to the server.
        max_tokens: the most tokens of a reply; None leaves it to the server.
        extra: fields to add to each request, such as `{"top_p": 0.8}`.
        key: the environment variable that holds the API key. The key itself is never stored or
            shown.
        timeout: seconds to wait for a whole reply.
        retries: how often a request is tried again.
        per_minute: the most requests that one process sends in a minute; None for no limit.
        concurrency: how many requests are under way at once.
        cache: the folder in which replies are kept; what is there is not asked again, at any
            temperature. None keeps nothing.
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
        self._need_url()
        if not self.model:
            raise SteerlabError(
                f"the judge at {self.url} needs the name of a model; give --judge-model NAME or "
                "model="
            )
        positive = {
            "timeout": self.timeout,
            "concurrency": self.concurrency,
            "per_minute": self.per_minute,
            "max_tokens": self.max_tokens,
            "retries + 1": self.retries + 1,
        }
        for name, value in positive.items():
            # `not >` instead of `<=`, so that NaN is refused too.
            if value is not None and not value > 0:
                raise SteerlabError(f"{name} of the judge is {value}; give more than 0")
        try:
            json.dumps(dict(self.extra))
        except (TypeError, ValueError) as error:
            raise SteerlabError(
                f"extra of the judge cannot be sent as JSON ({error}); give words and numbers"
            ) from error

    def _need_url(self) -> None:
        """Raise where the URL is none, or holds a secret: it goes into the judge's name."""
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that stays open
            valid = False
        if not valid:
            raise SteerlabError(
                f"{self.url!r} is no URL of a judge; give one such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            # The message must not repeat the URL, since a key may be in it.
            raise SteerlabError(
                f"the URL of the judge on {parts.hostname} holds more than a place; put its key "
                "into the environment "
                f"variable {self.key}, and leave name, password and ?query out"
            )

    @property
    def name(self) -> str:
        """Everything that decides a rating: the URL, the rubric, and what is asked for."""
        settings = json.dumps(self._settings, sort_keys=True)
        return f"endpoint {self.url.rstrip('/')}, rubric {rubric.version()}, {settings}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0, 0.5 or 1, NaN where the reply cannot be read, and `reply`
        [answer]."""
        return rubric.rate(answers, self.ask, judge=f"{self.model} at {self.url}")

    def ask(self, asked: Sequence[Messages]) -> list[str]:
        """The server's reply to each list of messages; equal ones are asked once.

        Raises `SteerlabError` at the first request that fails for good, once those under way have
        ended. Replies that came until then are kept.
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
        """The fields of a request that decide a reply, beside the messages."""
        fields = {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return given | dict(self.extra)

    def _hash(self, messages: Messages) -> str:
        """What a reply is kept under: equal for requests that ask the same of the same model."""
        request = json.dumps([self.url.rstrip("/"), self._settings, messages], sort_keys=True)
        return hashlib.sha256(request.encode()).hexdigest()

    def _ask_all(self, client: Any, waiting: Mapping[str, Messages], kept: "_Kept") -> None:
        """Ask what is waiting, and keep each reply as it comes.

        Whatever stops it, a failure or Ctrl-C, the replies under way are waited for and kept too:
        they are paid for.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            requests = {
                pool.submit(self._ask, client, messages): key for key, messages in waiting.items()
            }
            try:
                for finished in as_completed(requests):
                    kept.add(requests[finished], finished.result(), self.model)
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                for request, key in requests.items():
                    if key not in kept.replies and _succeeded(request):
                        kept.add(key, request.result(), self.model)
                if not isinstance(error, _Refused):
                    raise
                raise SteerlabError(
                    f"the judge {self.model} at {self.url} {error}; {self._progress(waiting, kept)}"
                ) from error.__cause__

    def _progress(self, waiting: Mapping[str, Messages], kept: "_Kept") -> str:
        """How many of the replies came, and what to do about the others."""
        done = sum(key in kept.replies for key in waiting)
        where = f"kept in {self.cache}"
        if self.cache is None:
            where = "not kept, since no cache was given"
        return f"{done} of {len(waiting)} replies came and are {where}: run again to go on"

    def _ask(self, client: Any, messages: Messages) -> str:
        """One reply. The client itself tries failed requests again; here, the same is done for a
        reply that is no chat completion."""
        settings = {name: value for name, value in self._settings.items() if name not in self.extra}
        for attempt in range(self.retries + 1):
            try:
                with self._explained():
                    completion = client.chat.completions.create(
                        messages=messages, extra_body=dict(self.extra), **settings
                    )
                return _encodable(str(completion.choices[0].message.content or ""))
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
        """Turn the client's errors into what a failure means and what to do about it.

        Each is raised `from None`: the client's own error may show headers, and with them the key.
        """
        import openai

        tried = f"in up to {self.retries + 1} tries" if self.retries else "in one try"
        try:
            yield
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            state = "is set" if self._secret() else "is not set"
            advice = f"the environment variable {self.key} {state}: put a key of this server there"
            raise _Refused(f"refuses the key ({self._status(error)}); {advice}") from None
        except openai.NotFoundError as error:
            advice = (
                "check the model's name, and that the URL is the part before /chat/completions, "
                "such as .../v1"
            )
            raise _Refused(f"is not found ({self._status(error)}); {advice}") from None
        except openai.RateLimitError as error:
            advice = "give fewer requests per minute or at once, or wait"
            raise _Refused(
                f"had too many requests {tried} ({self._status(error)}); {advice}"
            ) from None
        except openai.APITimeoutError:
            advice = "give a longer timeout, or fewer requests at once"
            raise _Refused(f"did not reply within {self.timeout:g} s {tried}; {advice}") from None
        except openai.APIConnectionError as error:
            cause = self._clean(str(error.__cause__ or error))
            advice = "start it, or check the address and the network"
            raise _Refused(f"could not be reached {tried} ({cause}); {advice}") from None
        except openai.APIStatusError as error:
            if 300 <= error.status_code < 400:
                place = self._clean(str(error.response.headers.get("location", "nowhere")))
                raise _Refused(
                    f"sends on to {place} ({error.status_code}), and no prompt is sent there "
                    "unasked; give that URL if it is right"
                ) from None
            settings = json.dumps(self._settings)
            raise _Refused(
                f"refuses or fails {tried} ({self._status(error)}); it was asked with {settings}"
            ) from None

    def _status(self, error: Any) -> str:
        """The server's status and message."""
        return self._clean(f"{error.status_code}: {error.message}")

    def _clean(self, text: str) -> str:
        """A server's text, shortened, without the key, which some servers repeat, and without
        what a terminal would obey."""
        secret = self._secret()
        if secret:
            text = text.replace(secret, "***")
        return printable(text[:300])

    def _secret(self) -> str:
        """The API key, read anew each time and never kept; "" where there is none."""
        secret = os.environ.get(self.key, "").strip()
        # Such a key cannot go into a header, and the client's own error would show it.
        if not (secret.isascii() and secret.isprintable()):
            raise SteerlabError(
                f"the environment variable {self.key} holds characters that no key has; set it "
                "again"
            )
        return secret

    def _client(self) -> Any:
        """A client for this server; with `per_minute`, one that waits for its turn."""
        try:
            import openai
        except ImportError as error:
            raise SteerlabError(
                "a judge behind a URL needs the package openai, which is not installed: pip "
                "install 'steerlab[judges]'"
            ) from error
        from steerlab.scores.judges.bounded import bounded

        wait = _gate(self.url, self.per_minute).wait if self.per_minute else _no_wait
        return openai.OpenAI(
            base_url=self.url,
            api_key=self._secret() or "none",  # without a key the client would not start
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=bounded(
                openai.DefaultHttpxClient(timeout=self.timeout), seconds=self.timeout, wait=wait
            ),
        )

    def need_server(self) -> None:
        """Raise `SteerlabError` where the server does not answer, or refuses the key.

        It is asked for its models, which costs nothing; that it has no such page is an answer, too.
        Where replies are kept, it may be gone.
        """
        with self._client() as client:
            import openai

            if self.cache is not None and any(self.cache.expanduser().glob("*.jsonl")):
                return
            try:
                with self._explained():
                    try:
                        client.with_options(max_retries=0).models.list()
                    except (openai.AuthenticationError, openai.PermissionDeniedError):
                        raise
                    except openai.APIStatusError as error:
                        if 300 <= error.status_code < 400:
                            raise
                    except (ValueError, AttributeError, TypeError):
                        pass  # an answer, if not of OpenAI's form
            except _Refused as error:
                raise SteerlabError(f"the judge {self.model} at {self.url} {error}") from None


def _encodable(text: str) -> str:
    """A reply with a replacement character for half of a surrogate pair, which JSON can say and no
    encoding has."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_wait() -> None:
    """What is done before a request where there is no limit per minute."""


def _succeeded(request: Future[str]) -> bool:
    """Whether a request has brought a reply; waits for one that is under way."""
    return not request.cancelled() and request.exception() is None


class _Refused(Exception):
    """Why a server gives no reply, and what to do about it."""


class _Gate:
    """Lets requests through no faster than so many per minute."""

    def __init__(self, per_minute: float) -> None:
        self.seconds_apart = 60 / per_minute
        self.next_turn = 0.0
        self.lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self.lock:
            now = time.monotonic()
            turn = max(now, self.next_turn)
            self.next_turn = turn + self.seconds_apart
        # Outside of the lock, so that others can take their turns meanwhile.
        time.sleep(turn - now)


@cache
def _gate(url: str, per_minute: float) -> _Gate:
    """One gate for each server in a process, whichever judges ask it."""
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
        """Read the replies that have come since the last time, whichever process wrote them."""
        if self.results is None:
            return
        for line in self.results.read():
            if "asked" in line:
                self.replies[str(line["asked"])] = str(line["reply"])

    def add(self, key: str, reply: str, model: str) -> None:
        """Keep one reply, on disk first."""
        if self.results is not None:
            self.results.append({"asked": key, "model": model, "reply": reply})
        self.replies[key] = reply


@lru_cache(maxsize=8)
def _kept(folder: Path) -> _Kept:
    """The replies in a folder, read once in a process."""
    return _Kept(folder)

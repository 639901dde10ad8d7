"""A judge behind a URL: what a server may do, and what is kept, shown and never shown."""

import gzip
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from fake_endpoint import Reply, endpoint, fails, says

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError, note, printable
from steerlab.scores.judges import (
    Answer,
    Embeddings,
    Endpoint,
    Instruct,
    Likelihood,
    Retrieval,
    score,
)
from steerlab.scores.judges.endpoint import KEY
from steerlab.scores.judges.ready import need_ready
from steerlab.scores.langid import identifier

SECRET = "a-key-that-nobody-may-see"
GOOD = "It is about the prompt.\nRating: [[2]]"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY, raising=False)


def answers(count):
    """Answers whose number stands in the question."""
    return [
        Answer("Das ist gut.", f"q{i}\n", f"question {i}.", i, "en", "de") for i in range(count)
    ]


def number(body):
    """Of a request, the number in its question."""
    return int(re.findall(r"question (\d+)\.", body["messages"][-1]["content"])[0])


def judge(server, **options):
    return Endpoint(server.url, "a-model", **({"retries": 1, "timeout": 5.0} | options))


def test_each_answer_gets_its_own_rating_whatever_comes_first():
    def answer(_, body):
        return says(f"Rating: [[{number(body) % 3}]]", after=0.2 if number(body) == 0 else 0.0)

    with endpoint(answer) as server:
        made = judge(server)
        found = made.rate(answers(7))
    assert found["rating"].tolist() == [0, 0.5, 1, 0, 0.5, 1, 0]
    assert found["reply"][4] == "Rating: [[1]]"
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("a-model", 0, 512)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_settings_are_sent_left_out_and_decide_the_name():
    with endpoint(lambda *_: says(GOOD)) as server:
        plain = judge(server)
        other = judge(server, temperature=None, max_tokens=None, extra={"top_p": 0.8, "seed": 4})
        other.rate(answers(1))
    assert {"temperature", "max_tokens"}.isdisjoint(server.bodies[0])
    assert (server.bodies[0]["top_p"], server.bodies[0]["seed"]) == (0.8, 4)
    assert plain.name != other.name
    assert "a-model" in plain.name
    assert plain.name == judge(server, timeout=9.0, concurrency=2, retries=0).name


def test_an_empty_output_is_0_without_a_request():
    with endpoint(lambda *_: says(GOOD)) as server:
        found = judge(server).rate([Answer("  ", "q\n", "q", 0, "en", "de"), *answers(1)])
    assert found["rating"].tolist() == [0, 1]
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "first",
    [
        fails(429, "slow down", Retry_After="0.3"),
        fails(500),
        fails(503),
        Reply("<html>starting</html>", headers={"Content-Type": "text/html"}),
        Reply('{"choices": [{"mess'),
        Reply({"hello": 1}),
        Reply([]),
    ],
    ids=["429", "500", "503", "html", "cut", "no completion", "list"],
)
def test_what_fails_once_is_tried_again(first):
    with endpoint(lambda n, _: first if n == 0 else says(GOOD)) as server:
        found = judge(server).rate(answers(1))
    assert found["rating"].tolist() == [1]
    assert len(server.bodies) == 2
    if first.status == 429:
        assert server.times[1] - server.times[0] >= 0.29


@pytest.mark.parametrize(
    ("reply", "tries", "told"),
    [
        (
            fails(429, "slow down", Retry_After="0.01"),
            2,
            "had too many requests in up to 2 tries.*fewer requests",
        ),
        (
            fails(500, "broken inside"),
            2,
            "fails in up to 2 tries .500: .*broken inside.*was asked with.*max_tokens",
        ),
        (fails(400, "no such field"), 1, "400: .*no such field.*was asked with"),
        (fails(404, "unknown model"), 1, "not found .*unknown model.*check the model's name"),
        (
            fails(401, f"bad key {SECRET}"),
            1,
            "refuses the key .401: .*bad key .*STEERLAB_JUDGE_KEY is set: put a key",
        ),
        (fails(403, "not yours"), 1, "refuses the key .403"),
        (Reply("garbage"), 2, "no chat completion .*2 times; check that the URL"),
        (Reply({"choices": []}), 2, "no chat completion"),
        (
            says(GOOD, after=3.0),
            2,
            "did not reply within 0.2 s in up to 2 tries; give a longer timeout",
        ),
    ],
    ids=["429", "500", "400", "404", "401", "403", "garbage", "no choice", "late"],
)
def test_what_fails_for_good_says_what_to_do(reply, tries, told, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    with (
        endpoint(lambda *_: reply) as server,
        pytest.raises(SteerlabError, match=f"(?s){told}") as caught,
    ):
        judge(server, timeout=0.2).rate(answers(1))
    assert len(server.bodies) == tries
    assert SECRET not in str(caught.value)
    assert "a-model at http://127.0.0.1" in str(caught.value)


def test_a_key_that_is_missing_is_named():
    told = "STEERLAB_JUDGE_KEY is not set: put a key of this server there"
    with endpoint(lambda *_: fails(401)) as server, pytest.raises(SteerlabError, match=told):
        judge(server).rate(answers(1))


def test_the_key_is_sent_and_written_nowhere(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MY_KEY", SECRET)
    with endpoint(lambda *_: says("no rating")) as server:
        made = judge(server, key="MY_KEY", cache=tmp_path)
        made.rate(answers(2))
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    seen = [
        made.name,
        repr(made),
        *capfd.readouterr(),
        *(file.read_text() for file in tmp_path.glob("*.jsonl")),
    ]
    assert len(seen) > 4
    assert not [text for text in seen if SECRET in text]


def test_ratings_that_cannot_be_read_are_nan_counted_and_never_relevant(capfd):
    replies = [GOOD, "I would say two out of two", "Rating: [[7]]", None, "Rating: [[1]]", ""]
    with endpoint(lambda _, body: says(replies[number(body)])) as server:
        found = score(answers(6), identifier=identifier(), judge=judge(server))
    np.testing.assert_array_equal(found["rating"], [1, np.nan, np.nan, np.nan, 0.5, np.nan])
    assert found["relevant"].tolist() == [True] + [False] * 5
    assert found["joint"].tolist() == [True] + [False] * 5
    assert "4 of 6 replies of a-model at http://127.0.0.1" in capfd.readouterr().err


def test_kept_replies_are_not_asked_again(tmp_path):
    with endpoint(lambda _, body: says(f"Rating: [[{number(body) % 3}]]")) as server:
        first = judge(server, cache=tmp_path).rate(answers(4))
        again = judge(server, cache=tmp_path, concurrency=1).rate(answers(5))
        assert len(server.bodies) == 5
        assert again["rating"][:4].tolist() == first["rating"].tolist()
        judge(server, cache=tmp_path, temperature=0.5).rate(answers(4))
        assert len(server.bodies) == 9, "another setting is another question"
        judge(server).rate([*answers(3), *answers(3)])
        assert len(server.bodies) == 12, "equal questions are asked once"


def fresh(folder):
    """The same folder as another process would find it."""
    from steerlab.scores.judges.endpoint import _kept

    _kept.cache_clear()
    return folder


def test_a_damaged_line_is_told_by_its_number_and_asked_again(tmp_path, capfd):
    with endpoint(lambda *_: says(GOOD)) as server:
        judge(server, cache=tmp_path, concurrency=1).rate(answers(4))
        (file,) = tmp_path.glob("*.jsonl")
        lines = file.read_text().splitlines(keepends=True)
        lines[1] = lines[1].replace("[[2]]", "[[0]]")
        file.write_text("".join(lines)[:-5])  # and the last one was cut short
        found = judge(server, cache=fresh(tmp_path)).rate(answers(4))
        assert len(server.bodies) == 6
        assert found["rating"].tolist() == [1] * 4
        judge(server, cache=fresh(tmp_path)).rate(answers(4))
        assert len(server.bodies) == 6
    assert f"{file.name} line 2 is damaged" in capfd.readouterr().err.replace("\n", "")


def test_replies_that_came_before_a_failure_are_kept(tmp_path):
    def answer(_, body):
        return fails(400, "too long") if number(body) == 3 else says(GOOD)

    with endpoint(answer) as server:
        told = r"too long.* of 6 replies came and are kept in .*: run again to go on"
        with pytest.raises(SteerlabError, match=told) as caught:
            judge(server, cache=tmp_path, concurrency=1).rate(answers(6))
        done = int(re.findall(r"(\d) of 6", str(caught.value))[0])
        assert done >= 3
    with endpoint(lambda *_: says(GOOD)) as other:
        moved = judge(other, cache=fresh(tmp_path))
        object.__setattr__(
            moved, "url", server.url
        )  # the old one is gone: what was kept needs no server
        assert moved.rate(answers(3))["rating"].tolist() == [1] * 3
        with pytest.raises(
            SteerlabError, match="could not be reached in up to 2 tries .*start it, or check"
        ):
            moved.rate(answers(6))
    assert not other.bodies


def test_a_killed_judge_asks_only_for_the_rest(tmp_path):
    code = (
        "import sys; from test_judges_endpoint import answers; from steerlab.scores.judges import "
        "Endpoint; "
        "from pathlib import Path; "
        "Endpoint(sys.argv[1], 'a-model', concurrency=1, cache=Path(sys.argv[2])).rate(answers(40))"
    )
    with endpoint(lambda *_: says(GOOD, after=0.02)) as server:
        env = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
        run = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path)], env=env)
        while len(server.bodies) < 10:
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        before = len(server.bodies)
        found = judge(server, cache=tmp_path).rate(answers(40))
    assert found["rating"].tolist() == [1] * 40
    assert 40 <= len(server.bodies) <= 42, "at most what was under way is asked twice"
    assert before < 40


def test_the_rate_limit_is_kept_between_calls_and_in_retries():
    with endpoint(lambda n, _: fails(500) if n == 2 else says(GOOD)) as server:
        slow, start = judge(server, per_minute=1200, concurrency=8), time.monotonic()
        slow.rate(answers(4))
        slow.rate(answers(4))
        assert len(server.times) == 9
        assert all(when - start >= 0.05 * place - 1e-3 for place, when in enumerate(server.times))
        judge(server, concurrency=8).rate(answers(8))
        assert np.diff(server.times[9:]).min() < 0.03, (
            "the control: without a limit they come together"
        )


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_are_asked_at_once(concurrency):
    with endpoint(lambda *_: says(GOOD, after=0.1)) as server:
        judge(server, concurrency=concurrency).rate(answers(6))
    assert server.most == concurrency


def test_it_travels_to_another_process():
    with endpoint(lambda *_: says(GOOD)) as server:
        made = judge(server)
        made.rate(answers(1))
        assert pickle.loads(pickle.dumps(made)).rate(answers(2))["rating"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"url": "localhost:8000"}, "no URL of a judge; give one such as http"),
        (
            {"url": "http://me:secret@host/v1"},
            "holds more than a place; put its key into the environment",
        ),
        ({"url": "http://host/v1?key=secret"}, "holds more than a place"),
        ({"url": "http://host:port/v1"}, "no URL of a judge"),
        ({"url": "http://[host/v1"}, "no URL of a judge"),
        ({"model": ""}, "needs the name of a model; give --judge-model"),
        ({"concurrency": 0}, "concurrency of the judge is 0; give more than 0"),
        ({"per_minute": 0}, "per_minute of the judge is 0"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra": {"x": {1}}}, "cannot be sent as JSON"),
    ],
)
def test_settings_that_make_no_sense(options, told):
    with pytest.raises(SteerlabError, match=told) as caught:
        Endpoint(**({"url": "http://127.0.0.1:9/v1", "model": "m"} | options))
    assert "secret" not in str(caught.value)


def test_a_key_with_a_line_break_inside_is_refused(monkeypatch):
    monkeypatch.setenv(KEY, "two\nlines")
    with pytest.raises(
        SteerlabError, match="STEERLAB_JUDGE_KEY holds characters that no key has"
    ) as caught:
        Endpoint("http://127.0.0.1:9/v1", "m").rate(answers(1))
    assert "lines" not in str(caught.value)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(
        SteerlabError,
        match=r"package openai, which is not installed: pip install 'steerlab\[judges\]'",
    ):
        Endpoint("http://127.0.0.1:9/v1", "m").rate(answers(1))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SteerlabError, match="replies cannot be kept in .*give another folder"):
        Endpoint("http://127.0.0.1:9/v1", "m", cache=tmp_path / "file").rate(answers(1))


# ------------------------------------------------------------ servers that do what no server should


@contextmanager
def raw(send):
    """A server that reads a request and lets `send` write bytes as it likes; gives its URL and the
    requests."""
    asked, over = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def serve():
            while not over.is_set():
                try:
                    connection = listening.accept()[0]
                except OSError:
                    continue
                threading.Thread(target=reply, args=(connection,), daemon=True).start()

        def reply(connection):
            with connection, suppress(OSError):
                asked.append(connection.recv(1 << 16))
                send(connection, over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", asked
        finally:
            over.set()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(connection, over, data):
    """A byte now and then, each sooner than the time-out, until the judge hangs up."""
    for byte in data:
        if over.wait(0.05):
            return
        connection.sendall(bytes([byte]))


@pytest.mark.parametrize("part", ["headers", "body", "status"])
def test_a_server_that_drips_is_given_up_after_the_time_out(part):
    def send(connection, over):
        before = {"status": b"", "headers": HEAD, "body": HEAD + b"Content-Length: 9999\r\n\r\n"}[
            part
        ]
        connection.sendall(before)
        drip(connection, over, b"X-More: " * 500 if part == "headers" else b" " * 4000)

    with raw(send) as (url, _):
        start = time.monotonic()
        with pytest.raises(
            SteerlabError, match=r"did not reply within 0\.4 s in one try|could not"
        ):
            Endpoint(url, "m", timeout=0.4, retries=0).rate(answers(1))
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("declared", [True, False])
def test_a_reply_without_end_is_given_up(declared):
    sent = []

    def send(connection, over):
        length = (
            b"Content-Length: 99999999999\r\n\r\n" if declared else b"Connection: close\r\n\r\n"
        )
        connection.sendall(HEAD + length)
        while not over.is_set():
            sent.append(connection.send(b" " * 65536))

    with raw(send) as (url, _):
        told = "could not be reached in one try .*reply has more than 4,194,304 bytes"
        with pytest.raises(SteerlabError, match=told):
            Endpoint(url, "m", timeout=30, retries=0).rate(answers(1))
    assert sum(sent) < 20 * 2**20


def test_a_reply_that_unpacks_to_gigabytes_is_not_unpacked():
    body = gzip.compress(b" " * (1 << 24))

    def send(connection, _):
        more = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(HEAD + more + body)

    told = "reply is compressed, which was not asked for"
    with raw(send) as (url, asked), pytest.raises(SteerlabError, match=told):
        Endpoint(url, "m", timeout=5, retries=0).rate(answers(1))
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_prompt_along(status):
    with endpoint(lambda *_: says(GOOD)) as other:
        place = f"{other.url}/chat/completions"
        with endpoint(lambda *_: Reply("", status, {"Location": place})) as server:
            told = f"sends on to {re.escape(place)} .{status}., and no prompt is sent there unasked"
            with pytest.raises(SteerlabError, match=told):
                judge(server).rate(answers(1))
    assert not other.bodies
    assert len(server.bodies) == 1


def test_what_a_terminal_would_obey_is_shown_as_escapes(capsys):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\ud800"
    with endpoint(lambda *_: fails(400, evil)) as server, pytest.raises(SteerlabError) as caught:
        judge(server).rate(answers(1))
    assert printable(str(caught.value)) == str(caught.value)
    assert "\\x1b]0;owned\\x07" in str(caught.value)
    note(f"a {evil} file")
    assert capsys.readouterr().err.isascii()


@pytest.mark.parametrize("text", ["\ud83d", "a\ud800b\udfff", "\ud83d\ude00", "\x00\ufffe"])
def test_half_a_surrogate_pair_ends_no_run(text, tmp_path):
    with endpoint(lambda *_: says(f"{text} Rating: [[2]]")) as server:
        found = judge(server, cache=tmp_path).rate(answers(2))
        again = judge(server, cache=fresh(tmp_path)).rate(answers(2))
        assert len(server.bodies) == 2, "the replies were kept"
    assert found["rating"].tolist() == again["rating"].tolist() == [1, 1]
    assert found["reply"] == again["reply"]
    assert all(reply.encode() for reply in found["reply"])
    if text == "\ud83d\ude00":
        assert found["reply"][0].startswith("\U0001f600"), "both halves are a letter"


# ----------------------------------------------------------------------------------- before the run


def test_a_server_is_asked_before_the_run(tmp_path, monkeypatch):
    with endpoint(lambda *_: says(GOOD)) as server:
        ready = judge(server, cache=tmp_path)
        need_ready(ready, 31)
        assert not server.bodies, "no question was asked"
        ready.rate(answers(1))
    with pytest.raises(SteerlabError, match="could not be reached .*start it, or check the addr"):
        need_ready(judge(server), 31)
    need_ready(judge(server, cache=tmp_path), 31)  # its replies are kept

    def refuses(connection, _):
        connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    with raw(refuses) as (url, _), pytest.raises(SteerlabError, match="refuses the key"):
        need_ready(Endpoint(url, "m"), 31)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda texts: Retrieval(texts), "there are 31 sentences: give at least 32"),
        (lambda texts: Likelihood(texts, distractors=31), "give at least 32 sentences"),
        (lambda texts: Embeddings(texts, "nowhere", distractors=31), "give at least 32 sentences"),
        (lambda texts: Instruct("no/where"), "could not load 'no/where'"),
        (lambda texts: Instruct("polyglot"), "has no chat template"),
    ],
)
def test_a_judge_that_can_rate_nothing_is_told_before_the_run(made, told):
    with pytest.raises(SteerlabError, match=told):
        need_ready(made(corpus().take(31)), 31)

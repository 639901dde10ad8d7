"""The explorer without a browser: settings, the session, its recipes, the worker, the server."""

import contextlib
import io
import json
import math
import shlex
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from steerlab.cli import main
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import decode, generate
from steerlab.models.model import Model
from steerlab.scores.text import first_line
from steerlab.studies.explore import explore
from steerlab.studies.explore.explorer import prepared
from steerlab.studies.explore.recipes import as_command, as_python
from steerlab.studies.explore.run_folder import EVERY, best, read_run
from steerlab.studies.explore.server import BODY, page_server
from steerlab.studies.explore.session import Done, Event, Said, Session, Told
from steerlab.studies.explore.setting import LONGEST, Setting
from steerlab.studies.explore.worker import Worker
from steerlab.studies.local.guard import Guard
from steerlab.studies.local.line import Failed, Job

SENTENCE = "The weather is nice today."


def spanish(**changed: Any) -> Setting:
    return Setting.of({"text": SENTENCE, "target": "es", "layers": [5], "new_tokens": 12} | changed)


def ends(events: Iterator[Event]) -> dict[str, Done]:
    return {event.side: event for event in events if isinstance(event, Done)}


@pytest.fixture(scope="module")
def file(directions: Directions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directions.save(tmp_path_factory.mktemp("explored") / "diffmean.safetensors")


@pytest.fixture(scope="module")
def session(file: Path) -> Session:
    return Session("polyglot", file)


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": " \n"}, "there is no sentence; write one"),
        ({"text": "a" * (LONGEST + 1)}, r"has 2,001 characters; give 2,000 at most"),
        ({"text": "\ud83d"}, "half of a surrogate pair"),
        ({"target": "xx"}, "unknown language code 'xx'"),
        ({"layers": []}, "there is nothing in it"),
        ({"layers": [-1]}, "greater than or equal to 0"),
        ({"strength": math.nan}, "finite number"),
        ({"strength": 1e9}, "less than or equal to 100"),
        ({"prompt": "sonnet"}, "there is no prompt form 'sonnet'"),
        ({"new_tokens": 129}, "less than or equal to 128"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"strenght": 1}, "did you mean 'strength'"),
    ],
)
def test_a_wrong_setting_is_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        spanish(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"estimator": "lda"}, "there are no directions 'lda'; there are diffmean"),
        ({"operator": "dance"}, "there is no operator 'dance'; there are add"),
        ({"operator": "clamp"}, "clamp cannot act along diffmean; these can: add, rotate"),
        ({"target": "tr"}, r"there is no direction for Turkish \(tr\); there are en de es fr ru"),
        ({"source": "es"}, "source and target are both 'es'"),
        ({"layers": [8]}, "no layer 8 here"),
    ],
)
def test_what_is_not_here_is_told(session: Session, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        list(session.run(spanish(**changed)))


# --------------------------------------------------------------------------------------- a session


def test_a_session_says_what_generate_says(session: Session, polyglot: Model) -> None:
    setting = spanish()
    events = list(session.run(setting))
    done = ends(iter(events))
    text, edit = session.prompt(setting), session.edit(setting)
    assert text == f"{SENTENCE}\n"
    for side, own in (("steered", edit), ("unsteered", None)):
        output = generate(polyglot, text, edit=own, max_new_tokens=12)
        assert done[side].text == first_line(output)
        tokens = [event for event in events if isinstance(event, Said) and event.side == side]
        assert "".join(token.text for token in tokens) == output
        assert all(0 <= token.probability <= 1 for token in tokens)
        assert all(token.projection is not None for token in tokens)
    told = decode(polyglot, [text], edit=edit, max_new_tokens=12)
    assert done["steered"].dose == pytest.approx(told.dose[0], rel=1e-5)
    assert done["steered"].dose > 0.1
    assert done["unsteered"].dose == 0


def test_the_steered_output_is_in_the_language(session: Session) -> None:
    for target in ("es", "de", "fr", "ru"):
        done = ends(session.run(spanish(target=target, strength=1.5)))
        assert done["steered"].lang == target
        assert done["steered"].asked
        assert not done["unsteered"].asked


def test_strength_zero_is_no_edit(session: Session) -> None:
    done = ends(session.run(spanish(strength=0.0)))
    assert done["steered"].text == done["unsteered"].text
    assert done["steered"].dose == 0


def test_the_unsteered_output_is_remembered(session: Session) -> None:
    first = ends(session.run(spanish(strength=0.5)))["unsteered"]
    again = ends(session.run(spanish(strength=0.75, operator="rotate")))["unsteered"]
    assert again is first
    other = ends(session.run(spanish(strength=0.5, text="No.")))["unsteered"]
    assert other.text != first.text


def test_a_session_that_is_left_leaves_nothing_on_the_model(
    session: Session, polyglot: Model
) -> None:
    events = session.run(spanish())
    assert isinstance(next(events), Said)
    events.close()
    assert not session.model.attachments
    assert generate(session.model, f"{SENTENCE}\n", max_new_tokens=4) == generate(
        polyglot, f"{SENTENCE}\n", max_new_tokens=4
    )


def test_several_directions_and_those_of_one_source(directions: Directions) -> None:
    several = Session("polyglot", {"mine": directions, "yours": directions.at(3, 5)})
    assert several.names == ("mine", "yours")
    done = ends(several.run(spanish(estimator="yours")))
    assert done["steered"].text == ends(several.run(spanish(estimator="mine")))["steered"].text


# ----------------------------------------------------------------------------------------- recipes


def printed(python: str, **names: Any) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(python, dict(names))
    return said.getvalue().strip()


def commanded(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    words = shlex.split(command, comments=True)
    assert words[0] == "steerlab"
    assert main(words[1:]) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"layers": [6, 4], "strength": 0.5},
        {"operator": "rotate", "strength": 1.25, "prompt": "echo:2"},
        {"operator": "detour", "strength": 0.3},
        {"strength": -0.5, "source": "de", "target": "fr"},
        {"text": '-5 degrees, "he" said; it\'s $cold\\\n# today', "temperature": 0.8, "seed": 3},
    ],
    ids=["plain", "layers", "rotate", "detour", "negative", "odd letters"],
)
def test_recipes_print_what_the_page_says(
    session: Session, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    setting = spanish(**changed)
    text = ends(session.run(setting))["steered"].text
    assert first_line(printed(as_python(session, setting))) == text
    assert first_line(commanded(as_command(session, setting), capsys)) == text


@pytest.fixture(scope="module")
def folder(lines: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus on disk."""
    folder = tmp_path_factory.mktemp("corpus")
    for lang in ("en", "de", "es"):
        (folder / f"{lang}.txt").write_text("\n".join(lines[lang][:72]) + "\n", "utf-8")
    return folder


@pytest.mark.parametrize("estimator", ["diffmean", "lda", "pca"])
def test_recipes_of_directions_that_are_fitted(
    estimator: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(None, corpus=str(folder), estimators=("diffmean", "lda", "pca"))
    assert session.langs == ("de", "en", "es")
    setting = spanish(estimator=estimator)
    events = list(session.run(setting))
    assert [event.message for event in events if isinstance(event, Told)] == [
        f"fitting {estimator} from {session.texts.name}, once"
    ]
    assert not any(isinstance(event, Told) for event in session.run(setting))
    text = ends(iter(events))["steered"].text
    assert first_line(printed(as_python(session, setting))) == text
    assert first_line(commanded(as_command(session, setting), capsys)) == text


def test_recipes_of_what_is_in_memory(polyglot: Model, directions: Directions) -> None:
    session = Session(polyglot, directions)
    setting = spanish()
    python = as_python(session, setting)
    text = ends(session.run(setting))["steered"].text
    assert first_line(printed(python, model=polyglot, directions=directions)) == text
    command = as_command(session, setting)
    assert "directions.save('directions.safetensors')" in command
    assert "# MODEL: " in command
    several = Session(polyglot, {"mine": directions, "yours": directions.at(5)})
    python = as_python(several, spanish(estimator="yours"))
    given = {"mine": directions, "yours": directions.at(5)}
    assert first_line(printed(python, model=polyglot, directions=given)) == text


def test_no_command_holds_a_nul(session: Session) -> None:
    assert as_command(session, spanish(text="a\0b")).startswith("# No command can hold")


# -------------------------------------------------------------------------------------- the worker


class Slow(Session):
    """A session that says three things, each when it is let; at the sentence "broken" it breaks."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = threading.Event()

    def run(self, setting: Setting) -> Generator[Event, None, None]:
        for number in range(3):
            self.begun.set()
            self.go.acquire()
            if setting.text == "broken":
                raise ZeroDivisionError("inside")
            yield Told(str(number))


class Heard(list[Any]):
    """What a job puts, and whether it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def put(self, event: Any) -> None:
        self.append(event)
        if event is None:
            self.ended.set()


def test_a_worker_serves_one_after_another_and_refuses_too_many() -> None:
    slow = Slow()
    worker = Worker(slow, most=2)
    first, second = Heard(), Heard()
    left = Job(spanish(), second.put)
    worker.submit(Job(spanish(), first.put))
    worker.submit(left)
    with pytest.raises(SteerlabError, match="2 requests wait for the model already; try again"):
        worker.submit(Job(spanish(), first.put))
    assert slow.begun.wait(30)
    left.stopped.set()  # it is left while it waits: it never begins
    for _ in range(3):
        slow.go.release()
    assert first.ended.wait(30)
    assert second.ended.wait(30)
    assert first == [Told("0"), Told("1"), Told("2"), None]
    assert second == [None]
    worker.submit(Job(spanish(), Heard().put))  # there is room again
    worker.close()


def test_what_breaks_inside_is_told_and_the_worker_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow = Slow()
    worker = Worker(slow)
    broken, whole = Heard(), Heard()
    worker.submit(Job(spanish(text="broken"), broken.put))
    worker.submit(Job(spanish(), whole.put))
    for _ in range(4):
        slow.go.release()
    assert broken.ended.wait(30)
    assert whole.ended.wait(30)
    assert isinstance(broken[0], Failed)
    assert "(ZeroDivisionError: inside)" in broken[0].message
    assert "Traceback" in capsys.readouterr().err
    assert whole == [Told("0"), Told("1"), Told("2"), None]
    worker.close()


# --------------------------------------------------------------------------------------- the guard


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"host": ["127.0.0.1:8000"]}, ""),
        ({"host": ["localhost:8000"], "origin": ["http://localhost:8000"]}, ""),
        ({"host": ["LOCALHOST:8000"], "origin": ["http://localhost:8000"]}, ""),
        ({}, "only under its own name"),
        ({"host": ["127.0.0.1"]}, "only under its own name"),
        ({"host": ["127.0.0.1:8001"]}, "only under its own name"),
        ({"host": ["rebound.example:8000"]}, "only under its own name"),
        ({"host": ["127.0.0.1:8000", "rebound.example"]}, "only under its own name"),
        ({"host": ["127.0.0.1:8000"], "origin": ["http://evil.example"]}, "another site"),
        ({"host": ["127.0.0.1:8000"], "origin": ["null"]}, "another site"),
        ({"host": ["127.0.0.1:8000"], "origin": ["http://localhost:8000"]}, "another site"),
        ({"host": ["127.0.0.1:8000"], "sec-fetch-site": ["cross-site"]}, "another site"),
        (
            {
                "host": ["127.0.0.1:8000"],
                "sec-fetch-site": ["cross-site"],
                "sec-fetch-mode": ["navigate"],  # a link on another page: nothing is asked yet
            },
            "",
        ),
    ],
)
def test_who_may_ask(headers: dict[str, list[str]], refused: str) -> None:
    said = Guard(None, host="127.0.0.1", port=8000).refusal(headers)
    assert (refused in said) if refused else said == ""


def test_another_address_answers_to_its_own_name_alone() -> None:
    guard = Guard(None, host="192.0.2.7", port=8000)
    assert guard.refusal({"host": ["192.0.2.7:8000"]}) == ""
    assert guard.refusal({"host": ["localhost:8000"]})
    assert Guard(None, host="::1", port=80).refusal({"host": ["[::1]"]}) == ""


# -------------------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def url(file: Path) -> Iterator[str]:
    session, page = prepared("polyglot", file)
    server = page_server(session, page)
    server.start()
    yield server.url
    server.close()


def asked(url: str, setting: dict[str, Any], **headers: str) -> httpx.Response:
    body = json.dumps(setting)
    kind = {"content-type": "application/json"}
    return httpx.post(f"{url}run", content=body, headers=kind | headers, timeout=120)


WANTED = {"text": SENTENCE, "target": "es", "layers": [5], "new_tokens": 8}


def told(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_page_fetches_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    for part in (page, httpx.get(f"{url}explore.js"), httpx.get(f"{url}explore.css")):
        assert part.status_code == 200
        assert "http:" not in part.text
        assert "https:" not in part.text
    assert httpx.get(f"{url}session.py").status_code == 404
    assert httpx.get(f"{url}../session.py").status_code == 404


def test_a_setting_is_streamed(url: str, session: Session) -> None:
    events = told(asked(url, WANTED))
    assert events[0] == {"kind": "begun"}
    done = {event["side"]: event for event in events if event["kind"] == "done"}
    setting = Setting.of(WANTED)
    assert done["steered"]["text"] == ends(session.run(setting))["steered"].text
    assert events[-1] == {
        "kind": "end",
        "python": as_python(session, setting),
        "command": as_command(session, setting),
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": "a" * (LONGEST + 1)}, "2,001 characters"),
        ({"text": "a" * BODY}, "more than 16,384 bytes"),
        ({"text": "\ud83d\ud83d"}, "half of a surrogate pair"),
        ({"text": 7}, "text: "),
        ({"strength": math.inf}, "strength: "),
        ({"layers": ["x"]}, "layers.0: "),
        ({"target": "<script>"}, "unknown language code '<script>'"),
        ({"operator": "dance"}, "there is no operator 'dance'"),
        ({"__class__": "x"}, "there is no key '__class__'"),
    ],
)
def test_a_hostile_setting_gets_a_sentence(url: str, changed: dict[str, Any], message: str) -> None:
    answer = asked(url, WANTED | changed)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("body", ["", "[]", "nothing", "[" * 5000, "null", "\x00"])
def test_a_body_that_is_no_setting_gets_a_sentence(url: str, body: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}run", content=body, headers=headers)
    assert answer.status_code == 400
    assert "needed" in answer.json()["error"] or "no JSON" in answer.json()["error"]


def test_only_json_is_taken(url: str) -> None:
    # A form or plain text of another site needs no leave of the browser: it must do nothing here.
    answer = httpx.post(f"{url}run", content=json.dumps(WANTED))
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_are_refused(url: str, headers: dict[str, str]) -> None:
    answer = asked(url, WANTED, **headers)
    assert answer.status_code == 403
    assert "own" in answer.json()["error"]


def test_a_nul_and_markup_are_text(url: str) -> None:
    for text in ("a\0b", "<script>alert(1)</script>"):
        assert told(asked(url, WANTED | {"text": text}))[-1]["kind"] == "end"


def test_twenty_at_once_say_the_same(url: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: told(asked(url, WANTED)), range(20)))
    texts = [[event["text"] for event in each if event["kind"] == "done"] for each in answers]
    assert all(each == texts[0] for each in texts)


def test_who_leaves_holds_nobody_up(url: str) -> None:
    body = json.dumps(WANTED | {"new_tokens": 128, "temperature": 2.0})
    headers = {"content-type": "application/json"}
    for _ in range(5):
        with httpx.stream("POST", f"{url}run", content=body, headers=headers, timeout=60) as answer:
            next(answer.iter_lines())
    assert told(asked(url, WANTED))[-1]["kind"] == "end"


def test_a_port_that_is_taken_and_every_address_are_refused(url: str, file: Path) -> None:
    session = Session("polyglot", file)
    page: dict[str, Any] = {}
    port = int(url.rstrip("/").rpartition(":")[2])
    with pytest.raises(SteerlabError, match=f"cannot listen on 127.0.0.1, port {port}"):
        page_server(session, page, port=port)
    with pytest.raises(SteerlabError, match="every address of this machine"):
        page_server(session, page, host="0.0.0.0")


# ------------------------------------------------------------------------------- a run, a notebook


@pytest.fixture
def run(directions: Directions, tmp_path: Path) -> Path:
    """The folder of a made-up run, whose best cell is layer 6 at strength 1.5."""
    (tmp_path / "directions").mkdir()
    directions.save(tmp_path / "directions" / "diffmean-0123456789ab.safetensors")
    settings = {"model": "polyglot", "source": "en", "prompt": "line", "dtype": "float32"}
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": settings}))
    rows = [
        {
            "method": "diffmean",
            "estimator": "diffmean",
            "operator": "add",
            "layer": layer,
            "strength": strength,
            "target": target,
            "split": split,
            "joint": (layer, strength) == (6, 1.5) and target == "es",
        }
        for layer in (4, 6)
        for strength in (0.5, 1.5)
        for target in ("de", "es")
        for split in ("dev", "test")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def test_a_run_is_read(run: Path) -> None:
    read = read_run(run)
    assert list(read.directions) == ["diffmean"]
    assert read.options == {"dtype": "float32"}
    [scores] = read.scores
    assert (scores["layers"], scores["strengths"], scores["split"]) == ([4, 6], [0.5, 1.5], "dev")
    assert [6, 1.5, 0.5, 2] in scores["cells"][EVERY]
    assert [6, 1.5, 1.0, 1] in scores["cells"]["es"]
    assert best(read.scores, "diffmean", "add") == (6, 1.5)
    session, page = prepared(run=run)
    setting = page["setting"]
    assert (setting["layers"], setting["strength"], setting["target"]) == ([6], 1.5, "es")
    assert "diffmean-0123456789ab.safetensors" in as_command(session, Setting.of(setting))


def test_a_folder_without_a_run_is_told(run: Path, tmp_path: Path) -> None:
    (run / "directions" / "diffmean-0123456789ab.safetensors").unlink()
    with pytest.raises(SteerlabError, match="has no directions yet; finish the run"):
        read_run(run)
    (run / "manifest.json").unlink()
    with pytest.raises(SteerlabError, match="holds no run: there is no manifest.json"):
        read_run(run)


def test_a_notebook_shows_it_in_a_frame(polyglot: Model, directions: Directions) -> None:
    explorer = explore(polyglot, directions, height=500)
    try:
        shown = explorer._repr_html_()
        assert f'<iframe src="{explorer.url}"' in shown
        assert 'height="500"' in shown
        assert repr(explorer) == f"Explorer at {explorer.url}"
        policy = httpx.get(explorer.url).headers["content-security-policy"]
        assert "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*" in policy
    finally:
        explorer.close()


def test_without_the_extra_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("steerlab.studies.explore.server"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(SteerlabError, match=r"pip install 'steerlab\[explore\]'"):
        explore("polyglot")


def test_the_command_tells_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["explore", "--run", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["explore", "--model", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err

"""Words on a command line: each verb does its one thing on files, and errors are one line."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import script

from steerlab.cli import main
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.engine.prompts import FORMS, INSTRUCTED, SUFFIXES, prompt, read_form
from steerlab.studies.main.run import RunResult
from steerlab.sweeps.grid import Grid


@pytest.fixture(scope="module")
def fitted(directions: Directions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directions.save(tmp_path_factory.mktemp("fits") / "diffmean.safetensors")


@pytest.fixture(scope="module")
def folder(lines: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of one's own."""
    made = tmp_path_factory.mktemp("own")
    for iso in ("en", "de", "es", "fr"):
        (made / f"{iso}.txt").write_text("\n".join(lines[iso][:24]) + "\n", "utf-8")
    return made


def told(capsys: pytest.CaptureFixture, *words: str) -> str:
    """What an error says: one line on stderr, exit 2."""
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("steerlab: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_of_every_verb():
    for words in ([], ["run"], ["fit"], ["steer"], ["show"], ["import"], ["sweep"], ["clas"]):
        with pytest.raises(SystemExit) as done:
            main([*words, "--help"])
        assert done.value.code == 0
    assert subprocess.run([script(), "--help"], capture_output=True).returncode == 0


def test_no_verb_and_unknown_words(capsys):
    for words in ([], ["dance"], ["steer", "polyglot"], ["show", "a", "pie", "-o", "b"]):
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code == 2
        assert "usage: steerlab" in capsys.readouterr().err


FORMS_READ = (
    *FORMS,
    *(f"{form}+{suffix}" for form in INSTRUCTED for suffix in (*SUFFIXES, *LANGUAGES)),
)
FORMS_WRONG = ("poem", "chat+", "chat+xx", "+target", "instructed+target", "line+target+de", "Chat")


@pytest.fixture
def prompted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[str], int]]:
    """Each verb that takes a prompt form, without its work: what it would run with lands in
    `asked`."""
    asked: list[str] = []

    def run(settings: Any, **_: Any) -> Path:
        asked.append(settings.prompt)
        return tmp_path

    def forecast(grid: Grid) -> dict[str, Any]:
        asked.append(grid.prompt)
        return {}

    monkeypatch.setattr(
        "steerlab.studies.main.run.run",
        lambda settings, **options: RunResult(run(settings, **options)),
    )
    monkeypatch.setattr("steerlab.studies.clas.run", run)
    monkeypatch.setattr("steerlab.sweeps.sweep.forecast", forecast)

    def sweep(form: str) -> int:
        (tmp_path / "grid.yaml").write_text(f"prompt: '{form}'\n", "utf-8")
        return main(["sweep", str(tmp_path / "grid.yaml"), "--dry-run"])

    def checked(verb: Callable[[str], int]) -> Callable[[str], int]:
        def call(form: str) -> int:
            asked.clear()
            code = verb(form)
            assert asked == ([form] if code == 0 else [])
            return code

        return call

    verbs: dict[str, Callable[[str], int]] = {
        "run": lambda form: main(["run", "--no-open", "--prompt", form]),
        "clas": lambda form: main(["clas", "--baselines=", "--prompt", form]),
        "sweep": sweep,
    }
    return {name: checked(verb) for name, verb in verbs.items()}


@pytest.mark.parametrize("verb", ["run", "clas", "sweep"])
def test_every_verb_takes_every_prompt_form_that_the_library_reads(prompted, verb):
    assert {"line", "chat+de", "line+english"} < set(FORMS_READ)
    for form in FORMS_READ:
        assert prompt(Chatty(), form, "No.", target="de"), form
        assert prompted[verb](form) == 0, form


@pytest.mark.parametrize("form", FORMS_WRONG)
@pytest.mark.parametrize("verb", ["run", "clas", "sweep"])
def test_a_wrong_prompt_form_is_told_in_the_librarys_own_sentence(prompted, verb, form, capsys):
    with pytest.raises(SteerlabError) as refused:
        read_form(form)
    assert prompted[verb](form) == 2
    assert str(refused.value) in capsys.readouterr().err


class Chatty:
    """A tokenizer with a chat template, as far as a prompt asks for one."""

    chat_template = "{{ messages }}"

    def apply_chat_template(self, messages: list[dict[str, str]], **_: bool) -> str:
        return messages[0]["content"]


def test_run_prints_the_pages_path(finished):
    folder, done = finished
    assert done.stdout.strip() == str((folder / "report.html").resolve())
    assert "choosing on dev" in done.stderr


def test_fit_writes_directions(folder, tmp_path, capsys, polyglot):
    for estimator in ("diffmean", "lda", "pca"):
        file = tmp_path / f"{estimator}.safetensors"
        assert main(["fit", estimator, "polyglot", str(folder), "-o", str(file)]) == 0
        assert capsys.readouterr().out.strip() == str(file)
        made = Directions.load(file)
        assert (made.estimator, made.langs, made.width) == (
            estimator,
            ("de", "en", "es", "fr"),
            polyglot.width,
        )
        assert made.provenance["model"]["fingerprint"] == polyglot.fingerprint


def test_steer_continues_texts(fitted, capsys, polyglot, directions):
    from steerlab.edits import add
    from steerlab.engine.decoding import generate

    words = [
        "steer",
        "polyglot",
        str(fitted),
        "The weather is nice today.",
        "No.",
        "--to",
        "es",
        "--layer",
        "5",
    ]
    assert main([*words, "--strength", "1.5"]) == 0
    edit = add(directions.between("en", "es").at(5), strength=1.5)
    expected = [
        text.strip()
        for text in generate(polyglot, ["The weather is nice today.\n", "No.\n"], edit=edit)
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_steer_samples_as_generate_does(fitted, capsys, polyglot, directions):
    from steerlab.edits import add
    from steerlab.engine.decoding import generate

    words = ["steer", "polyglot", str(fitted), "No.", "--to", "es", "--layer", "5"]
    sampled = ["--temperature", "1.5", "--seed", "3", "--top-p", "0.8"]
    edit = add(directions.between("en", "es").at(5), strength=1.0)
    options: dict[str, Any] = {"temperature": 1.5, "seed": 3, "edit": edit}
    assert main([*words, *sampled]) == 0
    said = capsys.readouterr().out.strip()
    assert said == generate(polyglot, "No.\n", top_p=0.8, **options).strip()
    assert said != generate(polyglot, "No.\n", **options).strip()
    assert main([*words, "--top-p", "0.8"]) == 2
    assert "at temperature 0 nothing is sampled" in capsys.readouterr().err


@pytest.mark.parametrize("figure", ["dendrogram", "cosines"])
def test_show_draws(figure, fitted, tmp_path, capsys):
    page = tmp_path / "figure.html"
    assert main(["show", str(fitted), figure, "--layer", "5", "-o", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert "plotly" in page.read_text("utf-8")


def test_fit_refuses(capsys, folder, tmp_path):
    out = ["-o", str(tmp_path / "x.safetensors")]
    assert "there is no estimator 'magic'; there are diffmean" in told(
        capsys, "fit", "magic", "polyglot", *out
    )
    assert "there is no folder" in told(
        capsys, "fit", "pca", "polyglot", str(tmp_path / "none"), *out
    )
    err = told(capsys, "fit", "pca", "polyglot", str(folder), *out, "--source", "hu")
    assert "has no 'hu'; it has de en es fr" in err
    away = str(tmp_path / "away" / "x.safetensors")
    err = told(capsys, "fit", "diffmean", "polyglot", str(folder), "-o", away)
    assert f"could not write {away}" in err
    assert not list(tmp_path.iterdir())


def test_steer_refuses(capsys, fitted, tmp_path):
    steer = ["steer", "polyglot", str(fitted), "No.", "--layer", "5", "--to"]
    assert "unknown language code 'xx'; known codes: en de" in told(capsys, *steer, "xx")
    assert "no direction for 'tr'; there are en de es fr ru" in told(capsys, *steer, "tr")
    assert "source and target are both 'es'" in told(capsys, *steer, "es", "--from", "es")
    assert "strength is nan; give a finite number" in told(
        capsys, *steer, "es", "--strength", "nan"
    )
    assert "no layer 9 here; there are layers 0, 1" in told(
        capsys, "steer", "polyglot", str(fitted), "No.", "--layer", "9", "--to", "es"
    )
    gone = str(tmp_path / "gone.safetensors")
    assert f"there is no file {gone}" in told(
        capsys, "steer", "polyglot", gone, "No.", "--layer", "5", "--to", "es"
    )

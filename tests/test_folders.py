"""A name that ends otherwise than what is written there is refused before any work, by every
verb and every writer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from steerlab import figures
from steerlab.cli import main
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_ending, write_json, write_table
from steerlab.models.model import Model
from steerlab.sae import saes
from steerlab.scores.judges import Retrieval
from steerlab.studies import clas
from steerlab.studies.feature_card import feature_cards
from steerlab.studies.feature_card.page import write as write_card
from steerlab.studies.main.run import run as run_study
from steerlab.sweeps.sweep import sweep

TABLE = pd.DataFrame({"a": [1]})


# ---------------------------------------------------------------------------------------- the check


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.html.pdf", "x.HTML", ".html"])
def test_a_file_ends_as_what_is_written_in_it(name: str) -> None:
    assert need_ending("some/x.html", ".html") == Path("some/x.html")
    with pytest.raises(
        SteerlabError, match=r"what is written there is \.html; give a name that ends in \.html"
    ):
        need_ending(name, ".html")
    with pytest.raises(
        SteerlabError,
        match=r"what is written there is \.csv or \.parquet; give a name that ends in",
    ):
        need_ending(name, ".csv", ".parquet")


@pytest.mark.parametrize("name", ["runs/x.parquet", "x.pdf", "x.JSON", "x.safetensors", "x.gguf"])
def test_a_folder_does_not_end_as_a_file(name: str) -> None:
    for sound in ("runs/llama-3.1-8b", "v1.0", "runs", ".hidden", "qwen2.5-0.5B-instruct"):
        assert need_ending(sound) == Path(sound)
    with pytest.raises(
        SteerlabError,
        match=r"as a file does, but what is written there is a folder; give a name with",
    ):
        need_ending(name)


# ---------------------------------------------------------------------------------------- the verbs

# a model, a corpus or a file that is not there: whoever looked for it first would say so
MISSING = "nowhere"
FILES: dict[str, tuple[list[str], str, list[str]]] = {
    "fit": (["fit", "diffmean", MISSING, MISSING], ".safetensors", ["x.gguf", "x.pt", "x"]),
    "import": (["import", "means", MISSING], ".safetensors", ["x.bin", "x.html", "x"]),
    "show": (
        ["show", MISSING, "cosines", "--layer", "1"],
        ".html",
        ["x.pdf", "x.svg", "x.safetensors", "x"],
    ),
}
FOLDERS: dict[str, list[str]] = {
    "run": ["run", "--model", MISSING, "--corpus", MISSING],
    "clas": ["clas", "--model", MISSING, "--corpus", MISSING, "--judge", "retrieval"],
    "sweep": ["sweep", "grid.yaml"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, but for a grid of a model that is not there."""
    (tmp_path / "grid.yaml").write_text(f"model: {MISSING}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(words: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", FILES)
def test_verbs_that_write_a_file(verb: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    words, ending, wrong = FILES[verb]
    for name in wrong:
        assert f"what is written there is {ending}; give a name that ends in {ending}" in said(
            [*words, "--out", name], capsys
        )
    assert MISSING in said([*words, "--out", f"x{ending}"], capsys), (
        "with the right ending it goes to work"
    )
    assert [path.name for path in folder.iterdir()] == ["grid.yaml"], "nothing was written"


@pytest.mark.parametrize("verb", FOLDERS)
def test_verbs_that_write_a_folder(verb: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("rows.parquet", "page.html", "table.csv"):
        err = said([*FOLDERS[verb], "--out", name], capsys)
        assert (
            f"{name} ends in {Path(name).suffix}, as a file does, but what is written there is a "
            "folder" in err
        )
    assert [path.name for path in folder.iterdir()] == ["grid.yaml"], "nothing was written"
    assert "as a file does" not in said([*FOLDERS[verb], "--out", "llama-3.1"], capsys), (
        "it goes to work"
    )


# -------------------------------------------------------------------------------------- the library


@pytest.fixture
def writers(
    directions: Directions, polyglot: Model, lines: Corpus
) -> dict[str, Callable[[Path], Any]]:
    """Everything in the package that writes where its caller says."""
    sae = saes(layers=[3])[3]
    return {
        "Directions.save": directions.save,
        "SAE.save": sae.save,
        "figures.write": lambda path: figures.write(go.Figure(), path, data=TABLE),
        "figures.draw": lambda path: figures.draw({path: go.Figure()}),
        "cards.write": lambda path: write_card(path, "<p>"),
        "feature_cards": lambda path: feature_cards(MISSING, lines, sae, [1], path),
        "write_table": lambda path: write_table(path, TABLE),
        "write_json": lambda path: write_json(path, {}),
        "study.run": lambda path: run_study(model=MISSING, out=path),
        "clas.run": lambda path: clas.run(
            clas.Settings(model=MISSING), out=path, judge=Retrieval(lines)
        ),
        "sweep": lambda path: sweep(MISSING, lines, out=path),
    }


NAMES = "Directions.save SAE.save figures.write figures.draw".split()
NAMES += "cards.write feature_cards write_table write_json".split()


@pytest.mark.parametrize("name", [*NAMES, "study.run", "clas.run", "sweep"])
def test_writers_refuse_the_endings_of_others(name: str, writers: dict, tmp_path: Path) -> None:
    assert set(writers) == {*NAMES, "study.run", "clas.run", "sweep"}
    for ending in (".gguf", ".txt", ".docx"):
        with pytest.raises(SteerlabError, match=f"x{ending} ends in {ending}.*; give a name"):
            writers[name](tmp_path / f"x{ending}")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Directions.save", "a.safetensors"),
        ("SAE.save", "layer_3"),
        ("figures.write", "a-3.1"),
        ("cards.write", "a.html"),
        ("write_table", "a.csv"),
        ("write_table", "a.parquet"),
        ("write_json", "a.json"),
    ],
)
def test_writers_write_what_the_name_says(
    name: str, file: str, writers: dict, tmp_path: Path
) -> None:
    writers[name](tmp_path / file)
    assert any(path.name.startswith(file) for path in tmp_path.iterdir())
    assert not list(tmp_path.rglob("*.new"))


def test_a_table_named_as_no_table_is_not_written_as_csv(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match=r"x\.PARQUET ends in \.PARQUET, .* \.parquet or \.csv"):
        write_table(tmp_path / "x.PARQUET", TABLE)

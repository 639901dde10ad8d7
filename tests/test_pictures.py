"""Every picture of the documentation is drawn from a record, or is a screenshot with a command."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import plotly.graph_objects as go
import pytest
from browsers import found

from steerlab import figures

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


@pytest.fixture(scope="module")
def redraw() -> Iterator[ModuleType]:
    """experiments/figures/redraw.py."""
    sys.path.insert(0, str(ROOT / "experiments"))
    from figures import redraw

    yield redraw
    sys.path.remove(str(ROOT / "experiments"))


def test_every_picture_has_a_record_or_a_command(redraw: ModuleType) -> None:
    shown = redraw.used()
    assert len(shown) > 8
    assert redraw.problems(shown, redraw.DRAWN, redraw.SHOT) == []
    there = {file.name for file in (ROOT / "docs" / "images").iterdir()}
    assert there == shown


def test_what_is_missing_is_named(redraw: ModuleType, tmp_path: Path) -> None:
    """A picture without a script, one that no page shows, and one without a record."""
    shown = redraw.used()
    assert redraw.problems(shown | {"new.svg"}, redraw.DRAWN, redraw.SHOT) == [
        "new.svg is on a page, and nothing draws it"
    ]
    assert redraw.problems(shown - {"spectrum.svg"}, redraw.DRAWN, redraw.SHOT) == [
        "spectrum.svg is drawn, and no page shows it"
    ]
    lost = redraw.Picture(tmp_path / "gone.csv", lambda file: go.Figure(), 85, 60)
    assert redraw.problems(shown, redraw.DRAWN | {"spectrum": lost}, redraw.SHOT) == [
        "spectrum.svg has no record: gone.csv is missing"
    ]


def test_pictures_on_a_page_are_found_however_they_are_shown(redraw: ModuleType) -> None:
    page = "![a](images/a.svg) [![b](docs/images/b-1.png)](x.md) `images/none`"
    assert redraw.SHOWN.findall(page) == ["a.svg", "b-1.png"]


def test_each_record_makes_its_figure(redraw: ModuleType) -> None:
    """Without a browser: what `make figures` draws has its n in the caption."""
    for name, picture in redraw.DRAWN.items():
        figure = picture.make(picture.record)
        assert figure.data, name
        assert re.search(r"\bn = ", figure.layout.meta["caption"]), name


def test_a_picture_drawn_again_has_the_same_names_and_words(
    redraw: ModuleType, tmp_path: Path
) -> None:
    if found() is None:
        pytest.skip("there is no Chrome or Chromium here, and nothing else draws")
    made = []
    for _ in range(2):
        redraw.draw(["spectrum"], tmp_path)
        text = (tmp_path / "spectrum.svg").read_text("utf-8")
        made.append(
            (re.findall(r'id="([^"]*)"', text), re.findall(r"<text[^>]*>(.*?)</text>", text))
        )
    assert made[0] == made[1]  # no id by lot is left
    assert "defs-plotly" in made[0][0]
    assert "German" in " ".join(made[0][1])


def test_the_gallery_shows_every_figure() -> None:
    text = (ROOT / "notebooks" / "gallery.ipynb").read_text("utf-8")
    drawing = set(figures._FIGURES) | {"tokens", "paper"}
    assert {name for name in drawing if f"figures.{name}(" not in text} == set()


def test_make_has_the_targets() -> None:
    for target in ("figures", "atlas", "screens"):
        assert re.search(rf"^{target}: ", MAKEFILE, re.MULTILINE)
        assert re.search(rf"^\.PHONY: .*\b{target}\b", MAKEFILE, re.MULTILINE)

"""What a new user meets in the first hour: one text gives one result and says what it is of,
strength at every layer warns, one call fits, figures take what one holds, a bar where one looks."""

import io
import math
import pickle
import pydoc
import sys
import types
import warnings
from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROMPTS
from test_display import Whole
from test_figures import caption, tidy

import steerlab as sl
from steerlab import figures
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.display import Page
from steerlab.core.errors import SteerlabError
from steerlab.core.generated import Output, Outputs
from steerlab.core.moments import Moments
from steerlab.core.progress import bar, is_shown
from steerlab.engine.decoding import decode
from steerlab.engine.language_mass import language_masses, mass_shift
from steerlab.engine.token_lexicon import packaged_lexicon
from steerlab.models.model import Model
from steerlab.sweeps.fits import fitted

# ------------------------------------------------------------------------------------- what is said


def test_one_text_gives_one_output_that_knows_its_prompt_and_dose(
    polyglot: Model, directions: Directions
) -> None:
    edit = sl.add(directions.between("en", "es").at(5), strength=1.5)
    both = sl.generate(polyglot, PROMPTS[:2], edit=edit)
    one = sl.generate(polyglot, PROMPTS[0], edit=edit)
    told = decode(polyglot, PROMPTS[:2], edit=edit)
    assert isinstance(one, Output)
    assert isinstance(both, Outputs)
    assert (one, both) == (told.texts[0], told.texts)
    assert one.prompt == PROMPTS[0]
    assert one.dose == pytest.approx(told.dose[0])
    assert sl.generate(polyglot, PROMPTS[0]).dose == 0
    with edit.on(polyglot):
        inside = sl.generate(polyglot, PROMPTS[0])
    assert inside == one
    assert math.isnan(inside.dose)
    named: Any = (text for text in PROMPTS[:2])  # read once, and still known afterwards
    assert sl.generate(polyglot, tuple(named), edit=edit)[1].prompt == PROMPTS[1]
    assert one.lang == sl.scores.identifier().identify(str(one))
    assert pickle.loads(pickle.dumps(one)).prompt == PROMPTS[0]


def test_outputs_show_prompt_output_language_and_dose() -> None:
    outputs = Outputs(
        [
            Output("Das ist ein <b>guter</b> Tag.\n", "A good day.\n", 0.25),
            Output("", "Nothing.", float("nan")),
        ]
    )
    words = Whole(outputs._repr_html_()).words
    assert [word for word in words if word.strip()] == [
        "prompt", "output", "language", "dose",
        "A good day.", "Das ist ein <b>guter</b> Tag.", "de", "0.25",
        "Nothing.", "none", "–",
    ]  # fmt: skip
    assert "Das ist" in outputs[0]._repr_html_()


def test_one_text_is_taken_where_several_are(polyglot: Model, directions: Directions) -> None:
    words = packaged_lexicon(polyglot)
    edit = sl.add(directions.between("en", "es").at(5))
    one = language_masses(polyglot, PROMPTS[0], [edit], words)
    many = language_masses(polyglot, PROMPTS[:1], [edit], words)
    assert torch.equal(one.mass, many.mass)
    assert len(mass_shift(polyglot, PROMPTS[0], {"es": edit}, words)) == 16
    assert sl.effects.random_like(polyglot, PROMPTS[0], edit).parts
    alone = sl.cross_entropy(polyglot, PROMPTS[0])  # without an edit: the model as it is
    assert float(alone) == pytest.approx(float(sl.cross_entropy(polyglot, PROMPTS[0], sl.Edit(()))))


# ------------------------------------------------------------------------------ strength and layers


@pytest.mark.parametrize("operator", [sl.add, sl.affine, lambda d: sl.rotate(d, share=1.0)])
def test_full_strength_at_every_layer_warns_until_layers_are_chosen(
    directions: Directions, operator: Any
) -> None:
    direction = directions.between("en", "es")
    with pytest.warns(UserWarning, match=r"at each of the 8 layers .* about 8 times .*\.at\(4\)"):
        operator(direction)
    with pytest.warns(UserWarning, match="full strength"):
        operator(directions["es"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator(direction.at(5))
        operator(direction.at(*range(8)))
        operator(directions.at(2, 3).between("en", "es"))
        sl.ablate(directions["es"])  # of which all layers are the usual place


def test_what_was_chosen_is_no_part_of_a_direction(directions: Directions) -> None:
    whole = directions.between("en", "es")
    chosen = directions.at(*directions.layers).between("en", "es")
    assert whole == chosen
    assert directions.digest == directions.at(*directions.layers).digest


# ------------------------------------------------------------------------------------ one call fits


@pytest.mark.parametrize("method", ["diffmean", "lape", "langfir"])
def test_fit_reads_what_a_method_needs(polyglot: Model, lines: Corpus, method: str) -> None:
    few = lines.select(["en", "de", "ru"]).split("estimate").take(12)
    layers = range(polyglot.n_layers)
    alone = sl.fit(method, polyglot, few)
    expected = fitted(polyglot, few, [method], layers=layers, source="en")[method]
    assert isinstance(alone, Directions)
    assert torch.equal(alone.vectors, expected.vectors)


def test_fit_of_several_reads_once_and_gives_a_dict(polyglot: Model, lines: Corpus) -> None:
    few = lines.select(["en", "de"]).split("estimate").take(12)
    both = sl.fit(["diffmean", "lda"], polyglot, few, layers=[3, 5])
    assert list(both) == ["diffmean", "lda"]
    assert both["lda"].layers == (3, 5)
    with pytest.raises(SteerlabError, match="no estimator 'lad'|'lad'"):
        sl.fit("lad", polyglot, few)


def test_fit_takes_autoencoders_that_are_there(polyglot: Model, lines: Corpus) -> None:
    few = lines.select(["en", "de"]).split("estimate").take(12)
    coders = sl.units.saes()
    given = sl.fit("langfir", polyglot, few, saes=coders)
    assert torch.equal(given.vectors, sl.fit("langfir", polyglot, few).vectors)


# ----------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_shown(progress=None)
    assert is_shown(progress=True)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_shown(progress=None)
    assert not is_shown(progress=False)


def test_in_a_notebook_it_is_shown_if_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = types.SimpleNamespace(kernel=1)
    ipython = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr("steerlab.core.progress.find_spec", lambda name: object())
    assert is_shown(progress=None)
    monkeypatch.setattr("steerlab.core.progress.find_spec", lambda name: None)
    assert not is_shown(progress=None)
    monkeypatch.setattr(ipython, "get_ipython", lambda: None)  # IPython imported, no notebook
    assert not is_shown(progress=None)


def test_a_pipe_stays_silent(
    polyglot: Model, lines: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    few = lines.select(["en", "de"]).take(2)
    for stream in (pipe, terminal):
        monkeypatch.setattr(sys, "stderr", stream)
        sl.collect(polyglot, few, layers=[1])
    assert pipe.getvalue() == ""
    assert "reading" in terminal.getvalue()
    with bar(progress=False) as display:
        display.update(display.add_task("nothing", total=1))


# ------------------------------------------------------------------------------------------ figures


def test_figures_take_directions_and_moments(directions: Directions, moments: Moments) -> None:
    """DiffMean's vectors are the means, so that both give one picture, and that of the array."""
    langs = list(directions.langs)
    plain = figures.cosines(directions.vectors[:, 5], langs, layer=5)
    for held in (directions, moments, directions.at(5)):
        figure = figures.cosines(held, layer=5)
        np.testing.assert_allclose(figure.data[0].z, plain.data[0].z, atol=1e-5)
        assert "layer 5" in caption(figure)
    trees = [figures.dendrogram(held, layer=5) for held in (directions, moments)]
    trees.append(figures.dendrogram(directions.at(5)))
    for tree in trees:
        assert caption(tree) == caption(trees[0])
    maps = [figures.language_map(held, layer=5) for held in (directions, moments)]
    shape = np.asarray(directions.vectors.double()).swapaxes(0, 1)
    positions, shares = sl.geometry.layout(shape)
    maps.append(figures.language_map(positions, shares, langs, layers=range(8), layer=5))
    for drawn in maps[1:]:
        for trace, other in zip(drawn.data, maps[0].data, strict=True):
            np.testing.assert_allclose(trace.x, other.x, atol=1e-4)


def test_a_layer_has_to_be_named_where_there_are_several(directions: Directions) -> None:
    for draw in (figures.cosines, figures.dendrogram):
        with pytest.raises(SteerlabError, match=r"was given 8 layers .* it draws one"):
            draw(directions)
        with pytest.raises(SteerlabError, match="no layer 99 here"):
            draw(directions, layer=99)
    with pytest.raises(SteerlabError, match="an array without its languages"):
        figures.cosines(directions.vectors[:, 5])
    with pytest.raises(SteerlabError, match="takes Directions or Moments"):
        figures.language_map(np.zeros((1, 3, 2)))


def test_a_heatmap_says_what_it_averages_over() -> None:
    one = tidy({("es", 2): [True, False], ("de", 2): [True, True]})
    assert "each cell a mean" not in caption(figures.heatmap(one))
    two = pd.concat([one, one.assign(method="lda")]).assign(strength=1.0)
    several = pd.concat([two.assign(strength=strength) for strength in (0.5, 1, 1.5, 2, 3, 4)])
    told = caption(figures.heatmap(several))
    assert "each cell a mean over 2 values of method (DiffMean, LDA)" in told
    assert "and 6 values of strength (0.5 to 4)" in told
    by_method = caption(figures.heatmap(several, x="method", y="strength"))
    assert "each cell a mean over 2 values of target (German, Spanish)" in by_method
    assert "values of method" not in by_method


# ------------------------------------------------------------------------------------------- a page


def test_a_page_is_shown_in_a_frame_of_its_own() -> None:
    html = '<!doctype html><style>body { color: red }</style><p title="a">&amp; "quoted"</p>'
    page = Page(html)
    shown = page._repr_html_()
    assert page == html
    assert Whole(shown).tags == {"iframe"}
    inside = shown.split('srcdoc="')[1].split('" sandbox')[0]
    assert unescape(inside) == html


@pytest.mark.parametrize("function", [sl.sweep, sl.run, sl.clas.run])
def test_help_lists_the_keys_and_not_that_there_are_some(function: Any) -> None:
    page = pydoc.plain(pydoc.render_doc(function))
    assert "**keys" not in page
    assert page.count("seed") >= 2, "in the signature and among the arguments"

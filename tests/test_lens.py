"""The logit lens: its last layer is what the model says; text is heaviest in its own language; an
edit shows beside the model as it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROMPTS, random_directions

import steerlab as sl
from steerlab import figures
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.lens import Lens
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.language_mass import language_masses
from steerlab.engine.lens import lens
from steerlab.engine.token_lexicon import Lexicon, packaged_lexicon
from steerlab.models.model import Model


@pytest.fixture(scope="module")
def read(polyglot: Model, lines: Corpus, directions: Directions) -> Lens:
    """Eight test lines of English and of Russian, under an edit towards Spanish."""
    few = lines.select(["en", "ru"]).split("test").take(8)
    return lens(polyglot, few, edit=sl.add(directions.between("en", "es").at(5), strength=1.5))


def line(table: pd.DataFrame, layer: int, lang: str) -> dict[str, Any]:
    """The one row of a layer and a language."""
    [row] = table[(table["layer"] == layer) & (table["language"] == lang)].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_the_last_layer_is_what_the_model_says(polyglot: Model, read: Lens) -> None:
    """Masses and likeliest tokens of the last layer are those of the model itself."""
    words = packaged_lexicon(polyglot)
    texts = [each.text for each in read.reads]
    said = language_masses(polyglot, texts, [], words, positions="all")
    for each, expected in zip(read.reads, said.unsteered, strict=True):
        assert each.unsteered is not None
        torch.testing.assert_close(each.unsteered[-1].mean(0), expected, atol=1e-4, rtol=1e-3)
        assert each.mass.shape == (8, len(each.pieces), 16)
        assert "".join(each.pieces).strip() == each.text.strip()


def test_under_an_edit_too(polyglot: Model, directions: Directions, read: Lens) -> None:
    edit = sl.add(directions.between("en", "es").at(5), strength=1.5)
    texts = [each.text for each in read.reads]
    said = language_masses(polyglot, texts, [edit], packaged_lexicon(polyglot), positions="all")
    for each, expected in zip(read.reads, said.mass[0], strict=True):
        torch.testing.assert_close(each.mass[-1].mean(0), expected, atol=1e-4, rtol=1e-3)


def test_below_the_edit_nothing_moves_and_above_it_the_target_gains(read: Lens) -> None:
    for each in read.reads:
        assert each.unsteered is not None
        torch.testing.assert_close(each.mass[:5], each.unsteered[:5], atol=1e-5, rtol=1e-4)
    table = read.by_layer("en")
    assert line(table, 7, "es")["gain_low"] > 0
    assert line(table, 7, "en")["gain"] < 0
    assert abs(line(table, 4, "es")["gain"]) < 1e-5


def test_text_is_heaviest_in_its_own_language_at_the_end(read: Lens) -> None:
    for spoken in ("en", "ru"):
        table = read.by_layer(spoken)
        last = table[table["layer"] == 7].set_index("language")["unsteered"]
        assert last.idxmax() == spoken


def test_intervals_are_those_of_sentences(read: Lens) -> None:
    table = read.by_layer("ru")
    russian = [each for each in read.reads if each.lang == "ru"]
    index = read.langs.index("ru")
    values = np.array([float(each.mass[6, :, index].mean()) for each in russian])
    numbers = np.array([each.sentence for each in russian])
    expected = by_sentence(values, numbers, share=False)
    row = line(table, 6, "ru")
    assert [row["mass"], row["mass_low"], row["mass_high"]] == pytest.approx(list(expected))
    assert row["n"] == 8
    assert row["mass_low"] < row["mass"] < row["mass_high"]


def test_the_table_has_every_cell(read: Lens) -> None:
    table = read.table()
    assert len(table) == sum(8 * len(each.pieces) * 16 for each in read.reads)
    one = table[(table["text"] == 9) & (table["layer"] == 3) & (table["position"] == 2)]
    mass = read.reads[9].mass[3, 2]
    assert one["mass"].tolist() == pytest.approx(mass.tolist())
    assert one["piece"].unique().tolist() == [read.reads[9].pieces[2]]
    assert one["language"].tolist() == list(read.langs)


def test_one_text_and_some_layers(polyglot: Model) -> None:
    found = lens(polyglot, PROMPTS[0], layers=[2, 6])
    whole = lens(polyglot, PROMPTS, batch=3)
    assert (found.layers, len(found.reads), found.edited) == ((2, 6), 1, False)
    torch.testing.assert_close(
        found.reads[0].mass, whole.reads[0].mass[[2, 6]], atol=1e-5, rtol=1e-4
    )
    assert found.reads[0].unsteered is None
    assert "Lens: 1 text, layers 2, 6, 16 languages" in repr(found)
    assert "<rect" in found._repr_html_()


@pytest.mark.parametrize("shape", ["gemma2", "gpt2", "qwen2"])
def test_other_heads_are_read_as_the_model_reads_them(
    shaped: Callable[[str], Model], shape: str
) -> None:
    """Gemma 2 caps its logits, GPT-2's norm has a bias; otherwise the check inside would raise."""
    model = shaped(shape)
    edit = sl.add(random_directions(model).between("en", "es").at(1), strength=0.5)
    found = lens(model, PROMPTS[:2], edit=edit)
    assert len(found.reads) == 2
    assert not torch.equal(found.reads[0].mass[-1], found.reads[0].unsteered[-1])  # type: ignore[index]


def test_a_model_with_more_behind_its_head_is_refused(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = type(polyglot)._run

    def doubled(self: Any, *args: Any, **more: Any) -> Any:
        logits, past = forward(self, *args, **more)
        return 2 * logits, past

    monkeypatch.setattr(type(polyglot), "_run", doubled)
    with pytest.raises(SteerlabError, match="not those of its final norm and unembedding"):
        lens(polyglot, PROMPTS[0])


def test_what_is_refused(polyglot: Model, directions: Directions, read: Lens) -> None:
    late = sl.add(directions.between("en", "es").at(5), positions="generated")
    with pytest.raises(SteerlabError, match="nothing is generated"):
        lens(polyglot, PROMPTS[0], edit=late)
    with pytest.raises(SteerlabError, match="no text"):
        lens(polyglot, [])
    few = Lexicon(("en",), torch.ones(1, 7), {0: "a"})
    with pytest.raises(SteerlabError, match="the lexicon has"):
        lens(polyglot, PROMPTS[0], words=few)
    with pytest.raises(SteerlabError, match="no text was in 'fr'"):
        read.by_layer("fr")
    with pytest.raises(SteerlabError, match="spoken="):
        figures.lens_layers(read)
    with pytest.raises(SteerlabError, match="text 99 is none"):
        figures.lens_strip(read, text=99)


# ---------------------------------------------------------------------------------------- figures


def test_the_heatmap_has_the_edit_beside_the_model_as_it_is(read: Lens) -> None:
    figure = figures.lens_layers(read, spoken="ru")
    table = read.by_layer("ru")
    steered, plain = figure.data
    names = list(steered.y)
    for trace, column in ((steered, "mass"), (plain, "unsteered")):
        russian = table[table["language"] == "ru"].sort_values("layer")[column]
        np.testing.assert_allclose(trace.z[names.index("Russian")], russian)
    assert "n = 8 texts" in figure.layout.meta["caption"]
    assert steered.zmax == plain.zmax


def test_the_strip_colours_each_cell_once(read: Lens) -> None:
    figure = figures.lens_strip(read, text=9)
    cells = np.stack([trace.z for trace in figure.data if trace.type == "heatmap"])
    assert (np.isfinite(cells).sum(0) == 1).all()
    best = read.reads[9].mass.max(-1).values.numpy()
    np.testing.assert_allclose(np.nansum(cells, 0), best)
    names = [trace.name for trace in figure.data if trace.type == "scatter"]
    assert "Russian" in names

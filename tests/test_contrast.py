"""Piles of any kind as a corpus, and what reads them: the same calls as for languages."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlab as sl
from steerlab.core.labels import concept_of, label, labelled, language_of, languages_of
from steerlab.core.moments import Moments

PILES = {
    "informal": {"de": ["Kommst du?", "Hast du Zeit?"], "fr": ["Tu viens ?", "Tu as le temps ?"]},
    "formal": {
        "de": ["Kommen Sie?", "Haben Sie Zeit?"],
        "fr": ["Vous venez ?", "Vous avez le temps ?"],
    },
}
LABELS = ("informal@de", "informal@fr", "formal@de", "formal@fr")


def refused(told: str) -> Any:
    return pytest.raises(sl.SteerlabError, match=told)


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("name", "whole", "concept", "lang"),
    [
        ("de", "de", None, "de"),
        ("deu_Latn", "de", None, "de"),
        ("formal@deu", "formal@de", "formal", "de"),
        ("python", "python", "python", None),
        ("C++", "C++", "C++", None),
        ("no-op", "no-op", "no-op", None),  # no Norwegian
        ("rust 2021", "rust 2021", "rust 2021", None),
        ("hin_Latn", "hin_Latn", None, "hin_Latn"),
    ],
)
def test_a_label_is_a_language_a_concept_or_both(name, whole, concept, lang):
    assert label(name) == whole
    assert (concept_of(whole), language_of(whole)) == (concept, lang)
    assert label(whole) == whole


@pytest.mark.parametrize("name", ["@de", "formal@", "formal@de@fr", "@", "a@@b"])
def test_an_at_in_an_odd_place_is_refused(name):
    with refused("is no label; write a concept and a language with one @ between them"):
        label(name)
    with refused("is no label"):
        sl.contrast({name: ["a"], "other": ["b"]})


def test_a_mistyped_language_is_still_told():
    for name in ("xx", "formal@xx", "formal@deutsch"):
        with refused("unknown language code"):
            label(name)
    for name in (" formal@de", "for\nmal@de"):
        with refused("is no name of a concept"):
            label(name)
    with refused("a label is a word, not 5"):
        label(5)
    with refused("unknown language code"):
        label("")


def test_figures_know_what_a_label_is_called():
    assert labelled("formal@de").name == "formal, German"
    assert labelled("formal@de").family == "Germanic"
    assert labelled("formal@ru").script == "Cyrl"
    assert (labelled("python").name, labelled("python").family) == ("python", "unknown")
    assert labelled("de").name == "German"
    assert languages_of([*LABELS, "python", "de"]) == ["de", "fr"]


# ---------------------------------------------------------------------------- the corpus of piles


def rows_of(piles):
    return [
        (text, concept, lang)
        for concept, langs in piles.items()
        for lang, texts in langs.items()
        for text in texts
    ]


def test_a_dict_a_list_and_a_table_are_one_corpus():
    made = sl.contrast(PILES)
    assert made.langs == LABELS
    assert made.aligned
    assert made["formal@de"] == ("Kommen Sie?", "Haben Sie Zeit?")
    assert made["formal@deu"] == made["formal@de"]
    rows = rows_of(PILES)
    table = pd.DataFrame(rows, columns=["text", "label", "language"])
    renamed = table.set_axis(["satz", "stil", "sprache"], axis=1)
    others = [
        sl.contrast(rows),
        sl.contrast(table),
        sl.contrast(table.to_dict("records")),
        sl.contrast(renamed, text="satz", concept="stil", language="sprache"),
        sl.contrast({f"{c}@{lang}": t for c, langs in PILES.items() for lang, t in langs.items()}),
    ]
    assert {other.hash for other in others} == {made.hash}


def test_a_dataset_of_the_package_datasets_is_read():
    datasets = pytest.importorskip("datasets")
    columns = ["text", "label", "language"]
    table = pd.DataFrame(rows_of(PILES), columns=columns)
    assert sl.contrast(datasets.Dataset.from_pandas(table)).hash == sl.contrast(PILES).hash


class Dataset:
    """What contrast asks of a Dataset: that it can be a pandas table."""

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame(rows_of(PILES), columns=["text", "label", "language"])


def test_whatever_becomes_a_pandas_table_is_read():
    assert sl.contrast(Dataset()).hash == sl.contrast(PILES).hash


def test_piles_need_no_language():
    made = sl.contrast({"python": ["def f(): pass", "x = 1\ny = 2"], "rust": ["fn f() {}"]})
    assert made.langs == ("python", "rust")
    assert not made.aligned
    assert made["python"][1] == "x = 1\ny = 2"
    by_row = sl.contrast(
        [("def f(): pass", "python"), ("x = 1\ny = 2", "python"), ("fn f() {}", "rust")]
    )
    assert by_row.hash == made.hash
    with refused("or give contrast as many texts under each label"):
        made.split("dev")


def test_alignment_is_by_number_or_as_said():
    assert not sl.contrast(PILES, aligned=False).aligned
    with refused("differ in number: python 1, rust 2; mend them"):
        sl.contrast({"python": ["a"], "rust": ["b", "c"]}, aligned=True)


@pytest.mark.parametrize(
    ("piles", "told"),
    [
        ({"formal": {"de": ["a"]}}, "needs two labels or more, and was given formal@de"),
        ({}, "needs two labels or more, and was given none"),
        ({"formal": {"de": []}, "informal": {"de": ["a"]}}, "'formal@de' has no text"),
        ({"formal": {"de": [" "]}, "informal": {"de": ["a"]}}, "text 0 of 'formal@de' is empty"),
        ({"formal": {}, "informal": {"de": ["a"]}}, "the concept 'formal' has no language"),
        ({"formal": {"xx": ["a"]}}, "unknown language code 'xx'"),
        ({"formal": {5: ["a"]}}, "5 is no language's code"),
        ({"formal@de": {"de": ["a"]}}, "'formal@de' is no name of a concept"),
        ({"lua": ["a"], "rust": ["b"]}, "'lua' is also the code of Luba-Lulua; call it otherwise"),
        ({"go": ["a"], "rust": ["b"]}, "unknown language code 'go'"),
        ({"formal": "abc", "informal": ["a"]}, "was given the one string"),
        ({"formal": [1], "informal": ["a"]}, "number 0 is a int"),
        ([("a", "x y"), "b"], "row 1 is 'b'; give"),
        ([(None, "formal"), ("b", "informal")], "the text of row 0 is None, not a string"),
        ("abc", "not of a str"),
        (pd.DataFrame({"text": ["a"]}), "the table has no column 'label'; it has text"),
    ],
)
def test_what_is_no_contrast_is_refused(piles, told):
    with refused(told):
        sl.contrast(piles)


# ---------------------------------------------------------- what reads a corpus reads such a one


CODE = {
    "python": [f"def f{n}(x):\n    return x + {n}" for n in range(48)],
    "rust": [f"fn f{n}(x: i32) -> i32 {{ x + {n} }}" for n in range(48)],
}


@pytest.fixture(scope="module")
def code():
    return sl.contrast(CODE)


@pytest.fixture(scope="module")
def read(polyglot, code):
    return sl.collect(polyglot, code.split("estimate"), layers=[3, 5], also=["scatter", "sample"])


def test_two_piles_give_directions_by_every_estimator(polyglot, read, tmp_path):
    assert read.langs == ("python", "rust")
    for name in ("diffmean", "lda", "probe"):
        made = getattr(sl, name)(read)
        assert made.between("python", "rust").unit.shape == (2, polyglot.width)
        saved = sl.Directions.load(made.save(tmp_path / f"{name}.safetensors"))
        assert saved.digest == made.digest
    again = Moments.load(read.save(tmp_path / "moments.safetensors"))
    assert again.langs == read.langs
    with refused("no direction for 'ruby'; there are python rust"):
        sl.diffmean(read).between("python", "ruby")


def test_a_direction_parts_held_out_piles(polyglot, code, read):
    # The planted difference is found on lines that were not read, and shuffled labels find none.
    direction = sl.diffmean(read).between("python", "rust").at(5)
    dev = sl.collect(polyglot, code.split("test"), layers=[5], also=[])
    middle = sl.diffmean(read).means[:, 1].mean(0)
    along = (dev.mean[:, 0].float() - middle) @ direction.unit[0]
    assert along[0] < 0 < along[1]


def test_units_and_gradients_take_labels(polyglot, code):
    from steerlab.engine.collect_gradients import collect_gradients

    saes = sl.units.saes()
    layer = min(saes)
    firing = sl.collect_units(polyglot, code.split("dev"), saes={layer: saes[layer]})
    assert firing.langs == ("python", "rust")
    items = {"formal@de": [("Kommen", "Sie")], "informal@de": [("Kommst", "du")]}
    made = collect_gradients(polyglot, items, layers=[5])
    assert made.langs == ("formal@de", "informal@de")
    with refused("unknown language code 'xx'"):
        collect_gradients(polyglot, {"formal@xx": [("a", "b")]})


def braces(outputs):
    return [output.count("{") + output.count("}") for output in outputs]


def same_target(outputs, targets):
    return [float(target == "rust") for target in targets]


def test_a_sweep_scores_with_a_users_function(polyglot, code, tmp_path):
    options: dict[str, Any] = {
        "source": "python",
        "targets": ["rust"],
        "layers": [5],
        "strengths": [1.0],
        "judge": "none",
        "new_tokens": 8,
        "limit": 4,
        "scorers": {"braces": braces, "own": same_target},
    }
    rows = sl.sweep(polyglot, code, **options, out=tmp_path / "runs")
    assert rows["braces"].tolist() == braces(rows["output"])
    assert (rows["own"] == 1).all()
    assert not rows["joint"].any()  # nothing was judged
    assert rows["in_language"].all()  # and no language asked for
    assert rows["script_mixing"].isna().all()
    again = sl.sweep(polyglot, code, **options, out=tmp_path / "runs")
    pd.testing.assert_frame_equal(rows, again)
    figure = sl.figures.heatmap(rows, value="braces")
    assert figure.data[0].z[0][0] == pytest.approx(rows["braces"].mean())
    with refused("holds rows of another 'braces'"):
        changed = options | {"scorers": {"braces": lambda outputs: [0] * len(outputs)}}
        sl.sweep(polyglot, code, **changed, out=tmp_path / "runs")


def test_keys_without_a_scorer_are_what_they_were(polyglot, code):
    from dataclasses import replace

    from steerlab.sweeps.grid import Grid
    from steerlab.sweeps.sweep import prepare

    keys = {"source": "python", "targets": ["rust"], "layers": [5], "judge": "none", "limit": 2}
    runner, cells = prepare(Grid(**keys), polyglot, code)
    scored = replace(runner, scorers={"braces": braces})
    assert scored.key(cells[0]) != runner.key(cells[0])
    assert replace(scored, scorers={}).key(cells[0]) == runner.key(cells[0])


@pytest.mark.parametrize(
    ("scorers", "told"),
    [
        ({"joint": braces}, "'joint' is the package's own"),
        ({"target": braces}, "'target' is the package's own"),
        ({"x": 5}, "a function from a list of outputs to as many numbers is needed, not int"),
        ([braces], "give them by name"),
        ({"a/b": braces}, "is no name for rows and files"),
    ],
)
def test_what_is_no_scorer_is_refused_before_any_work(scorers, told):
    with refused(told):
        sl.Grid(source="python", targets=["rust"], scorers=scorers)


def test_a_scorer_that_fails_is_named(polyglot, code):
    from steerlab.sweeps.scoring import own_scores

    table = pd.DataFrame({"output": ["a", "b"], "target": ["rust", "rust"]})
    with refused(r"the scorer 'few' gave numbers of shape \(1,\) for 2 outputs"):
        own_scores(table, {"few": lambda outputs: [1.0]})
    with refused(r"the scorer 'bad' failed on 2 outputs \(ZeroDivisionError"):
        own_scores(table, {"bad": lambda outputs: [1 / 0 for _ in outputs]})
    assert np.isnan(own_scores(table, {"x": lambda outputs: [float("nan"), 1]})["x"][0])


def test_an_instruction_needs_a_language(polyglot):
    from steerlab.engine.prompts import prompt

    tokenizer = polyglot.tokenizer
    both = [
        prompt(tokenizer, "instructed", "Hallo.", source=s, target=t)
        for s, t in (("formal@de", "informal@fr"), ("de", "fr"))
    ]
    assert both[0] == both[1] == "German: Hallo.\nFrench:"
    assert prompt(tokenizer, "line", "x", source="python", target="rust") == "x\n"
    with refused(
        "the prompt form 'instructed' asks for a language, and the label 'rust' names none"
    ):
        prompt(tokenizer, "instructed", "x", source="de", target="rust")


def test_figures_draw_labels(read, polyglot):
    crossed = sl.collect(polyglot, sl.contrast(PILES), layers=[5], also=[])
    made = sl.diffmean(crossed)
    for figure in (
        sl.figures.dendrogram(made),
        sl.figures.cosines(made),
        sl.figures.language_map(made),
    ):
        assert figure.data
    assert "formal, German" in sl.figures.cosines(made).data[0].y
    # A law of the trees: what a label is called changes no distance.
    as_langs = dict(zip(LABELS, ("de", "fr", "es", "it"), strict=True))
    from steerlab.figures.trees import linkage_of

    vectors = made.vectors[:, 0].numpy()
    named = linkage_of(vectors, LABELS)
    np.testing.assert_array_equal(named, linkage_of(vectors, [as_langs[one] for one in LABELS]))
    assert torch.isfinite(made.vectors).all()


# ------------------------------------------------------------------ every method, and a whole sweep


@pytest.fixture(scope="module")
def register():
    return sl.concepts.register(langs=["de", "fr"])


def test_every_estimator_reads_crossed_labels(polyglot, register):
    part = register.split("estimate").take(40)
    names = list(sl.estimate.__all__)
    assert len(names) > 6
    made = sl.fit(names, polyglot, part, layers=[5], source="informal@de")
    for name in names:
        direction = made[name].at(5).between("informal@de", "formal@de")
        assert torch.isfinite(direction.unit).all(), name
        assert direction.target == "formal@de"


def test_units_are_chosen_for_labels(polyglot, register):
    saes = sl.units.saes()
    firing = sl.collect_units(polyglot, register.split("dev").take(12), saes={5: saes[5]})
    chosen = sl.units.monolinguality(firing)
    assert chosen.langs == register.langs
    assert chosen.of("formal@fr", 5)


def test_a_sweep_over_a_concept_in_a_language(polyglot, register):
    read = sl.collect(polyglot, register.split("estimate").take(24), layers=[5], also=[])
    parts = sl.concepts.crossed(read)
    rows = sl.sweep(
        polyglot,
        register,
        directions={"crossed": parts.directions(langs=["de", "fr"])},
        estimators=["diffmean"],
        source="informal@de",
        targets=["formal@de"],
        layers=[5],
        strengths=[0.0, 2.0],
        limit=3,
        new_tokens=6,
        scorers={"formal": sl.concepts.formal_share},
    )
    assert set(rows["method"]) == {"crossed", "diffmean"}
    assert not rows["script_mixing"].isna().all()  # German has a script
    expected = sl.concepts.formal_share(rows["output"].tolist(), rows["target"].tolist())
    np.testing.assert_array_equal(rows["formal"], expected)
    # At strength 0 both say what the model says, and are judged by the language in the label.
    plain = rows[rows["strength"] == 0].groupby("sentence")["output"].nunique()
    assert (plain == 1).all()
    named = sl.scores.identifier().identify(rows["output"].tolist())
    assert rows["in_language"].tolist() == [lang == "de" for lang in named]
    with refused("has no 'formal@es'"):
        sl.sweep(polyglot, register, source="informal@de", targets=["formal@es"])
    with refused("targets: unknown language code 'xx'"):
        sl.sweep(polyglot, register, source="informal@de", targets=["formal@xx"])

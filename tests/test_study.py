"""The main job, run once in small: the folder, the summary's form, and that its numbers are
those of the rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.choices import choose, halves
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.scores.chrf_pairs import chrf_pairs
from steerlab.studies.design import AT_METHOD, OWN_CHOICE
from steerlab.studies.main.run import RunResult, run
from steerlab.studies.main.settings import Settings
from steerlab.studies.main.study import Study
from steerlab.sweeps.cell import Cell

KEYS = (
    "format model corpus prompt source targets n_sentences n_outputs chance seconds peak_rss_bytes "
    "results families"
)
RESULT = "operator layer strength dose joint lfs relevance score bits_per_byte_ratio"
TRIPLES = "joint lfs relevance score bits_per_byte_ratio".split()
STEERED = ("random isotropic", "random covariance", "shuffled", "wrong")
CONTROLS = {"unsteered", *STEERED, "prompt"}
LANGS = ("en", "de", "es", "ru", "fr", "pl", "it", "uk")


@pytest.fixture(scope="module")
def folder(finished: tuple[Path, Any]) -> Path:
    return finished[0]


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows.parquet")


def test_the_run_folder_is_whole(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    figures = (
        "heatmap heatmap_lfs dose_curves removal separation families dendrogram cosines".split()
    )
    files = {"report.html", "rows.parquet", "rows.csv", "manifest.json", "summary.json"}
    assert {
        *files,
        "directions/diffmean.safetensors",
        *(f"figures/{name}.json" for name in figures),
    } <= names
    assert not [name for name in names if name.endswith(".new")]


def test_the_summary_has_its_form(summary):
    assert set(KEYS.split()) <= set(summary)
    assert (summary["format"], summary["model"], summary["prompt"], summary["source"]) == (
        1,
        "polyglot",
        "line",
        "en",
    )
    assert summary["targets"] == ["de", "es"]
    assert (summary["n_sentences"], summary["n_outputs"], summary["chance"]) == (4, 8, 1 / 32)
    assert summary["seconds"] > 0
    assert 1e8 < summary["peak_rss_bytes"] < 3e9
    assert set(summary["results"]) == {"diffmean"} | CONTROLS
    for name, found in summary["results"].items():
        assert set(RESULT.split()) <= set(found), name
        for triple in TRIPLES:
            value, low, high = found[triple]
            assert low <= value <= high, (name, triple)
            assert triple == "bits_per_byte_ratio" or 0 <= low <= high <= 1
        assert (found["operator"] == "none") == (name in ("unsteered", "prompt"))
    for found in summary["differences"].values():
        assert all(low <= value <= high for value, low, high in found.values())


def test_every_comparison_of_the_table_is_tested_in_one_family(summary):
    told = summary["tests"]
    assert (told["comparisons"], told["sentences"], told["least"]) == (6, 4, 1 / 8)
    assert set(told["pairs"]) == {"diffmean"}
    assert set(told["pairs"]["diffmean"]) == CONTROLS
    for name, item in told["pairs"]["diffmean"].items():
        assert item["difference"] == pytest.approx(summary["differences"][name]["joint"][0])
        assert told["least"] <= item["p"] <= item["p_holm"] <= 1
        assert item["detects"] is None, "four sentences can pass nothing"
    assert told["together"]["outputs"] == 8


def test_the_curve_along_the_dose_is_that_of_the_dev_rows(summary, rows):
    told = summary["doses"]
    dev = rows[(rows["split"] == "dev") & (rows["method"] == "diffmean")]
    # One half of the lines chose the layer, and the curve is of the other.
    choosing, reading = halves(dev)
    layer, strength = choose(choosing)["diffmean"]

    assert told["held out"]
    assert told["curves"]["diffmean"]["layer"] == layer
    dev = reading[reading["layer"] == layer]
    means = dev.groupby("strength")[["dose", "joint", "in_language"]].mean().sort_values("dose")
    found = told["curves"]["diffmean"]
    assert found["doses"] == pytest.approx(means["dose"].tolist())
    assert told["range"] == pytest.approx([means["dose"].min(), means["dose"].max()])
    expected = np.trapezoid(means["joint"], means["dose"]) / (told["range"][1] - told["range"][0])
    assert found["area"][0] == pytest.approx(expected)
    assert found["at"][0] == pytest.approx(means["joint"].loc[strength])
    assert found["least"]["highest"] == pytest.approx(means["in_language"].max())


def test_a_choice_for_each_language_is_scored_beside_one_for_each_method(summary, rows):
    found = summary["by_language"]["methods"]["diffmean"]
    assert set(found["choices"]) == {"de", "es"}
    for iso, (layer, strength) in found["choices"].items():
        dev = rows[
            (rows["split"] == "dev") & (rows["method"] == "diffmean") & (rows["target"] == iso)
        ]
        joint = dev.groupby(["layer", "strength"])["joint"].mean()
        assert joint[layer, strength] == joint.max()
    gain = found["per method and language"][0] - found["per method"][0]
    assert found["test"]["difference"] == pytest.approx(gain)


def test_the_families_have_their_form(summary):
    found = summary["families"]
    assert {"layer", "nearest_neighbour", "p", "cophenetic", "unigram_nearest_neighbour"} <= set(
        found
    )
    assert found["n"] == len(LANGS)
    assert 0 <= found["layer"] < 8
    assert all(
        0 <= found[name] <= 1 for name in ("nearest_neighbour", "p", "unigram_nearest_neighbour")
    )


def test_families_are_claimed_against_other_vectors_too(summary):
    found = summary["families"]
    for name, share in (("unigram", "unigram"), ("embedding", "embedding")):
        test = found["beyond"][name]
        difference = found["nearest_neighbour"] - found[f"{share}_nearest_neighbour"]
        assert test["difference"] == pytest.approx(difference)
        assert test["gained"] - test["lost"] == pytest.approx(difference * found["n"])
        assert test["p"] <= test["p_holm"] <= 1
    mean, most = found["cophenetic_null"]
    assert 0 < mean < most < 1


def test_a_second_identifier_stands_in_rows_and_summary(summary, rows):
    found = summary["identifiers"]
    assert found["second"].startswith("lingua@")
    assert found["second"].endswith(" among de en es fr it pl ru uk")
    assert rows["language_probability"].between(0, 1).all()
    probable = rows["in_language"] & (rows["language_probability"] >= 0.5)
    assert (rows["in_language_probable"] == probable).all()
    assert (rows["in_language_second"] == (rows["language_second"] == rows["target"])).all()
    assert (rows["joint_second"] == (rows["in_language_second"] & rows["relevant"])).all()
    test = rows[(rows["split"] == "test") & (rows["method"] == "diffmean")]
    result = summary["results"]["diffmean"]
    assert result["lfs_second"][0] == pytest.approx(test["in_language_second"].mean())
    assert result["lfs_probable"][0] == pytest.approx(test["in_language_probable"].mean())
    assert found["n"] == 8 * len(summary["results"])
    low, high = found["kappa"][1:]
    assert low <= found["kappa"][0] <= high


def test_curves_are_drawn_on_targets_that_all_were_read_on(folder, rows):
    drawn = json.loads((folder / "figures" / "dose_curves.json").read_text("utf-8"))
    assert "targets that all were read on (de, es)" in drawn["layout"]["meta"]["caption"]


def test_the_headline_is_the_mean_of_its_rows(summary, rows):
    for name, found in summary["results"].items():
        part = rows[(rows["split"] == "test") & (rows["method"] == name)]
        part = part[(part["layer"] == found["layer"]) & (part["strength"] == found["strength"])]
        assert len(part) == 8
        assert found["joint"][0] == pytest.approx(part["joint"].mean())
        assert found["lfs"][0] == pytest.approx(part["in_language"].mean())
        assert found["dose"] == pytest.approx(part["dose"].mean())
    assert (rows["joint"] == (rows["in_language"] & rows["relevant"])).all()


def test_what_outputs_mean_stands_beside_joint(summary, rows):
    """Scored with the rows, and again by hand here; cut off is what has all its tokens."""
    told = rows[(rows["split"] == "test") & (rows["method"] == "prompt")]
    found = summary["results"]["prompt"]
    for key in ("faithful", "joint_all", "echo", "loop", "truncated", "ceiling"):
        assert found[key][0] == pytest.approx(told[key].mean()), key
    by_hand = chrf_pairs(told["output"].tolist(), told["reference"].tolist())
    assert found["chrfpp"][0] == pytest.approx(by_hand.chrfpp.mean())
    assert found["joint_of_ceiling"][0] == pytest.approx(found["joint"][0] / found["ceiling"][0])
    assert (rows["tokens"][rows["truncated"]] == 32).all()
    assert (rows["unfaithful"] == "").tolist() == rows["faithful"].tolist()
    assert (rows["joint_all"] | ~rows["faithful"]).all()


def test_the_choice_is_made_on_dev(summary, rows):
    dev = rows[(rows["split"] == "dev") & (rows["method"] == "diffmean")]
    joint = dev.groupby(["layer", "strength"])["joint"].mean()
    chosen = summary["results"]["diffmean"]
    assert joint[chosen["layer"], chosen["strength"]] == joint.max()
    dev_lines = set(rows.loc[rows["split"] == "dev", "sentence"])
    assert not dev_lines & set(rows.loc[rows["split"] == "test", "sentence"])


def test_controls_have_the_dose_of_the_method(summary, rows):
    """At the method's own cell a control moves as far as the method does."""
    chosen = summary["results"]["diffmean"]
    at_cell = rows[
        (rows["layer"] == chosen["layer"])
        & (rows["strength"] == chosen["strength"])
        & (rows["split"] == "dev")
    ]
    doses = at_cell.groupby("method")["dose"].mean()
    for name in STEERED:
        assert doses[name] == pytest.approx(doses["diffmean"], rel=0.15)


def test_controls_are_shown_at_both_of_their_chances(folder, summary, rows):
    """The weaker one too, in the summary and on the page."""
    chosen = summary["results"]["diffmean"]
    assert set(summary["controls"]) == set(STEERED)
    for name, variants in summary["controls"].items():
        assert set(variants) == {AT_METHOD, OWN_CHOICE}
        there = variants[AT_METHOD]
        assert (there["layer"], there["strength"]) == (chosen["layer"], chosen["strength"])
        part = rows[(rows["split"] == "test") & (rows["method"] == name)]
        part = part[(part["layer"] == there["layer"]) & (part["strength"] == there["strength"])]
        assert there["joint"][0] == pytest.approx(part["joint"].mean())
        best = max(each["joint"][0] for each in variants.values())
        shown = summary["results"][name]
        assert shown["joint"][0] == best == variants[shown["variant"]]["joint"][0]
    page = (folder / "report.html").read_text("utf-8")
    assert "Controls at both of their chances" in page
    assert page.count("<td>at the method&#39;s setting") == len(STEERED)


def test_removal_has_a_random_control_of_its_own_dose(rows):
    """The same fraction of a random direction is another dose."""
    removal = rows[rows["method"].str.startswith("removal")]
    doses = removal.groupby(["method", "strength"])["dose"].mean()
    for fraction in (0.5, 1.0):
        own = doses["removal ablate", fraction]
        assert doses["removal random, equal dose", fraction] == pytest.approx(own, rel=0.06)
        for name in ("isotropic", "covariance"):
            assert doses[f"removal random {name}", fraction] < 0.6 * own
    twins = removal.loc[removal["method"] == "removal random, equal dose", "twin"]
    assert twins.str.match(r"random operator × \d").all()
    assert twins.nunique() > 5
    assert set(removal.loc[removal["method"] == "removal ablate", "twin"]) == {""}
    assert set(rows["site"]) == {"resid_post", ""}


def test_methods_at_one_cost_are_the_main_one_alone_where_there_is_no_other(summary):
    for cost in ("dose", "bits_per_byte_ratio"):
        found = summary["equal"][cost]
        assert found["methods"].keys() == {"diffmean"}
        assert found["methods"]["diffmean"]["joint"] == summary["results"]["diffmean"]["joint"]


def test_tables_say_the_same(folder, rows):
    table = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    assert list(table.columns) == list(rows.columns)
    assert table["output"].tolist() == rows["output"].tolist()
    assert np.allclose(table["dose"].astype(float), rows["dose"])


def test_the_manifest_decides_every_number(folder, polyglot):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["model"]["fingerprint"] == polyglot.fingerprint
    assert manifest["settings"]["limit"] == 4
    assert manifest["settings"]["langs"] == list(LANGS)
    assert manifest["command"][:2] == ["steerlab", "run"]
    assert {
        "corpus",
        "identifier",
        "layers",
        "new_tokens",
        "distractors",
        "packages",
        "python",
    } <= set(manifest)


def test_the_directions_are_good_for_the_model(folder, polyglot):
    from steerlab.edits import add
    from steerlab.engine.decoding import generate

    directions = Directions.load(folder / "directions" / "diffmean.safetensors")
    assert directions.langs == LANGS
    assert directions.layers == tuple(range(8))
    assert generate(
        polyglot, ["No.\n"], edit=add(directions.between("en", "es").at(5)), max_new_tokens=2
    )


def test_figures_are_plotly_figures(folder):
    for file in (folder / "figures").glob("*.json"):
        drawn = json.loads(file.read_text("utf-8"))
        assert drawn["data"], file.name
        assert drawn["layout"], file.name


def test_the_report_stands_alone(folder, summary):
    page = (folder / "report.html").read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "plotly" in page.lower()
    assert 'src="http' not in page
    assert all(name in page for name in ("unsteered", "shuffled", "polyglot"))


def test_a_finished_run_is_not_run_again(uninterrupted, monkeypatch):
    rows = pd.read_parquet(uninterrupted / "rows.parquet")
    settings = json.loads((uninterrupted / "manifest.json").read_text("utf-8"))["settings"]
    cells = {path: path.stat().st_mtime_ns for path in (uninterrupted / "cells").iterdir()}
    monkeypatch.setattr("steerlab.sweeps.decoding.decode", lambda *_, **__: 1 / 0)
    again = run(**settings, out=uninterrupted, progress=False)
    assert again == RunResult(uninterrupted)
    assert f"{len(again.summary['results'])} methods and controls on" in repr(again)
    assert "DiffMean" in again._repr_html_()
    assert Path(again) == uninterrupted
    assert {path: path.stat().st_mtime_ns for path in (uninterrupted / "cells").iterdir()} == cells
    pd.testing.assert_frame_equal(pd.read_parquet(uninterrupted / "rows.parquet"), rows)


def test_a_cell_that_failed_stops_the_run_and_is_said(tmp_path, small, tiny, monkeypatch):

    def explode(cell: Cell, *given: Any) -> Any:
        if cell.method == "wrong" and cell.split == "dev":
            raise ValueError("no such luck")
        return edit(cell, *given)

    edit = Cell.change
    monkeypatch.setattr(Cell, "change", explode)
    settings = Settings(
        model=str(tiny("llama")), langs=("en", "de", "es"), targets=("de",), limit=2, quick=True
    )
    with pytest.raises(
        SteerlabError, match=r"4 of 20 cells failed, the first with: .*no such luck.*run again"
    ):
        run(settings, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_settings_are_checked_before_anything_is_run(tmp_path, tiny):
    def refused(told: str, **settings: Any) -> None:
        with pytest.raises(SteerlabError, match=told):
            Study(Settings(model=str(tiny("llama")), **settings), tmp_path / "run", progress=False)

    refused("unknown language code 'xx'; known codes", targets=("xx",))
    refused(r"has no tl\.txt; it has bg de en", langs=("en", "tl"))
    refused("has no 'fr'; it has en de", langs=("en", "de"), targets=("fr",))
    refused("the source 'en' is among the targets", targets=("en", "de"))
    refused("has layers 0 to 2; layer 3 was asked for", layers=(1, 3))
    refused("limit: input should be greater than or equal to 1, and 0 was given", limit=0)
    refused("there is no language identifier at", lid="nowhere.bin")
    refused("there is no folder nowhere", corpus="nowhere")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_another_run_in_the_folder(folder):
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(
        SteerlabError, match=r"holds a run with other settings \(.*limit 4 there, 16 here.*\); give"
    ):
        Study(Settings(quick=True), folder, progress=False)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(
        SteerlabError, match="holds files, but no run; give an empty or a new folder as --out"
    ):
        Study(Settings(), tmp_path, progress=False)

"""The experiment on features and neurons: its setups, what it makes of a model, and what the claims
take from it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import browsers
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "units"))

import page
import selectivity
import setups
import steering
from beds import Bed
from saes.training import kept

from steerlab.core.corpus import corpus
from steerlab.edits import OPERATORS
from steerlab.engine.prompts import read_form
from steerlab.models.loading import PACKAGED
from steerlab.models.model import Model
from steerlab.sweeps import readings

LAYERS = (3, 5)


@pytest.fixture
def tried(polyglot: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """Polyglot in four languages with few sentences, in Gemma's form of prompt, with SAEs at two
    layers apart that lie in the cache."""
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    for layer in LAYERS:
        name = f"layer_{layer}"
        shutil.copytree(PACKAGED / "saes" / name, kept(polyglot) / name)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    setup = replace(
        setups.SETUPS["gemma-3-270m"],
        model=None,
        out=tmp_path / "out",
        found=tmp_path / "found.json",
        page=tmp_path / "docs" / "units.md",
        layers=LAYERS,
        methods=("diffmean", "langfir", "monolinguality clamp", "foxp2 push", "lape swap"),
        targets=("de", "ru"),
        dev_targets=1,
        dev_lines=2,
        test_lines=3,
        seeds=1,
        lift_prompts=4,
        answered=4,
        selective=("en", "de", "ru"),
        selective_dev_lines=1,
        selective_lines=3,
        shown=("de",),
    )
    return Bed(polyglot, corpus().select(["en", "de", "ru", "hu"]), setup)


def test_setups_name_rows_layers_and_forms_that_there_are() -> None:
    for setup in setups.SETUPS.values():
        assert set(setup.methods) <= set(steering.ROWS)
        assert setup.methods[0] == "diffmean"  # which the others are compared with
        read_form(setup.form)
        for form in setup.prompts.values():
            read_form(form)
        named = [*(setup.targets or ()), *(setup.selective or ())]
        assert set(named) <= set(corpus().langs)
        for method in steering.shown(setup):
            assert method.settings
            assert method.operator in OPERATORS
    assert setups.SETUPS["polyglot"].methods == tuple(steering.ROWS)


def rises(own: float, control: float, sentences: int = 6) -> pd.DataFrame:
    """Rises of three languages under edits and controls, whose own language's rise is given and
    that of the others 1."""
    rows = []
    for kind, size in (("edit", own), ("control", control)):
        for edit in ("en", "de", "ru"):
            for language in ("en", "de", "ru"):
                for sentence in range(sentences):
                    rise = size if edit == language else 1.0
                    row = {"kind": kind, "edit": edit, "language": language}
                    rows.append(row | {"sentence": sentence, "rise": rise + 0.01 * sentence})
    return pd.DataFrame(rows)


def test_the_share_of_edits_that_hurt_their_own_language_is_compared_with_the_controls() -> None:
    assert selectivity.share_less_control(rises(2.0, 0.5)) == (1.0, 1.0, 1.0)
    assert selectivity.share_less_control(rises(0.5, 2.0)) == (-1.0, -1.0, -1.0)
    assert selectivity.share_less_control(rises(2.0, 3.0)) == (0.0, 0.0, 0.0)


def test_the_interval_of_that_share_is_over_sentences() -> None:
    """One language is hurt most by its own edit in some sentences only."""
    rows = rises(2.0, 0.5)
    some = (rows["kind"] == "edit") & (rows["edit"] == "ru") & (rows["language"] == "ru")
    rows.loc[some, "rise"] = [3.0, 3.0, 3.0, -0.9, -0.9, -0.9]  # in the mean 1.05, others 1.025
    value, low, high = selectivity.share_less_control(rows)
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(2 / 3)
    # A language without a control is left out.
    fewer = rows[(rows["kind"] == "edit") | (rows["edit"] != "ru")]
    assert selectivity.share_less_control(fewer) == (1.0, 1.0, 1.0)


@pytest.mark.timeout(3000)  # alone it takes minutes; other work may share the cores
def test_every_section_is_made_of_a_setup_and_leaves_what_claims_need(
    tried: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "LIFTED", 3)
    sections = tried.out / "sections"
    sections.mkdir()
    for name, (_, make) in page.SECTIONS.items():
        (sections / f"{name}.md").write_text(make(tried), "utf-8")
    page.write(tried.setup)
    text = tried.setup.page.read_text("utf-8")
    assert text.startswith(f"# {tried.setup.title}\n")
    for title, _ in page.SECTIONS.values():
        assert f"\n## {title}\n" in text
    for name in ("selectivity", "langfir_counts", "lape_by_layer", "latent_spectra"):
        # Without a browser the page is written whole, but for its pictures.
        drawn = browsers.found() is not None
        assert (f"(images/gemma-{name}.svg)" in text) == drawn
        picture = tried.setup.page.parent / "images" / f"gemma-{name}.svg"
        assert picture.is_file() == drawn
    rows = pd.read_parquet(tried.out / "steering.parquet")
    assert set(rows["target"]) == {"de", "ru"}
    assert {"few-shot prompt", "unsteered", "diffmean"} <= set(rows["method"])
    assert set(rows.loc[rows["method"] == "diffmean", "layer"]) <= set(LAYERS)
    found = json.loads(tried.setup.found.read_text("utf-8"))
    names = {"langfir median", "langfir most", "langfir dominance less control", "eigengap ranks"}
    assert set(found) == names
    counts = pd.read_csv(tried.out / "langfir_counts.csv")
    default = (counts["consistency"] == 0.95) & (counts["noise"] == 0.05)
    features = counts.loc[default, "count"]
    assert found["langfir most"] == features.max()
    assert found["langfir median"] == np.median(features)
    value, low, high = found["langfir dominance less control"]
    assert -1 <= low <= value <= high <= 1
    assert found["eigengap ranks"]
    assert min(found["eigengap ranks"]) >= 1

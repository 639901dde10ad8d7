"""The report as an instrument: what it carries, and what a reader does with it in Chromium."""

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browsers import launched, opened, overflow
from synthetic_run import EVIL, synthetic_run

from steerlab.cli import main
from steerlab.studies.html import outputs
from steerlab.studies.html.outputs import packed
from steerlab.studies.main.page import write_report
from steerlab.studies.report import write

pytestmark = pytest.mark.timeout(600)  # a busy machine is slow


def unpacked(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic_run(tmp_path_factory.mktemp("run") / "made")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows.parquet")


# ------------------------------------------------------------------------------ what a page carries


def test_every_output_can_be_unpacked(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "BUDGET", 10**9)
    made = packed(rows, first=["probe"])
    content = unpacked(made["text"])
    assert made["sentences"] == made["of"] == rows["sentence"].nunique()
    assert content["methods"][0]["name"] == "probe"
    assert sum(len(cell["rows"]) for cell in content["cells"]) == len(rows)
    keys = ["method", "split", "layer", "strength", "source", "target"]
    joint = content["flags"].index("joint")
    for cell in content["cells"][:: len(content["cells"]) // 20]:
        same = rows[(rows[keys] == pd.Series({key: cell[key] for key in keys})).all(axis=1)]
        assert cell["n"] == len(same)
        assert cell["joint"] == pytest.approx(same["joint"].mean(), abs=1e-4)
        said = {
            row[0]: (content["texts"][row[3]], bool(row[5] >> joint & 1)) for row in cell["rows"]
        }
        assert said == {
            row["sentence"]: (row["output"], row["joint"]) for row in same.to_dict("records")
        }


def test_what_does_not_fit_is_the_same_sentences_of_every_cell(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "BUDGET", 200_000)
    made = packed(rows)
    content = unpacked(made["text"])
    assert len(made["text"]) <= 200_000
    assert 0 < made["sentences"] < made["of"]
    read = {
        tuple(row[0] for row in cell["rows"])
        for cell in content["cells"]
        if cell["split"] == "test"
    }
    assert len(read) == 1
    assert sum(cell["n"] for cell in content["cells"]) == len(rows)  # the numbers are of all


def test_half_a_surrogate_pair_does_not_break_a_page(rows: pd.DataFrame) -> None:
    broken = rows.head(3)
    texts = ["\ud83d", "</script><b>", ""]  # Arrow's strings hold no half of a pair
    broken = broken.assign(output=pd.Series(texts, index=broken.index, dtype=object))
    assert unpacked(packed(broken)["text"])["texts"].count("</script><b>") == 1


def test_the_page_stays_one_small_file(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    assert len(page.encode()) < 6e6
    assert EVIL not in page
    assert "https://example.org" not in page.replace("&#34;https://example.org", "")


# ---------------------------------------------------------------------- sweeps, CLaS-Bench, folders


@pytest.fixture
def swept(rows: pd.DataFrame, tmp_path: Path) -> Path:
    """A sweep's folder: two methods on dev, and one pair both ways."""
    dev = rows[(rows["split"] == "dev") & rows["method"].isin(["diffmean", "lda"])]
    back = dev[dev["target"] == "de"].assign(source="de", target="en")
    dev = pd.concat([dev, back]).assign(relevant=True, faithful=dev["joint"].iloc[0])
    dev.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "sweep.json").write_text(json.dumps({"grid": {"model": "<i>tiny</i>"}}))
    return tmp_path


def test_a_sweep_has_a_page(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(swept), "--no-open"]) == 0
    assert capsys.readouterr().out.strip() == str(swept / "report.html")
    page = (swept / "report.html").read_text("utf-8")
    assert "<i>tiny" not in page
    assert "chosen on these same dev lines" in page
    for title in ("Results", "Side effects", "Do the judges agree?", "There and back", "Figures"):
        assert f"<h2>{title}</h2>" in page
    assert "German to English" in page
    assert "English to German" not in page  # each pair once, by its codes' order
    assert page.count('class="plot"') == 2
    assert len(page.encode()) < 6e6


def test_clas_has_a_page(rows: pd.DataFrame, tmp_path: Path) -> None:
    test = rows[(rows["split"] == "test") & rows["method"].isin(["diffmean", "unsteered"])]
    test = test.assign(rating=test["joint"].astype(float)).drop(columns="relevant")
    test.to_parquet(tmp_path / "rows.parquet")
    score = {
        f"{name}{end}": 50.0
        for name in ("lfs", "or", "s", "joint")
        for end in ("", "_low", "_high")
    }
    line = score | {"method": "diffmean", "group": "pooled", "n": 9, "unread": 1}
    (tmp_path / "summary.json").write_text(json.dumps({"model": "tiny", "scores": [line]}))
    (tmp_path / "manifest.json").write_text(json.dumps({"judge": "retrieval"}))
    pd.DataFrame([line]).to_csv(tmp_path / "scores.csv")
    page = write(tmp_path).read_text("utf-8")
    assert "CLaS-Bench on tiny" in page
    assert "One judge alone rated these outputs" in page
    assert "No pair of languages was run both ways" in page
    assert ">50.0" in page


def test_a_folder_that_has_nothing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "gone")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "a report needs a finished run" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 2
    assert "a report needs finished rows" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture(scope="module")
def page(browser: Any, folder: Path) -> Iterator[Any]:
    page = opened(browser, (folder / "report.html").as_uri())
    page.wait_for_selector("#reader:not([hidden])")
    page.wait_for_selector("#figure-heatmap .nsewdrag")
    yield page
    assert page.complaints == []
    page.context.close()


def test_a_cell_of_the_map_shows_its_outputs(page: Any) -> None:
    page.select_option("#first", "diffmean")
    page.select_option("#split", "dev")
    page.click("#map button[aria-label^='layer 6, strength 1.5']")
    assert "at layer 6, strength 1.5" in page.locator("#shown").inner_text()
    assert page.locator("#map [aria-current=true]").count() == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert "at layer 6, strength 1:" in page.locator("#shown").inner_text()


def test_a_cell_of_a_heatmap_shows_its_outputs(page: Any) -> None:
    where = page.evaluate(
        "() => { const box = document.querySelector('#figure-heatmap .plot');"
        " const meta = box.layout.meta.cells;"
        " box.scrollIntoView({behavior: 'instant', block: 'center'});"
        " const {x, y, width, height} = box.querySelector('.nsewdrag').getBoundingClientRect();"
        " return {x: x + width * 0.5 / meta.across.length, y: y + height * 0.5 / meta.down.length,"
        " layer: meta.across[0], target: meta.down[0]}; }"
    )
    page.mouse.move(where["x"], where["y"])
    page.wait_for_selector("#figure-heatmap .hoverlayer .hovertext")  # only then is a click one
    page.mouse.click(where["x"], where["y"])
    page.wait_for_selector(f"#map button[aria-current=true][aria-label^='layer {where['layer']},']")
    assert page.locator("#lang").input_value() == where["target"]
    assert page.locator("#split").input_value() == "dev"


def test_two_methods_on_one_sentence(page: Any) -> None:
    page.select_option("#first", "diffmean")
    page.select_option("#second", "unsteered")
    page.select_option("#split", "test")
    page.select_option("#sentence", index=3)
    assert page.locator("#read > li").count() == 1
    names = page.locator("#read .who").all_inner_texts()
    assert [name.partition(" · ")[0] for name in names] == ["DiffMean", "Unsteered"]
    page.select_option("#sentence", "")
    page.select_option("#second", "")
    page.select_option("#only", "+joint")
    assert page.locator("#read .bad").count() == 0
    page.select_option("#only", "")


def test_a_table_sorts_both_ways_and_controls_stay_below(page: Any) -> None:
    heading = page.locator(".headline thead th").nth(1)
    values = "rows => rows.map(row => parseFloat(row.cells[1].textContent))"
    for order, turn in (("descending", True), ("ascending", False)):
        heading.locator(".sort").click()
        assert heading.get_attribute("aria-sort") == order
        own = page.locator(".headline tbody").nth(0).locator("tr").evaluate_all(values)
        assert own == sorted(own, reverse=turn)
    assert page.locator(".headline tbody").nth(1).locator("tr").first.inner_text() == "Controls"


def test_samples_are_filtered(page: Any) -> None:
    page.select_option("#drawn-method", "lda")
    page.select_option("#drawn-lang", "ja")
    assert page.locator("#drawn details:visible").count() == 1
    shown = page.locator("#drawn li:visible")
    assert shown.count() == page.locator("#drawn li[data-target=ja]:visible").count()
    page.select_option("#drawn-method", "")
    page.select_option("#drawn-lang", "")


def test_what_is_saved(page: Any) -> None:
    page.select_option("#first", "lda")
    with page.expect_download() as saved:
        page.click("#csv")
    table = pd.read_csv(saved.value.path())
    assert set(table["method"]) == {"lda"}
    assert {"prompt", "output", "joint"} <= set(table.columns)
    with page.expect_download() as saved:
        page.click("#results .tool >> nth=0")
    assert Path(saved.value.path()).read_text("utf-8-sig").startswith("Method,")
    with page.expect_download() as saved:
        page.click("#figure-heatmap .tool")
    assert saved.value.suggested_filename == "figure-heatmap.svg"
    assert Path(saved.value.path()).read_text("utf-8").startswith("<svg")


def test_markup_in_outputs_stays_text(page: Any) -> None:
    page.select_option("#split", "test")
    assert page.locator("#read script, #read img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_and_the_dark(browser: Any, folder: Path, dark: bool) -> None:
    page = opened(browser, (folder / "report.html").as_uri(), width=390, dark=dark)
    page.wait_for_selector("#reader:not([hidden])")
    assert overflow(page) <= 0
    ground = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert ground == ("rgb(18, 24, 30)" if dark else "rgb(255, 255, 255)")
    page.context.close()

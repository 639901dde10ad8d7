"""The report of a synthetic run: whole, self-contained, and with every number of the summary."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pages import Reader, section, words
from synthetic_run import EVIL, METHODS, NULLS, synthetic_run

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.main.page import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("run") / "made")


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    file = write_report(made)
    assert file == made / "report.html"
    assert not list(made.glob("*.new"))
    return file.read_text(encoding="utf-8")


def test_page_loads_nothing(page: str) -> None:
    read = Reader(page)
    assert all(link and link.startswith("#") for link in read.links), read.links
    assert not read.wrong
    assert not read.open
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"img", "link", "iframe", "object", "embed"}
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css
    policy = next(attrs["content"] for _, attrs in read.tags if "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_page_inlines_plotly_once(page: str) -> None:
    assert page.count("plotly.js v") == 1
    assert len(page.encode()) < 8e6


def test_page_names_every_method_and_control(page: str) -> None:
    text = words(page)
    for name in {**METHODS, **NULLS}:
        assert text.count(readable(name)) >= 2, name  # the table and the samples
    table = page[page.index('class="headline"') : page.index("</table>")]
    rows = re.findall(r'<th scope="row">([^<]*)', table)
    ran = [name for name in CONTROLS if name in NULLS]
    assert rows == [readable(name) for name in (*METHODS, *ran)]


def test_answer_has_the_numbers_of_the_summary(page: str) -> None:
    text = words(page)
    assert "Yes." in text
    for expected in (
        "92 % [90, 94]",
        "33 % [29, 37]",
        "by chance: 3 %",
        "shuffled labels",
        "The highest score of a method is LDA's, 36 % [32, 40]: not told apart from DiffMean "
        "(p = 0.46, adjusted).",
    ):
        assert expected in text, expected


def test_the_form_of_the_prompt_says_why_and_few_shot_is_no_null(page: str) -> None:
    text = words(page)
    assert (
        "prompt form “echo:5”, chosen by what the model does unsteered: with echo:5 it says 47 of "
        "48 dev lines again word for word, more than 0.9 of them" in text
    )
    # Stronger than the method, and the answer is still yes.
    assert "Shown translated examples, which are parallel text, it reaches 50 % [46, 54]" in text
    assert "Yes." in text


def test_families_stand_beside_what_shared_tokens_give(page: str) -> None:
    text = words(page)
    assert (
        "83 % of 12 languages have their nearest neighbour in their own family (p < 0.001 against "
        "chance: family labels permuted within scripts, maximum over layers)." in text
    )
    assert (
        "By token unigrams alone it is 60 %: the directions are more than that (languages gained "
        "3, lost 0; p = 0.030, adjusted)." in text
    )
    assert (
        "By the embedding layer it is 50 %: the directions are not told apart from that "
        "(languages gained 5, lost 1; p = 0.11, adjusted)." in text
    )
    assert "no more than the tokens that languages share may explain" in text
    assert "Within Latin script it is 70 % (p = 0.004 against chance)." in text
    assert (
        "cophenetic correlation is 0.81; vectors without structure, as many and as wide, have 0.57 "
        "on average, and 95 % of them less than 0.63." in text
    )


def test_a_second_identifier_stands_beside_the_first(page: str) -> None:
    text = section(page, "<summary>By a second language identifier")
    assert (
        "lid.176.ftz@0123 and lingua@2 among de en agree on 95 % of 7,920 outputs, Cohen's kappa "
        "0.89 [0.87, 0.91]." in text
    )
    assert (
        "DiffMean: LFS 92 % [90, 94], with a probability of .5 or more 81 % [79, 83], by the "
        "second 87 % [85, 89]; joint 33 % [29, 37], by the second 30 % [26, 34]." in text
    )
    assert "Portuguese and Spanish, 33; no language and German, 12." in text
    assert text.count("0.87 [0.85, 0.89]") == len(METHODS)


def test_without_a_second_identifier_the_page_says_so(made: Path, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "run", drawn=False)
    summary = json.loads((run / "summary.json").read_text())
    summary["identifiers"] = {"first": "lid.176.ftz@0123", "second": None}
    (run / "summary.json").write_text(json.dumps(summary))
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert "LFS rests on one identifier, lid.176.ftz@0123: no second one is installed" in text
    del summary["identifiers"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert "second language identifier" not in write_report(run).read_text(encoding="utf-8")


def test_headline_has_intervals_variants_and_chance(page: str) -> None:
    text = words(page)
    assert "0.33 [0.29, 0.37]" in text
    assert "its own setting, chosen on dev" in text
    assert "Chance is 0.0312" in text
    assert "the stronger of the two is shown" in text


def test_paired_tests_stand_with_their_family_and_what_they_could_see(page: str) -> None:
    text = section(page, "<h3>Paired tests")
    assert "minus unsteered minus random direction" in text
    assert "minus prompt instruction minus prompt with translated examples minus DiffMean" in text
    assert "+0.33 p < 0.001 +0.32 p < 0.001" in text
    assert "−0.03 p = 0.46" in text
    assert "Holm's method over the family: <6> methods less 6 controls, 31 comparisons" in text
    assert "With 80 % power one test by itself sees a difference of 0.050, by comparison" in text
    assert "where Holm's correction is strictest, 0.074 to 0.091." in text
    assert (
        "The 720 outputs of DiffMean are worth 346 independent ones (intraclass correlation 0.08"
        in text
    )
    assert (
        "The two best methods are LDA and DiffMean, +0.030 apart: were this the true difference, "
        "1,234 sentences would show it in 80 % of such runs." in text
    )
    assert "p is at least that of Student's t over sentences and seeds" in text
    assert "Nothing here can pass" not in text
    bold = re.findall(r'<td class="number best">[^<]*<small>p&nbsp;=\xa00.032', page)
    assert len(bold) == len(METHODS), "below .05 after correction"
    assert '<td class="number">−0.03<small>p&nbsp;=\xa00.46' in page


def test_the_choice_is_named_and_one_for_each_language_is_folded(page: str) -> None:
    assert "chosen on dev, one layer and strength for each method" in words(page)
    text = section(page, "<summary>A choice for each method and language")
    assert "0.20 [0.16, 0.24] 0.27 [0.23, 0.31] +0.07 p = 0.020" in text
    assert "Method German Swedish French" in text
    assert "DiffMean 5 × 1.5" in text


def test_methods_stand_along_the_dose(page: str) -> None:
    text = section(page, "<h3>Scores by dose")
    assert "Least dose for LFS 0.9 Joint at dose 0.41 Area under joint" in text
    assert "DiffMean 5 0.20 to 0.60 0.55 0.31 [0.27, 0.35] 0.28 [0.24, 0.32]" in text
    assert "LDA 5 0.20 to 0.60 ≤ 0.20 its smallest" in text
    assert "PCA 5 0.20 to 0.60 not reached at most 0.73" in text
    assert "the doses that all methods have, 0.30 to 0.60" in text


def test_outputs_are_escaped(page: str) -> None:
    assert EVIL in words(page), "shown as it is"
    assert "<script>alert" not in page
    assert "<img" not in page[page.index("<main>") : page.index("</main>")]


def test_figures_are_drawn_with_title_and_caption_in_the_page(page: str, made: Path) -> None:
    drawn = [json.loads(text) for text in Reader(page).json]
    assert len(drawn) == 6
    for figure in drawn:
        assert figure["data"]
        assert "title" not in figure["layout"]
        assert "width" not in figure["layout"]
    order = [
        page.index(f'id="figure-{name}"')
        for name in ("heatmap", "dose_curves", "separation", "families")
    ]
    assert order == sorted(order)
    assert words(page).count("Synthetic data, made to test the page") == 6


def test_five_good_and_five_bad_samples_of_each_method(page: str) -> None:
    for block in page.split("What it wrote")[1].split("<details")[1:7]:
        good, bad = block.split('class="bad"')
        assert good.count("<li ") == 5
        assert bad.count("<li ") == 5
        assert good.count("nearest to its own reference") == 5
        assert "nearest to its own" not in bad
    unsteered = page.split("Control: Unsteered")[1].split("</details>")[0]
    assert "There is none." in unsteered


def test_samples_are_the_same_every_time(made: Path, page: str) -> None:
    assert write_report(made).read_text(encoding="utf-8") == page


def test_account_has_command_hashes_time_and_tokens(page: str, made: Path) -> None:
    text = words(page)
    assert "steerlab run --out 'runs/a b' --seed 0" in text
    assert "0123456789abcdef" * 4 in text
    assert "3.5 minutes" in text
    assert "2.10 GB" in text
    assert "count of cells 77" in text
    rows = pd.read_parquet(made / "rows.parquet")
    assert f"{rows['tokens'].sum():,} in {len(rows):,} outputs" in text

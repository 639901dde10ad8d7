"""The report of a synthetic run: whole, self-contained, escaped, and honest about what is
missing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab import figures
from steerlab.core.errors import SteerlabError
from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.main.page import write_report
from steerlab.studies.main.page.values import cell, probability, setting, share, triple
from steerlab.studies.main.page.words import verdict

TARGETS = "de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
METHODS = {
    "diffmean": 0.33,
    "lda": 0.36,
    "pca": 0.2,
    "probe": 0.14,
    "eigengap": 0.27,
    "diffmean_rotate": 0.3,
}
NULLS = {"unsteered": 0.0, "random": 0.01, "shuffled": 0.06, "wrong": 0.02, "prompt": 0.41}
LAYERS, STRENGTHS, SENTENCES = (2, 4, 5, 6), (0.5, 1.0, 1.5), 48
PARALLEL = Path(figures.__file__).parent.parent / "data" / "parallel"
EVIL = "<script>alert('out')</script> & <img src=\"https://example.org/x.png\">"


def synthetic_rows() -> pd.DataFrame:
    """Random rows in the schema of a run: dev grids of every method, test rows at layer 5,
    strength 1."""
    random = np.random.default_rng(0)
    text = {
        iso: (PARALLEL / f"{iso}.txt").read_text(encoding="utf-8").splitlines()
        for iso in ["en", *TARGETS]
    }
    rows = []
    for method, rate in {**METHODS, **NULLS}.items():
        grid = [("test", 5, 1.0, target) for target in TARGETS]
        if method not in NULLS:
            grid += [
                ("dev", lay, s, target)
                for lay in LAYERS
                for s in STRENGTHS
                for target in TARGETS[::2]
            ]
        for split, layer, strength, target in grid:
            for sentence in range(SENTENCES if split == "test" else 16):
                rows.append(
                    _row(random, text, method, rate, split, layer, strength, target, sentence)
                )
    return pd.DataFrame(rows)


def _row(
    random: np.random.Generator,
    text: dict[str, list[str]],
    method: str,
    rate: float,
    split: str,
    layer: int,
    strength: float,
    target: str,
    sentence: int,
) -> dict[str, Any]:
    near = rate * np.exp(-((layer - 5) ** 2) / 4) * np.exp(-((strength - 1) ** 2))
    joint = bool(random.random() < near)
    spoken = joint or bool(
        random.random() < (0.9 if method not in NULLS or method == "prompt" else 0.03)
    )
    language = target if spoken else str(random.choice(["en", "none", target]))
    output = (
        text[target][sentence]
        if joint
        else text.get(language, text["en"])[int(random.integers(0, 200))]
    )
    return {
        "method": method,
        "estimator": method.removesuffix("_rotate"),
        "operator": "none"
        if method in ("unsteered", "prompt")
        else "rotate"
        if "rotate" in method
        else "add",
        "layer": layer if method not in ("unsteered", "prompt") else -1,
        "strength": strength,
        "split": split,
        "source": "en",
        "target": target,
        "sentence": sentence,
        "seed": 0,
        "cell": f"{abs(hash((method, layer, strength, target))):016x}",
        "prompt": text["en"][sentence] + "\n",
        "output": "" if language == "none" else EVIL if random.random() < 0.05 else output,
        "language": language,
        "in_language": language == target,
        "relevant": joint or bool(random.random() < 0.05),
        "joint": joint,
        "chrf": float(random.uniform(5, 70)),
        "bits_per_byte_ratio": float(random.uniform(0.9, 2)),
        "repetition": 0.1,
        "dose": 0.4 * strength,
        "tokens": int(random.integers(4, 32)),
    }


def synthetic_summary() -> dict[str, Any]:
    def around(value: float, half: float = 0.04) -> list[float]:
        return [value, value - half, value + half]

    results: dict[str, dict[str, Any]] = {}
    for name, rate in {**METHODS, **NULLS}.items():
        none = name in ("unsteered", "prompt")
        results[name] = {
            "operator": "none" if none else "rotate" if "rotate" in name else "add",
            "layer": -1 if none else 5,
            "strength": 0.0 if none else 1.0,
            "dose": 0.0 if none else 0.41,
            "joint": around(rate),
            "lfs": around(0.92 if name in METHODS or name == "prompt" else 0.03, 0.02),
            "relevance": around(rate + 0.1),
            "score": around(rate + 0.2, 0.05),
            "bits_per_byte_ratio": around(1.3, 0.1),
        }
    results["random"]["variant"] = "own choice on dev"
    results["shuffled"]["variant"] = "at DiffMean's cell"
    return {
        "format": 1,
        "model": "polyglot",
        "corpus": "embedded",
        "prompt": "line",
        "source": "en",
        "targets": TARGETS,
        "n_sentences": SENTENCES,
        "n_outputs": SENTENCES * len(TARGETS),
        "chance": 1 / 32,
        "seconds": 211.0,
        "peak_rss_bytes": 2_100_000_000,
        "results": results,
        "differences": {
            name: {"joint": around(0.33 - rate), "lfs": around(0.89 if name != "prompt" else 0.0)}
            for name, rate in NULLS.items()
        },
        "families": {
            "layer": 5,
            "nearest_neighbour": 0.83,
            "p": 0.0003,
            "cophenetic": 0.81,
            "unigram_nearest_neighbour": 0.6,
            "embedding_nearest_neighbour": 0.5,
            "latin_nearest_neighbour": 0.7,
            "latin_p": 0.004,
        },
        "choice": "on dev, one layer and strength for each method",
        "tests": synthetic_tests(),
        "doses": {
            "level": 0.9,
            "range": [0.3, 0.6],
            "dose": 0.41,
            "curves": synthetic_curves(around),
        },
        "by_language": {
            "alpha": 0.05,
            "comparisons": len(METHODS),
            "methods": {
                name: {
                    "per method": around(0.2),
                    "per method and language": around(0.27),
                    "test": compared(0.07, 0.02),
                }
                | {"choices": {iso: [5, 1.5] for iso in TARGETS[::2]}}
                for name in METHODS
            },
        },
        "counts": {"outputs": 1, "generated tokens": 2, "cells": 77},
        "choices": {name: {"layer": 5, "strength": 1.0, "joint_dev": 0.3} for name in METHODS},
    }


def compared(difference: float, p_holm: float) -> dict[str, float | None]:
    return {
        "difference": difference,
        "p": p_holm / 35,
        "p_holm": p_holm,
        "detects": 0.05,
        "detects_holm": 0.074,
    }


def synthetic_tests() -> dict[str, Any]:
    pairs = {
        name: {
            null: compared(rate - other, 0.0004 if null != "prompt" else 0.0321)
            for null, other in NULLS.items()
        }
        for name, rate in METHODS.items()
    }
    pairs["lda"]["diffmean"] = compared(-0.03, 0.456) | {"detects": None, "detects_holm": 0.0912}
    told = {
        "score": "joint",
        "family": "<6> methods less 5 controls",
        "comparisons": 31,
        "sentences": SENTENCES,
    }
    worth = {"outputs": 720.0, "effective": 345.9, "intraclass": 0.077, "design": 2.08}
    return told | {"least": 1e-4, "alpha": 0.05, "power": 0.8, "pairs": pairs, "together": worth}


def synthetic_curves(around: Callable[[float], list[float]]) -> dict[str, Any]:
    curve = {"layer": 5, "doses": [0.2, 0.4, 0.6], "area": around(0.28), "at": around(0.31)}
    least = {
        "diffmean": {"dose": 0.55, "said": "interpolated", "highest": 0.95},
        "lda": {"dose": 0.2, "said": "at the smallest dose", "highest": 0.98},
        "pca": {"dose": None, "said": "not reached", "highest": 0.73},
    }
    return {name: curve | {"least": item} for name, item in least.items()}


def synthetic_figures(rows: pd.DataFrame) -> dict[str, Any]:
    random = np.random.default_rng(0)
    langs = ["en", *TARGETS]
    families = "GGGG RRRR SSSS U T I J".replace(" ", "")
    order = [
        "en",
        "de",
        "nl",
        "sv",
        "es",
        "fr",
        "it",
        "pt",
        "ru",
        "uk",
        "bg",
        "pl",
        "hu",
        "tr",
        "hi",
        "ja",
    ]
    centres = {letter: random.normal(size=64) for letter in dict.fromkeys(families)}
    group = dict(zip(order, families, strict=True))
    vectors = np.stack([centres[group[iso]] + 0.6 * random.normal(size=64) for iso in langs])
    dev = rows[rows["split"] == "dev"]
    best = (
        dev[dev["layer"] == 5]
        .groupby(["method", "strength"])["joint"]
        .mean()
        .rename("value")
        .reset_index()
    )
    curve = best.assign(
        x=best["strength"], by=best["method"], low=best["value"] - 0.05, high=best["value"] + 0.05
    )
    level = pd.DataFrame(
        {
            "layer": [np.nan, np.nan],
            "value": [0.6, 0.5],
            "series": ["token unigrams", "embedding layer"],
        }
    )
    layers = np.arange(8)
    by_layer = [
        pd.DataFrame({"layer": layers, "value": np.linspace(start, stop, 8), "series": series})
        for start, stop, series in (
            (0.5, 0.83, "centred means"),
            (0.4, 0.7, "within Latin script"),
            (0.3, 0.32, "permutation null, 95 %"),
        )
    ]
    separation = pd.DataFrame(
        {
            "layer": layers,
            "trace_ratio": np.linspace(0.1, 0.6, 8),
            "nearest_mean": np.linspace(0.6, 0.99, 8),
        }
    )

    class Directions:
        pass

    directions = Directions()
    directions.langs, directions.layers, directions.vectors = tuple(langs), (5,), vectors[:, None]  # type: ignore[attr-defined]
    note = "Synthetic data, made to test the page"
    return {
        "heatmap": figures.heatmap(
            dev[(dev["method"] == "diffmean") & (dev["strength"] == 1)], note=note
        ),
        "separation": figures.separation(separation, chance=1 / 16, note=note),
        "cosines": figures.cosines(vectors, langs, layer=5, note=note),
        "dendrogram": figures.dendrogram(directions, note=note),  # type: ignore[arg-type]
        "dose_curves": figures.dose_curves(curve, chance=1 / 32, note=note),
        "families": figures.families(pd.concat([*by_layer, level]), note=note),
    }


def synthetic_run(folder: Path) -> Path:
    """A run folder with made-up numbers, complete in form."""
    rows = synthetic_rows()
    (folder / "figures").mkdir(parents=True)
    rows.to_parquet(folder / "rows.parquet")
    (folder / "summary.json").write_text(json.dumps(synthetic_summary()))
    manifest = {
        "command": ["steerlab", "run", "--out", "runs/a b", "--seed", "0"],
        "version": "0.1.0",
        "model": {"id": "polyglot", "sha256": "0123456789abcdef" * 4, "dtype": "float32"},
        "corpus": {
            "name": "embedded",
            "sha256": "fedcba9876543210" * 4,
            "languages": ["en", *TARGETS],
        },
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.9.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, figure in synthetic_figures(rows).items():
        figure.write_json(folder / "figures" / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("run") / "made")


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    file = write_report(made)
    assert file == made / "report.html"
    assert not list(made.glob("*.new"))
    return file.read_text(encoding="utf-8")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    for file in ("summary.json", "manifest.json", "rows.parquet"):
        (tmp_path / file).write_bytes((made / file).read_bytes())
    return tmp_path


class Reader(HTMLParser):
    """Tags, the text outside scripts and styles, and the JSON of the figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.json: list[str] = []
        self._inside: tuple[str, str | None] = ("", None)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs).get("type"))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ("", None)

    def handle_data(self, data: str) -> None:
        if self._inside == ("script", "application/json"):
            self.json.append(data)
        elif self._inside[0] not in ("script", "style"):
            self.text.append(data)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Reader(page).text))


# ----------------------------------------------------------------------------------- the whole page


def test_page_loads_nothing(page: str) -> None:
    loads = [
        value
        for _, attrs in Reader(page).tags
        for key, value in attrs.items()
        if key in ("src", "href", "srcset")
    ]
    assert all(value and value.startswith("#") for value in loads), loads
    tags = {tag for tag, _ in Reader(page).tags}
    assert not tags & {"img", "link", "iframe", "object", "embed"}
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css
    policy = next(attrs["content"] for tag, attrs in Reader(page).tags if "http-equiv" in attrs)
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
    table = page[page.index("class='headline'") : page.index("</table>")]
    rows = re.findall(r"<th scope='row'>([^<]*)", table)
    assert rows == [readable(name) for name in (*METHODS, *CONTROLS)]


def test_answer_has_the_numbers_of_the_summary(page: str) -> None:
    text = words(page)
    assert "Yes." in text
    for said in (
        "92 % [90, 94]",
        "33 % [29, 37]",
        "by chance: 3 %",
        "shuffled labels",
        "LDA with 36 %",
    ):
        assert said in text.replace("\xa0", " "), said


def test_families_stand_beside_what_shared_tokens_give(page: str) -> None:
    text = words(page).replace("\xa0", " ")
    assert (
        "83 % of the languages have their nearest neighbour in their own family (p = 0.0003" in text
    )
    assert (
        "token unigrams alone 60 %, the embedding layer 50 %, within Latin script 70 % (p = 0.004)"
        in text
    )


def test_headline_has_intervals_variants_and_chance(page: str) -> None:
    text = words(page)
    assert "0.33 [0.29, 0.37]" in text
    assert "own choice on dev" in text
    assert "Chance is 0.0312" in text
    assert "the stronger of the two is shown" in text


def section(page: str, title: str) -> str:
    """The text from a heading to the next."""
    return words(page[page.index(title) + len(title) :].split("<h3>")[0]).replace("\xa0", " ")


def test_paired_tests_stand_with_their_family_and_what_they_could_see(page: str) -> None:
    text = section(page, "<h3>Paired tests")
    assert "less unsteered less random direction" in text
    assert "less prompt instruction less DiffMean" in text
    assert "+0.33 p < 0.001 +0.32 p < 0.001" in text
    assert "−0.03 p = 0.46" in text
    assert "Holm's method over the family: <6> methods less 5 controls, 31 comparisons" in text
    assert "With 80 % power one test by itself sees a difference of 0.050, by comparison" in text
    assert "where Holm's correction is strictest, 0.074 to 0.091." in text
    assert (
        "The 720 outputs of DiffMean are worth 346 independent ones (intraclass correlation 0.08"
        in text
    )
    assert "Nothing here can pass" not in text
    bold = re.findall(r"<td class='number best'>[^<]*<small>p&nbsp;=&nbsp;0.032", page)
    assert len(bold) == len(METHODS), "below .05 after correction"
    assert "<td class='number'>−0.03<small>p&nbsp;=&nbsp;0.46" in page


def test_the_choice_is_named_and_one_for_each_language_is_folded(page: str) -> None:
    assert "chosen on dev, one layer and strength for each method" in words(page)
    text = section(page, "<summary>A choice for each method and language")
    assert "0.20 [0.16, 0.24] 0.27 [0.23, 0.31] +0.07 p = 0.020" in text
    assert "Method German Swedish French" in text
    assert "DiffMean 5 × 1.5" in text


def test_methods_stand_along_the_dose(page: str) -> None:
    text = section(page, "<h3>Along the dose")
    assert "Least dose for LFS 0.9 Joint at dose 0.41 Area under joint" in text
    assert "DiffMean 5 0.20 to 0.60 0.55 0.31 [0.27, 0.35] 0.28 [0.24, 0.32]" in text
    assert "LDA 5 0.20 to 0.60 ≤ 0.20 its smallest" in text
    assert "PCA 5 0.20 to 0.60 not reached at most 0.73" in text
    assert "the doses that all methods have, 0.30 to 0.60" in text


def test_outputs_are_escaped(page: str) -> None:
    assert "&lt;script&gt;alert(&#x27;out&#x27;)" in page
    assert "<script>alert" not in page
    assert "<img" not in page[page.index("<main>") : page.index("</main>")]


def test_figures_are_drawn_with_title_and_caption_in_the_page(page: str, made: Path) -> None:
    drawn = [json.loads(text) for text in Reader(page).json]
    assert len(drawn) == 6
    for figure in drawn:
        assert figure["data"]
        assert "title" not in figure["layout"]
        assert "width" not in figure["layout"]
    places = [
        page.index(f"id='figure-{name}'")
        for name in ("heatmap", "dose_curves", "separation", "families")
    ]
    assert places == sorted(places)
    assert words(page).count("Synthetic data, made to test the page") == 6


def test_five_good_and_five_bad_samples_of_each_method(page: str) -> None:
    for block in page.split("What it wrote")[1].split("<details")[1:7]:
        good, bad = block.split("class='bad'")
        assert good.count("<li>") == 5
        assert bad.count("<li>") == 5
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
    assert not re.search("Paired tests|Along the dose|A choice for each|; chosen", page)
    assert "DiffMean less each control" in page


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
    assert "These doses have no range in common" in section(page, "<h3>Along the dose")
    (run / "summary.json").write_text(json.dumps(summary | {"tests": {}}))
    assert "A single test sentence allows no paired test" in write_report(run).read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("joint", "lfs", "said"),
    [
        ([0.3, 0.2, 0.4], [0.9, 0.8, 1.0], "Yes."),
        ([0.03, 0.0, 0.06], [0.9, 0.8, 1.0], "The language, yes; the meaning, not shown."),
        ([0.0, -0.01, 0.01], [0.9, 0.8, 1.0], "The language, yes; the meaning, no."),
        ([0.0, -0.01, 0.01], [0.1, 0.0, 0.2], "No."),
        ([0.3, 0.2, 0.4], [0.5, 0.4, 0.6], "This run cannot tell."),
    ],
)
def test_verdict_follows_the_criterion(joint: list[float], lfs: list[float], said: str) -> None:
    strong = {"joint": [0.5, 0.4, 0.6], "lfs": [0.9, 0.8, 1.0]}
    prompt = {"joint": [-0.2, -0.3, -0.1], "lfs": [-0.1, -0.2, 0.0]}  # a yardstick, left out
    given = {"unsteered": strong, "shuffled": {"joint": joint, "lfs": lfs}, "prompt": prompt}
    assert verdict({"differences": given}) == said


def test_verdict_without_differences_cannot_tell() -> None:
    assert verdict({}) == "This run cannot tell."


def test_values() -> None:
    assert triple([0.1, 0.0, 0.2]) == (0.1, 0.0, 0.2)
    assert triple(0) == (0, 0, 0)
    assert triple([0.1, None, 0.2]) is triple(float("nan")) is triple("0.1") is None
    assert [probability(p).replace("&nbsp;", " ") for p in (0.0004, 0.0123, 0.456)] == [
        "&lt; 0.001",
        "= 0.012",
        "= 0.46",
    ]
    assert cell(None) == '<td class="number">–</td>'
    assert cell(0.41) == '<td class="number">0.41</td>'
    assert share([0.931, 0.9, 0.96]).replace("&nbsp;", " ") == "93 % [90, 96]"
    assert (
        setting({"operator": "add", "layer": 5, "strength": 1.0}) == "add, layer 5, 1 natural gap"
    )
    assert (
        setting({"operator": "add", "layer": 5, "strength": 1.5})
        == "add, layer 5, 1.5 natural gaps"
    )
    assert (
        setting({"operator": "rotate", "layer": 5, "strength": 0.5})
        == "rotate, layer 5, 0.5 × the angle"
    )
    assert setting({"operator": "none", "layer": -1}) == ""


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

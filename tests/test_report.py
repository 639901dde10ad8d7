"""The report of a synthetic run: whole, self-contained, escaped, and honest about what is missing."""

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
from steerlab.figures.style import CONTROLS, readable
from steerlab.report import write_report
from steerlab.report.values import cell, setting, share, triple
from steerlab.report.words import verdict
from steerlab.terms import SteerlabError

TARGETS = "de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
METHODS = {"diffmean": 0.33, "lda": 0.36, "pca": 0.2, "probe": 0.14, "eigengap": 0.27, "diffmean_rotate": 0.3}
NULLS = {"unsteered": 0.0, "random": 0.01, "shuffled": 0.06, "wrong": 0.02, "prompt": 0.41}
LAYERS, STRENGTHS, SENTENCES = (2, 4, 5, 6), (0.5, 1.0, 1.5), 48
PARALLEL = Path(figures.__file__).parent.parent / "data" / "parallel"
EVIL = "<script>alert('out')</script> & <img src=\"https://example.org/x.png\">"


def synthetic_rows() -> pd.DataFrame:
    """Random rows in the schema of a run: dev grids of every method, test rows at layer 5, strength 1."""
    random = np.random.default_rng(0)
    text = {iso: (PARALLEL / f"{iso}.txt").read_text(encoding="utf-8").splitlines() for iso in ["en", *TARGETS]}
    rows = []
    for method, rate in {**METHODS, **NULLS}.items():
        grid = [("test", 5, 1.0, target) for target in TARGETS]
        if method not in NULLS:
            grid += [("dev", lay, s, target) for lay in LAYERS for s in STRENGTHS for target in TARGETS[::2]]
        for split, layer, strength, target in grid:
            for sentence in range(SENTENCES if split == "test" else 16):
                rows.append(_row(random, text, method, rate, split, layer, strength, target, sentence))
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
    spoken = joint or bool(random.random() < (0.9 if method not in NULLS or method == "prompt" else 0.03))
    language = target if spoken else str(random.choice(["en", "none", target]))
    output = text[target][sentence] if joint else text.get(language, text["en"])[int(random.integers(0, 200))]
    return {
        "method": method,
        "estimator": method.removesuffix("_rotate"),
        "operator": "none" if method in ("unsteered", "prompt") else "rotate" if "rotate" in method else "add",
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
        "counts": {"outputs": 1, "generated tokens": 2, "cells": 77},
        "choices": {name: {"layer": 5, "strength": 1.0, "joint_dev": 0.3} for name in METHODS},
    }


def synthetic_figures(rows: pd.DataFrame) -> dict[str, Any]:
    random = np.random.default_rng(0)
    langs = ["en", *TARGETS]
    families = "GGGG RRRR SSSS U T I J".replace(" ", "")
    order = ["en", "de", "nl", "sv", "es", "fr", "it", "pt", "ru", "uk", "bg", "pl", "hu", "tr", "hi", "ja"]
    centres = {letter: random.normal(size=64) for letter in dict.fromkeys(families)}
    group = dict(zip(order, families, strict=True))
    vectors = np.stack([centres[group[iso]] + 0.6 * random.normal(size=64) for iso in langs])
    dev = rows[rows["split"] == "dev"]
    best = dev[dev["layer"] == 5].groupby(["method", "strength"])["joint"].mean().rename("value").reset_index()
    curve = best.assign(x=best["strength"], by=best["method"], low=best["value"] - 0.05, high=best["value"] + 0.05)
    level = pd.DataFrame(
        {"layer": [np.nan, np.nan], "value": [0.6, 0.5], "series": ["token unigrams", "embedding layer"]}
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
        {"layer": layers, "trace_ratio": np.linspace(0.1, 0.6, 8), "nearest_mean": np.linspace(0.6, 0.99, 8)}
    )

    class Directions:
        pass

    directions = Directions()
    directions.langs, directions.layers, directions.vectors = tuple(langs), (5,), vectors[:, None]  # type: ignore[attr-defined]
    note = "Synthetic data, made to test the page"
    return {
        "heatmap": figures.heatmap(dev[(dev["method"] == "diffmean") & (dev["strength"] == 1)], note=note),
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
        "corpus": {"name": "embedded", "sha256": "fedcba9876543210" * 4, "languages": ["en", *TARGETS]},
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


# ------------------------------------------------------------------------------------------------------ the whole page


def test_page_loads_nothing(page: str) -> None:
    loads = [
        value for _, attrs in Reader(page).tags for key, value in attrs.items() if key in ("src", "href", "srcset")
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
    for said in ("92 % [90, 94]", "33 % [29, 37]", "by chance: 3 %", "shuffled labels", "LDA with 36 %"):
        assert said in text.replace("\xa0", " "), said


def test_families_stand_beside_what_shared_tokens_give(page: str) -> None:
    text = words(page).replace("\xa0", " ")
    assert "83 % of the languages have their nearest neighbour in their own family (p = 0.0003" in text
    assert "token unigrams alone 60 %, the embedding layer 50 %, within Latin script 70 % (p = 0.004)" in text


def test_headline_has_intervals_variants_and_chance(page: str) -> None:
    text = words(page)
    assert "0.33 [0.29, 0.37]" in text
    assert "own choice on dev" in text
    assert "Chance is 0.0312" in text
    assert "the stronger of the two is shown" in text


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
    places = [page.index(f"id='figure-{name}'") for name in ("heatmap", "dose_curves", "separation", "families")]
    assert places == sorted(places)
    assert words(page).count("Synthetic data, made to test the page") == 6


def test_five_good_and_five_bad_samples_of_each_method(page: str) -> None:
    for block in page.split("<details")[1:7]:
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


# --------------------------------------------------------------------------------------------------- unusual summaries


def test_a_run_with_little_in_it_still_makes_a_page(run: Path) -> None:
    summary = synthetic_summary()
    for key in ("differences", "families", "choices", "chance", "seconds", "peak_rss_bytes"):
        del summary[key]
    summary["results"] = {"lda": {"joint": [0.2, float("nan"), 0.3], "lfs": None}, "unsteered": {}, "random": {}}
    summary["model"] = "<b>mine</b>"
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "manifest.json").write_text("{}")
    page = write_report(run).read_text(encoding="utf-8")
    assert "not run" in page
    assert "<b>mine" not in page
    assert "This run drew no figures" in page
    assert "nothing to answer" in page


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
    assert cell(None) == '<td class="number">–</td>'
    assert cell(0.41) == '<td class="number">0.41</td>'
    assert share([0.931, 0.9, 0.96]).replace("&nbsp;", " ") == "93 % [90, 96]"
    assert setting({"operator": "add", "layer": 5, "strength": 1.0}) == "add, layer 5, 1 natural gap"
    assert setting({"operator": "add", "layer": 5, "strength": 1.5}) == "add, layer 5, 1.5 natural gaps"
    assert setting({"operator": "rotate", "layer": 5, "strength": 0.5}) == "rotate, layer 5, 0.5 × the angle"
    assert setting({"operator": "none", "layer": -1}) == ""


# ------------------------------------------------------------------------------------------------------------- broken


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return replace


def lose_a_column(folder: Path) -> None:
    pd.read_parquet(folder / "rows.parquet").drop(columns="joint").to_parquet(folder / "rows.parquet")


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
def test_a_broken_folder_is_named(run: Path, break_it: Callable[[Path], None], message: str) -> None:
    break_it(run)
    with pytest.raises(SteerlabError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()

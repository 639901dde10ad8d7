"""docs/gemma.md: it is made of what was recorded, of the packaged corpus' sentences alone, and says
what a run has."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "gemma"))

import claims
import depth
import every_estimator
import gemma_bed
import gemma_page
import gemma_tables
import precision
import whole_run

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_json, write_table

ROOT = Path(gemma_page.__file__).resolve().parents[2]
RECORDS = gemma_page.read()
TIMED = """
	User time (seconds): 1500.25
	System time (seconds): 99.75
	Elapsed (wall clock) time (h:mm:ss or m:ss): 1:02:03.50
	Maximum resident set size (kbytes): 4194304
"""


def test_the_page_is_what_the_records_say() -> None:
    """It is never typed: the file is the generator's text, to the letter."""
    assert (ROOT / "docs" / "gemma.md").read_text("utf-8") == gemma_page.page(RECORDS)


def test_records_are_small_and_hold_no_other_text_than_the_packaged_corpus() -> None:
    assert sum(file.stat().st_size for file in gemma_bed.RECORDED.glob("*")) < 1_000_000
    corpus = sl.corpus()
    for name in ("joint", "not joint"):
        drawn = RECORDS["run"]["samples"][name]
        assert len(drawn) == 5
        for row in drawn:
            assert row["question"] in corpus["en"]
            assert row["reference"] in corpus[row["target"]]
    assert "output" not in json.dumps(RECORDS.get("news", {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with made-up numbers."""
    made = tmp_path_factory.mktemp("run")
    summary = synthetic_run.synthetic_summary()
    for row in summary["results"].values():
        row |= {"displacement": 0.3, "n": summary["n_outputs"]}
        row |= {name: [0.2, 0.1, 0.3] for name in ("faithful", "chrfpp", "echo")}
    summary["tests"]["pairs"]["lda"]["diffmean"]["p_holm"] = 0.456
    write_json(made / "summary.json", summary)
    manifest: dict[str, Any] = {
        "command": ["steerlab", "run"],
        "layers": [5],
        "model": {"dtype": "bfloat16"},
    }
    manifest["model"]["gguf"] = "a" * 64
    write_json(made / "manifest.json", manifest)
    rows = synthetic_run.synthetic_rows().assign(
        question=lambda table: table["prompt"].str.strip(),
        reference="its reference",
        chrfpp=30.0,
        faithful=False,
    )
    removed = rows[rows["method"] == "shuffled"].assign(method="removal ablate", split="dev")
    write_table(made / "rows.parquet", pd.concat([rows, removed], ignore_index=True))
    (made / "time.log").write_text(TIMED, "utf-8")
    return made


def test_the_run_is_read_whole_and_timed(folder: Path) -> None:
    found = whole_run.run(folder, folder / "time.log")
    assert found["time"] == {
        "wall seconds": 3723.5,
        "cpu seconds": 1600.0,
        "peak bytes": 4 * 2.0**30,
    }
    rows = synthetic_run.synthetic_rows()
    main = rows[(rows["method"] == "diffmean") & (rows["split"] == "test")]
    assert found["by target"]["de"]["diffmean joint"] == pytest.approx(
        main.loc[main["target"] == "de", "joint"].mean()
    )
    assert found["samples"]["joint, of"] == main["joint"].sum()
    assert found["samples"]["not joint, of"] == (~main["joint"]).sum()


def test_outputs_are_drawn_from_all_and_always_the_same(folder: Path) -> None:
    """Not the first, not the best: a draw of the seed, whatever the order of the rows."""
    table = pd.read_parquet(folder / "rows.parquet")
    rows = table.query("method == 'diffmean' and split == 'test'")
    drawn = whole_run.samples(rows)
    again = whole_run.samples(rows.sample(frac=1, random_state=3))
    assert drawn == again
    joint = rows[rows["joint"]].sort_values(["target", "sentence"])
    first = joint["question"].head(whole_run.SAMPLES).tolist()
    assert [row["question"] for row in drawn["joint"]] != first


def test_a_page_of_a_run_alone_names_what_was_not_run(folder: Path) -> None:
    run = whole_run.run(folder)
    page = gemma_page.page({"run": run | {"costs": {}}})
    assert "0.33 [0.29, 0.37]" in page
    assert "Not run: `python experiments/gemma/jobs.py depth`" in page
    table = gemma_tables.headline(run)
    assert len(table.splitlines()) == 2 + len(run["results"])
    assert "| *few-shot prompt" in table
    with pytest.raises(SteerlabError, match="experiments/gemma run --folder"):
        gemma_page.page({})


def test_claims_get_what_was_found_and_no_more(folder: Path) -> None:
    run = whole_run.run(folder)
    found = gemma_page.found_for_claims({"run": run})
    table = claims.table(found)
    assert table.count("*not run*") == 5  # depth, the atlas, and three about units
    assert "DiffMean less prompt" in table
    # LDA alone was compared with DiffMean in the made-up run, and told nothing.
    assert found["others less diffmean"] == {"lda": (-0.03, 0.456)}
    units = {"langfir median": 2.0, "langfir most": 4, "costs": {}}
    told = claims.table(gemma_page.found_for_claims({"run": run, "units": units}))
    assert told.count("*not run*") == 4


def rows_of(layer: int, strength: float, rate: float, split: str = "dev") -> pd.DataFrame:
    random = np.random.default_rng(layer)
    made = [
        {
            "method": depth.NAME,
            "layer": layer,
            "strength": strength,
            "split": split,
            "target": target,
            "sentence": sentence,
            "joint": bool(random.random() < rate),
            "in_language": True,
            "relevant": True,
            "chrfpp": 10.0,
            "dose": 0.3,
        }
        for target in ("de", "fr", "ja")
        for sentence in range(40)
    ]
    return pd.DataFrame(made)


@pytest.mark.parametrize(("early", "late"), [(0.9, 0.2), (0.2, 0.9)])
def test_halves_are_chosen_on_dev_and_compared_on_test(early: float, late: float) -> None:
    rates = {2: early, 4: 0.1, 14: late, 16: 0.05}
    dev = pd.concat([rows_of(layer, 1.0, rate) for layer, rate in rates.items()])
    test = pd.concat([rows_of(layer, 1.0, rate, "test") for layer, rate in rates.items()])
    found = depth.halves(dev, test, 18)
    assert (found["early layer"], found["late layer"]) == (2, 14)
    value, low, high = found["late less early"]
    assert low <= value <= high
    assert np.sign(low) == np.sign(high) == np.sign(late - early)


def test_estimators_with_the_same_vectors_are_run_once() -> None:
    corpus = sl.corpus(langs=["en", "de", "fr"]).split("estimate").take(24)
    moments = sl.collect(sl.load(), corpus, layers=[2, 4], also=["scatter", "sample"])
    fits = {name: sl.estimate.fit(name, moments) for name in ("diffmean", "leace", "lda", "probe")}
    assert every_estimator.alike(fits, "en") == {"leace": "diffmean"}
    assert every_estimator.cosine("lda_rotate", fits, 2, "en") < 0.999
    assert every_estimator.cosine("leace", fits, 2, "en") == pytest.approx(1)


def test_agreement_counts_letters_and_verdicts() -> None:
    one = pd.DataFrame(
        {
            "target": ["de", "de", "fr"],
            "sentence": [1, 2, 1],
            "output": ["a", "b", "c"],
            "joint": [True, True, False],
        }
    )
    other = one.assign(output=["a", "x", "y"], joint=[True, False, False]).iloc[::-1]
    assert precision.agreement(one, other) == {"outputs": 3, "equal": 1, "same verdict": 2}


def test_texts_stay_in_their_cell() -> None:
    assert gemma_tables.escaped("a | b\n<i>*c*</i> & d") == "a \\| b &lt;i>\\*c\\*&lt;/i> &amp; d"
    assert gemma_tables.escaped("  ") == "(nothing)"


def test_records_are_rounded_and_timed(tmp_path: Path) -> None:
    found: dict[Any, Any] = {"a": [1 / 3, {"b": 2e-7 / 3}], "c": True, 4: "d"}
    file = gemma_bed.keep("job", found, gemma_bed.Costs("a command"), folder=tmp_path)
    record = gemma_page.read(tmp_path)["job"]
    assert file.parent == tmp_path
    assert record["a"] == [0.33333, {"b": 6.6667e-08}]
    assert record["c"] is True
    assert record["4"] == "d"
    assert record["costs"]["command"] == "a command"
    assert record["costs"]["peak bytes"] > 1e7

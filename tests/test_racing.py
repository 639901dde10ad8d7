"""A race reads fewer lines than the grid, ends with the same choice where one setting is plainly
best, and says all."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import steerlab as sl
from steerlab.analysis.choices import choose, ranking
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.errors import SteerlabError
from steerlab.sweeps import race as racing
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import Runner
from steerlab.sweeps.sweep import sweep

SETTINGS = [(layer, strength) for layer in range(4) for strength in (0.5, 1.0, 1.5)]


class Table(Runner):
    """A runner whose rows are drawn: the chance of a joint output is that of the setting."""

    def __init__(self, chances: dict[tuple[int, float], float], lines: int = 16):
        self.count, self.asked = lines, 0
        draws = np.random.default_rng(0).random((lines, 4))
        self.joint = {setting: draws < chance for setting, chance in chances.items()}

    def lines(self, cell: Cell) -> Any:
        return range(self.count if cell.split == "dev" else 1)

    def run(
        self, cells: Iterable[Cell], *, title: str = "", progress: bool = False
    ) -> pd.DataFrame:
        rows = []
        for cell in cells:
            for line in cell.lines or range(self.count):
                joint = bool(self.joint[cell.layer, cell.strength][line, int(cell.target)])
                told = {
                    "method": cell.method,
                    "layer": cell.layer,
                    "strength": cell.strength,
                    "split": cell.split,
                }
                rows.append(
                    told
                    | {
                        "sentence": line,
                        "joint": joint,
                        "in_language": joint,
                        "dose": cell.strength,
                    }
                )
        self.asked += len(rows)
        return pd.DataFrame(rows)


def grid(method: str = "diffmean", settings: Sequence[tuple[int, float]] = SETTINGS) -> list[Cell]:
    return [
        Cell(
            method=method,
            operator="add",
            layer=layer,
            strength=strength,
            source="en",
            target=str(target),
            split="dev",
            fits=(method,),
        )
        for layer, strength in settings
        for target in range(4)
    ]


def test_the_plainly_best_setting_wins_at_a_fraction_of_the_cost():
    chances = dict.fromkeys(SETTINGS, 0.1) | {(2, 1.0): 0.9, (1, 1.0): 0.6}
    for seed in range(5):
        runner = Table(chances)
        found = race(runner, grid(), seed=seed)
        assert choose(found.rows) == {"diffmean": (2, 1.0)}
        assert runner.asked == len(found.rows) < len(SETTINGS) * 16 * 4 / 3


def test_every_setting_is_told_with_how_far_it_went():
    runner = Table(dict.fromkeys(SETTINGS, 0.1) | {(2, 1.0): 0.9})
    table = race(runner, grid()).settings
    assert len(table) == len(SETTINGS)
    assert (table["lines"] * 4).sum() == runner.asked
    assert (table["of"] == 16).all()
    assert (table["lines"][table["kept"]] == 16).all()
    assert (table["lines"][~table["kept"]] < 16).all()
    assert table[table["kept"]][["layer", "strength"]].to_numpy().tolist()[0] == [2, 1.0]
    known = table[table["lines"] > 1]
    assert ((known["low"] <= known["joint"]) & (known["joint"] <= known["high"])).all()


def test_a_setting_that_is_plainly_behind_drops_even_among_the_better_half(monkeypatch):
    chances = {(0, 0.5): 1.0, (0, 1.0): 0.0, (1, 0.5): 0.0, (1, 1.0): 0.0}
    cells = [
        replace(grid()[0], layer=layer, strength=s, target=str(t))
        for layer, s in chances
        for t in range(4)
    ]
    assert race(Table(chances), cells).settings["kept"].tolist() == [True, False, False, False]
    monkeypatch.setattr(racing, "_behind", lambda *_: False)
    assert race(Table(chances), cells).settings["kept"].sum() == 2


def test_methods_race_apart_and_the_order_of_lines_is_the_seeds():
    chances = dict.fromkeys(SETTINGS, 0.3)
    both = race(Table(chances), [*grid(), *grid("lda")])
    alone = race(Table(chances), grid())
    mine = both.settings[both.settings["method"] == "diffmean"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone.settings)
    again, other = (race(Table(chances), grid(), seed=seed) for seed in (0, 1))
    pd.testing.assert_frame_equal(again.rows, alone.rows)
    assert set(other.rows["sentence"][: 2 * 48]) != set(alone.rows["sentence"][: 2 * 48])


def test_one_split_at_a_time():
    cells = [*grid(), replace(grid()[0], split="test")]
    with pytest.raises(
        SteerlabError, match=r"a race needs cells of one split; these have \[1, 16\] lines"
    ):
        race(Table(dict.fromkeys(SETTINGS, 0.1)), cells)


@pytest.fixture(scope="module")
def pair() -> Corpus:
    return corpus().select(["en", "es"])


def test_a_raced_sweep_is_part_of_the_whole_one(polyglot, pair, tmp_path):
    options: dict[str, Any] = {
        "targets": ["es"],
        "layers": [2, 4, 6],
        "strengths": [0.5, 1.0],
        "limit": 8,
    }
    whole = sweep(polyglot, pair, **options)
    raced = sweep(polyglot, pair, race=True, out=tmp_path, **options)
    assert len(raced) < len(whole)
    where = ["layer", "strength", "sentence"]
    both = raced.merge(whole, on=where, suffixes=("", "_whole"))
    assert len(both) == len(raced)
    assert (both["output"] == both["output_whole"]).all()
    told = pd.DataFrame(raced.attrs["race"])
    assert told["lines"].sum() == len(raced)
    pd.testing.assert_frame_equal(
        sweep(polyglot, pair, race=True, out=tmp_path, **options), raced, rtol=1e-4
    )


def test_from_12_settings_on_about_a_third_of_the_rows_is_read() -> None:
    """Where all are equally good, so that none is left out for being plainly behind."""

    def share(count: int) -> float:
        settings = [(number, 1.0) for number in range(count)]
        table = Table(dict.fromkeys(settings, 0.5))
        race(table, grid(settings=settings))
        return table.asked / (count * 16 * 4)

    assert all(0.3 < share(count) <= 0.36 for count in range(12, 40))
    assert share(6) > 0.36, "of fewer it is more"


class Scored(Table):
    """Rows with a user's score that orders settings the other way round than `joint`."""

    missing = False

    def run(
        self, cells: Iterable[Cell], *, title: str = "", progress: bool = False
    ) -> pd.DataFrame:
        rows = super().run(cells, title=title, progress=progress)
        rows["warmth"] = 5.0 - 4.0 * rows["joint"] + 0.01 * rows["sentence"]
        rows["repetition"] = rows["joint"].astype(float)
        if self.missing:  # of some outputs there is no score
            rows.loc[rows["sentence"] % 3 == 0, "warmth"] = np.nan
        return rows


@pytest.mark.parametrize("missing", [False, True])
def test_a_race_by_a_users_score_ends_with_what_is_best_by_it(monkeypatch, missing):
    monkeypatch.setattr(Scored, "missing", missing)
    chances = dict.fromkeys(SETTINGS, 0.9) | {(2, 1.0): 0.1}
    found = race(Scored(chances), grid(), value="warmth")
    assert choose(found.rows, "warmth") == {"diffmean": (2, 1.0)}
    best = found.settings[(found.settings["layer"] == 2) & (found.settings["strength"] == 1.0)]
    assert best["kept"].all()
    assert "joint" not in found.settings
    known = found.settings[found.settings["lines"] > 4]
    assert (known["low"] < known["warmth"]).all()
    assert (known["warmth"] < known["high"]).all()
    # By joint the same rows end elsewhere.
    assert choose(race(Scored(chances), grid()).rows) != {"diffmean": (2, 1.0)}


def test_less_of_a_score_that_is_read_downwards_wins():
    chances = dict.fromkeys(SETTINGS, 0.9) | {(2, 1.0): 0.1}
    found = race(Scored(chances), grid(), value="repetition")
    assert choose(found.rows, "repetition") == {"diffmean": (2, 1.0)}


def test_a_setting_without_any_score_comes_last():
    table = Scored(dict.fromkeys([(0, 0.5), (1, 0.5)], 0.5)).run(
        grid(settings=[(0, 0.5), (1, 0.5)])
    )
    table.loc[table["layer"] == 0, "warmth"] = np.nan
    assert ranking(table, "warmth") == [(1, 0.5), (0, 0.5)]


def test_a_score_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SteerlabError, match=r"no score 'cold'; their numbers are joint, .*warmth"):
        race(Scored(dict.fromkeys(SETTINGS, 0.1)), grid(), value="cold")
    with pytest.raises(SteerlabError, match=r"race: there is no score 'cold'.*yours: warm; ours"):
        Grid(race="cold", scorers={"warm": lambda outputs: [0.0] * len(outputs)})
    with pytest.raises(SteerlabError, match=r"race: there is no score 'lfs'.*none are given"):
        Grid(race="lfs")
    with pytest.raises(SteerlabError, match=r"no score 'joint_second' to race by"):
        Grid(race="joint_second")  # which a run adds later
    with pytest.raises(SteerlabError, match=r"fluency=True"):
        Grid(race="bits_per_byte_ratio")
    assert Grid(race="yes").race is True
    assert Grid(race="joint").race == "joint"


def test_a_sweep_races_by_a_users_score_and_the_table_chooses_by_it(polyglot, pair):
    options: dict[str, Any] = {
        "targets": ["es"],
        "layers": [2, 4],
        "strengths": [0.5, 1.0, 2.0],
        "limit": 8,
        "scorers": {"length": lambda outputs: [float(len(text)) for text in outputs]},
    }
    whole = sweep(polyglot, pair, **options)
    raced = sweep(polyglot, pair, race="length", **options)
    assert len(raced) < len(whole)
    assert whole.attrs["scorers"] == ["length"]
    told = pd.DataFrame(raced.attrs["race"])
    best = told[told["kept"]].sort_values("length").iloc[-1]
    assert choose(raced, "length") == {"diffmean": (best["layer"], best["strength"])}
    frame = sl.table(whole, "frame", best="length")
    lengths = whole.assign(length=whole["output"].str.len())
    means = lengths.groupby(["layer", "strength"])["length"].mean()
    assert len(frame) == 1
    assert (frame["layer"][0], frame["strength"][0]) == means.idxmax()
    assert frame["length"][0] == pytest.approx(means.max())
    assert "Length" in sl.table(whole)

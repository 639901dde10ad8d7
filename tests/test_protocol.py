"""Choose on dev, report on test: planted winners win, and what would go wrong otherwise does."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from steerlab.analysis.choices import Setting, choose
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.edits import Edit
from steerlab.scores.langid import identifier
from steerlab.studies.design import (
    AT_METHOD,
    OWN_CHOICE,
    Control,
    Design,
    Method,
    spread_over_families,
)
from steerlab.studies.protocol import choose_and_report, run_cells
from steerlab.sweeps.cell import NO_LAYER, UNSTEERED, Cell
from steerlab.sweeps.runner import Runner

LOW: Setting = (1, 0.5)
HIGH: Setting = (2, 1.0)
PAIRS = (("en", "de"), ("en", "es"))

# The share of outputs that are joint, for a cell.
Chance = Callable[[Cell], float]


class Planted(Runner):
    """A runner whose rows are made up: of ten sentences of a cell, as many are joint as its chance
    says."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.cells: list[Cell] = []

    def run(
        self, cells: Iterable[Cell], *, title: str = "", progress: bool = False
    ) -> pd.DataFrame:
        rows = []
        for cell in cells:
            self.cells.append(cell)
            for sentence in range(10):
                joint = sentence < 10 * self.chance(cell)
                rows.append(
                    {
                        "method": cell.method,
                        "operator": cell.operator,
                        "layer": cell.layer,
                        "strength": cell.strength,
                        "source": cell.source,
                        "target": cell.target,
                        "split": cell.split,
                        "sentence": sentence,
                        "joint": joint,
                        "in_language": joint,
                        "dose": cell.strength,
                    }
                )
        return pd.DataFrame(rows)


def method(name: str = "ours", *settings: Setting) -> Method:
    return Method(name=name, operator="add", fits=(name,), settings=settings or (LOW, HIGH))


def design(**changes: Any) -> Design:
    given: dict[str, Any] = {"methods": (method(),), "dev": PAIRS, "test": PAIRS}
    return Design(**given | changes)


def planted(table: Mapping[tuple[str, str, Setting], float], otherwise: float = 0.0) -> Planted:
    """Chances by split, method and setting."""
    return Planted(lambda cell: table.get((cell.split, cell.method, cell.setting), otherwise))


# ----------------------------------------------------------------------------------------- choosing


def test_the_winner_on_dev_is_reported_and_choosing_on_test_would_pick_another():
    runner = planted(
        {
            ("dev", "ours", LOW): 0.9,
            ("dev", "ours", HIGH): 0.4,
            ("test", "ours", LOW): 0.5,
            ("test", "ours", HIGH): 0.8,
        }
    )
    report = choose_and_report(runner, design())
    assert report.choices == {"ours": LOW}
    assert report.tables["ours"]["joint"].mean() == 0.5, "not the best that there is on test"
    assert {cell.setting for cell in runner.cells if cell.split == "test" and cell.steered} == {LOW}
    test = runner.run(method().cells((LOW, HIGH), PAIRS, split="test", form="line"))
    assert choose(test.assign(split="dev")) == {"ours": HIGH}
    with pytest.raises(SteerlabError, match=r"on dev rows only, not on \['test'\]"):
        choose(test)


def test_each_method_and_control_chooses_for_itself():
    runner = planted(
        {("dev", "ours", LOW): 0.9, ("dev", "other", HIGH): 0.9, ("dev", "blind", HIGH): 0.2}
    )
    blind = Control(method=method("blind"))
    report = choose_and_report(
        runner, design(methods=(method(), method("other")), controls=(blind,))
    )
    assert report.choices == {"blind": HIGH, "other": HIGH, "ours": LOW}
    run = {(cell.method, cell.setting) for cell in runner.cells if cell.split == "test"}
    bare = {(UNSTEERED, (NO_LAYER, 0.0))}
    assert run == {("ours", LOW), ("other", HIGH), ("blind", HIGH), ("blind", LOW)} | bare


def test_given_choices_leave_dev_alone():
    runner = planted({("all", "ours", HIGH): 0.6})
    report = choose_and_report(runner, design(), choices={"ours": HIGH}, split="all")
    assert report.dev.empty
    assert {cell.split for cell in runner.cells} == {"all"}
    assert report.tables["ours"]["joint"].mean() == 0.6
    with pytest.raises(SteerlabError, match="no setting to report ours at: none was given"):
        choose_and_report(runner, design(), choices={"other": HIGH})


def test_dev_may_be_run_in_another_way():
    asked = []

    def halve(runner: Runner, cells: list[Cell]) -> pd.DataFrame:
        asked.extend(cells)
        return runner.run([cell for cell in cells if cell.setting == HIGH])

    report = choose_and_report(planted({}), design(), run_dev=halve)
    assert asked == design().dev_cells()
    assert report.choices == {"ours": HIGH}
    lost = Control(method=method("lost", LOW))
    with pytest.raises(
        SteerlabError, match="no setting to report lost at.*every one failed on dev"
    ):
        choose_and_report(planted({}), design(controls=(lost,)), run_dev=halve)


# ----------------------------------------------------------------------------------------- controls


def controlled(at_method: float, own: float, **changes: Any) -> Any:
    """The report of a control that chooses HIGH on dev, beside a method that chooses LOW."""
    table = {
        ("dev", "ours", LOW): 0.9,
        ("dev", "blind", HIGH): 0.5,
        ("test", "blind", LOW): at_method,
        ("test", "blind", HIGH): own,
    }
    control = Control(method=method("blind"), **changes)
    return choose_and_report(planted(table), design(controls=(control,)))


def test_the_stronger_chance_of_a_control_is_shown():
    assert controlled(0.3, 0.2).shown == {"blind": AT_METHOD}
    assert controlled(0.3, 0.2).tables["blind"]["joint"].mean() == 0.3
    assert controlled(0.2, 0.3).shown == {"blind": OWN_CHOICE}
    assert controlled(0.2, 0.3).tables["blind"]["joint"].mean() == 0.3
    # A control with one chance is shown at that, however weak it is there.
    assert controlled(0.3, 0.2, chances=(OWN_CHOICE,)).tables["blind"]["joint"].mean() == 0.2
    assert controlled(0.2, 0.3, chances=(AT_METHOD,)).tables["blind"]["joint"].mean() == 0.2


def test_a_control_without_a_choice_is_not_run_on_dev_and_one_setting_runs_once():
    at_method = Control(method=method("blind"), chances=(AT_METHOD,))
    assert {cell.method for cell in design(controls=(at_method,)).dev_cells()} == {"ours"}
    both = design(controls=(Control(method=method("blind")),))
    assert {cell.method for cell in both.dev_cells()} == {"ours", "blind"}

    def runs(choices: dict[str, Setting]) -> list[Setting]:
        cells = both.test_cells(choices)
        return [cell.setting for cell in cells if cell.method == "blind" and cell.target == "de"]

    assert runs({"ours": LOW, "blind": LOW}) == [LOW]
    assert runs({"ours": HIGH, "blind": LOW}) == [LOW, HIGH]


def test_a_control_may_choose_on_fewer_pairs_and_is_reported_on_all():
    control = Control(method=method("blind"), dev=PAIRS[:1])
    made = design(controls=(control,))
    dev = {cell.target for cell in made.dev_cells() if cell.method == "blind"}
    test = {
        cell.target
        for cell in made.test_cells({"ours": LOW, "blind": LOW})
        if cell.method == "blind"
    }
    assert (dev, test) == ({"de"}, {"de", "es"})


def test_controls_without_an_edit_are_the_model_as_it_is_and_prompts():
    made = design(prompts={"prompt": "instructed"}, form="chat")
    plain = [cell for cell in made.test_cells({"ours": LOW}) if not cell.steered]
    assert {(cell.method, cell.form) for cell in plain} == {
        (UNSTEERED, "chat"),
        ("prompt", "instructed"),
    }
    assert all(cell.edit({}, 0) == Edit(()) for cell in plain)
    steered = [cell for cell in made.test_cells({"ours": LOW}) if cell.steered]
    assert {cell.form for cell in steered} == {"chat"}


# ------------------------------------------------------------------------------ what cannot be done


def test_a_pair_that_a_method_cannot_steer_counts_as_unsteered():
    """At LOW the method has units of the easy language only, at HIGH of both: left out, the hard
    one would make LOW look the best."""

    def chance(cell: Cell) -> float:
        if not cell.steered:
            return 0.1
        return {LOW: 0.9, HIGH: 0.6}[cell.setting]

    def able(cell: Cell) -> bool:
        return cell.setting == HIGH or cell.target == "de"

    some = design(able=able)
    runner = Planted(chance)
    report = choose_and_report(runner, some)
    assert report.choices == {"ours": HIGH}
    bare = report.dev[report.dev["method"] != UNSTEERED]
    mine = bare.groupby(["layer", "strength"])["joint"].mean()
    assert mine[LOW] > mine[HIGH], "without the unsteered rows LOW would be chosen"
    assert not any(cell.steered and not able(cell) for cell in runner.cells)
    table = some.tables(runner.run(some.test_cells({"ours": LOW})), {"ours": LOW})[0]["ours"]
    assert table.groupby("target")["joint"].mean().to_dict() == {"de": 0.9, "es": 0.1}
    assert set(table["method"]) == {"ours"}
    assert {cell.method for cell in design().dev_cells()} == {"ours"}, "else dev has no such rows"


def test_what_can_steer_nothing_is_left_out_unless_it_is_the_main_method():
    lost = method("lost")
    able = lambda cell: cell.method != "lost"  # noqa: E731
    report = choose_and_report(planted({}), design(methods=(method(), lost), able=able))
    assert set(report.tables) == {"ours", UNSTEERED}
    with pytest.raises(SteerlabError, match="the main method lost can steer no pair"):
        choose_and_report(planted({}), design(methods=(lost, method()), able=able))


def test_a_language_is_never_steered_to_itself():
    pairs = (("en", "de"), ("de", "de"))
    made = design(dev=pairs, test=pairs)
    cells = [*made.dev_cells(), *made.test_cells({"ours": LOW})]
    assert {cell.method for cell in cells if cell.source == cell.target} == {UNSTEERED}
    assert {cell.method for cell in made.dev_cells()} == {"ours"}, "nothing was left out"


def test_directions_of_a_source_go_to_its_pairs():
    fits = {"en": ("pca from en",), "de": ("pca from de",)}
    pca = Method(name="pca", operator="add", fits=fits, settings=(LOW,))
    cells = pca.cells((LOW,), (("en", "es"), ("de", "es")), split="dev", form="line")
    assert [(cell.source, cell.fits) for cell in cells] == list(fits.items())


def test_a_design_that_cannot_be_told_apart_is_refused():
    with pytest.raises(SteerlabError, match="two methods or controls are called 'ours'"):
        design(controls=(Control(method=method()),))
    with pytest.raises(SteerlabError, match="two methods or controls are called 'unsteered'"):
        design(prompts={UNSTEERED: "instructed"})
    with pytest.raises(SteerlabError, match="there is no method to choose a setting for"):
        design(methods=())


def test_a_failed_cell_raises_and_nothing_is_reported():
    class Failing(Planted):
        def run(self, *given: Any, **options: Any) -> pd.DataFrame:
            rows = super().run(*given, **options)
            rows.attrs["failed"] = {"key": "no such luck"}
            return rows

    told = "1 of 4 cells failed, the first with: no such luck; what was finished is kept"
    with pytest.raises(SteerlabError, match=told):
        choose_and_report(Failing(lambda cell: 0.5), design())
    lines: list[str] = []
    run_cells(planted({}), design().dev_cells(), title="choosing", log=lines.append)
    assert lines == ["choosing: 4 cells"]


# ---------------------------------------------------------------------------------------- languages


def test_families_take_turns():
    langs = ("de", "nl", "sv", "es", "fr", "ru")
    few = spread_over_families(langs, 3)
    assert few == ("de", "es", "ru")
    assert len({language(lang).family for lang in few}) == 3
    assert len({language(lang).family for lang in langs[:3]}) == 1, "the first three are of one"
    assert spread_over_families(langs, 9) == ("de", "es", "ru", "nl", "fr", "sv")
    assert spread_over_families((), 3) == ()


# -------------------------------------------------------------------------------- with a real model


@pytest.fixture(scope="module")
def pair() -> Corpus:
    return corpus().select(["en", "es"])


def test_with_a_model_the_true_direction_wins_over_its_control(polyglot, pair, directions):
    """At strength 0.01 nothing happens; at 1.0 DiffMean says Spanish, and its negative does
    not."""
    backwards = replace(directions, vectors=-directions.vectors)
    runner = Runner(
        model=polyglot,
        corpus=pair,
        directions={"true": directions, "backwards": backwards},
        identifier=identifier(),
        limits={"dev": 3, "test": 3},
        new_tokens=12,
    )
    settings = ((5, 0.01), (5, 1.0))
    true = Method(name="true", operator="add", fits=("true",), settings=settings)
    backwards_method = Method(
        name="backwards", operator="add", fits=("backwards",), settings=settings
    )
    english_to_spanish = (("en", "es"),)
    report = choose_and_report(
        runner,
        Design(
            methods=(true,),
            controls=(Control(method=backwards_method),),
            dev=english_to_spanish,
            test=english_to_spanish,
        ),
        fluency=True,
    )
    assert report.choices["true"] == (5, 1.0)
    spoken = {name: rows["in_language"].mean() for name, rows in report.tables.items()}
    assert spoken["true"] > max(spoken["backwards"], spoken[UNSTEERED])
    assert not set(report.dev["sentence"]) & set(report.test["sentence"])
    assert report.dev["bits_per_byte_ratio"].isna().all(), "no choice reads fluency"
    assert report.test["bits_per_byte_ratio"].notna().any()


# --------------------------------------------------------------------------------------------- cell


def test_a_cell_without_an_edit():
    cell = Cell.unsteered(source="en", target="es", split="dev")
    assert (cell.method, cell.operator, cell.setting, cell.fits) == (
        UNSTEERED,
        "none",
        (NO_LAYER, 0.0),
        (),
    )
    assert not cell.steered
    assert replace(cell, operator="add").steered
    with pytest.raises(TypeError, match="positional"):
        Cell("unsteered", "none", -1, 0.0, "en", "es", "dev")  # type: ignore[call-arg]

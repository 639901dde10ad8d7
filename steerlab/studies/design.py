"""What a study compares: methods, the controls they have to beat, and the languages they are tried
on.

A `Design` is pure: its cells can be counted, and its rows put together, without a model.
`protocol.choose_and_report` runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from steerlab.analysis.choices import Setting, at
from steerlab.analysis.results import stronger
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.edits.twins import Twin
from steerlab.sweeps.cell import UNSTEERED, Cell

Pair = tuple[str, str]  # source and target language

# The two chances of a steered control, as the results name them.
AT_METHOD = "at the method's cell"
OWN_CHOICE = "its own setting, chosen on dev"


@dataclass(frozen=True, kw_only=True)
class Method:
    """Directions, the operator that steers with them, and the settings to choose from.

    Args:
        name: what the rows and the results call it.
        operator: a name of `edits.OPERATORS`.
        fits: names of the runner's directions, which sentences take in turn; by source language
            where each source has directions of its own.
        settings: the layers and strengths to choose from.
        twins: seeds of random twins, which are run in the place of the edits of the fits, scaled to
            their dose.
    """

    name: str
    operator: str
    fits: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    settings: tuple[Setting, ...] = ()
    twins: tuple[int, ...] = ()

    def fits_of(self, source: str) -> tuple[str, ...]:
        """The names of the directions from a source language."""
        return self.fits if isinstance(self.fits, tuple) else self.fits[source]

    def cells(
        self, settings: Sequence[Setting], pairs: Sequence[Pair], *, split: str, form: str
    ) -> list[Cell]:
        """The cells of some settings and pairs; a language has no direction to itself, so that
        pairs of one language are left out."""
        return [
            Cell(
                method=self.name,
                operator=self.operator,
                layer=layer,
                strength=strength,
                source=source,
                target=target,
                split=split,
                fits=self.fits_of(source),
                form=form,
                twins=tuple(Twin(seed) for seed in self.twins),
            )
            for layer, strength in settings
            for source, target in pairs
            if source != target
        ]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A method that knows nothing of the language, and which chances it has.

    Args:
        method: its directions and settings.
        chances: `AT_METHOD`, `OWN_CHOICE` or, by default, both, of which the stronger is shown.
        dev: the pairs that its own choice is made on; by default those of the methods.
    """

    method: Method
    chances: tuple[str, ...] = (AT_METHOD, OWN_CHOICE)
    dev: tuple[Pair, ...] | None = None

    @property
    def chooses(self) -> bool:
        """Whether it is run on dev."""
        return OWN_CHOICE in self.chances

    def settings(self, choices: Mapping[str, Setting], main: str) -> dict[str, Setting]:
        """Its setting at each of its chances; without its own choice where it has none."""
        settings = {}
        if AT_METHOD in self.chances:
            settings[AT_METHOD] = choices[main]
        if self.chooses and self.method.name in choices:
            settings[OWN_CHOICE] = choices[self.method.name]
        return settings


def _always(cell: Cell) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is compared, and on which languages.

    Some methods cannot steer every pair at every setting: they may have no units of a language in a
    layer. `able` says of a cell whether it can be run. Where it cannot, the method is what it would
    be in use: unsteered. So the unsteered rows of the pair count as its rows there, on dev and on
    test; left out, the method would be scored on the languages that it finds easy.

    Args:
        methods: the first one is the main one, at whose setting controls are run.
        controls: the steered controls.
        prompts: controls without an edit, as name and form; `UNSTEERED`, in the form of all
            others, is always among them.
        dev: the pairs that choices are made on.
        test: the pairs that are reported on.
        form: the form of all other prompts.
        able: whether a steered cell can be run.
    """

    methods: tuple[Method, ...]
    controls: tuple[Control, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    dev: tuple[Pair, ...]
    test: tuple[Pair, ...]
    form: str = "line"
    able: Callable[[Cell], bool] = _always

    def __post_init__(self) -> None:
        if not self.methods:
            raise SteerlabError("there is no method to choose a setting for; give at least one")
        names = [method.name for method in self.methods]
        names += [control.method.name for control in self.controls]
        names += [UNSTEERED, *self.prompts]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SteerlabError(
                f"two methods or controls are called {twice[0]!r}; give each a name of its own"
            )

    @property
    def main(self) -> str:
        """The name of the method that controls are held beside."""
        return self.methods[0].name

    @property
    def chosen(self) -> list[str]:
        """The names of all that has a choice on dev."""
        names = [method.name for method in self.methods]
        return names + [control.method.name for control in self.controls if control.chooses]

    # ------------------------------------------------------------------------------------ the cells

    def dev_cells(self) -> list[Cell]:
        """Every method, and every control that chooses, at every setting."""
        options = {"split": "dev", "form": self.form}
        cells: list[Cell] = []
        for method in self.methods:
            cells += method.cells(method.settings, self.dev, **options)
        for control in self.controls:
            if control.chooses:
                pairs = self._dev_of(control)
                cells += control.method.cells(control.method.settings, pairs, **options)
        able = [cell for cell in cells if self.able(cell)]
        if len(able) == len(cells):
            return cells
        # The unsteered rows will stand where a method cannot steer.
        pairs = tuple(dict.fromkeys((cell.source, cell.target) for cell in cells))
        return [*_unsteered({UNSTEERED: self.form}, pairs, "dev"), *able]

    def test_cells(self, choices: Mapping[str, Setting], split: str = "test") -> list[Cell]:
        """Each method at its choice, each control at its chances, and the controls without an
        edit; what has no choice is left out."""
        options = {"split": split, "form": self.form}
        cells: list[Cell] = []
        for method in self.methods:
            if method.name in choices:
                cells += method.cells([choices[method.name]], self.test, **options)
        for control in self.controls:
            # Both chances may be one setting, which then is run once.
            settings = sorted(set(control.settings(choices, self.main).values()))
            cells += control.method.cells(settings, self.test, **options)
        cells = [cell for cell in cells if self.able(cell)]
        return cells + _unsteered({UNSTEERED: self.form} | dict(self.prompts), self.test, split)

    # ------------------------------------------------------------------------------------- the rows

    def completed(self, dev: pd.DataFrame) -> pd.DataFrame:
        """The dev rows that choices are made from, with unsteered ones where a method cannot
        steer; a setting at which it can steer no pair is none."""
        if UNSTEERED not in set(dev["method"]):  # every cell could be run
            return dev
        tried = [(method, self.dev) for method in self.methods]
        tried += [(control.method, self._dev_of(control)) for control in self.controls]
        parts = []
        for method, pairs in tried:
            for setting in method.settings:
                rows = at(dev, method.name, setting)
                if len(rows):
                    parts.append(_with_unsteered(rows, method, setting, dev, pairs))
        return pd.concat(parts, ignore_index=True)

    def tables(
        self, test: pd.DataFrame, choices: Mapping[str, Setting]
    ) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
        """The test rows that stand for each method and control, by name, and which of its chances
        each steered control is shown at: the stronger."""
        tables: dict[str, pd.DataFrame] = {}
        shown: dict[str, str] = {}
        for method in self.methods:
            if method.name in choices:
                tables[method.name] = self.rows_at(test, method, choices[method.name])
        for name, variants in self.variants(test, choices).items():
            shown[name], tables[name] = stronger(variants)
        for name in (UNSTEERED, *self.prompts):
            tables[name] = test[test["method"] == name]
        return tables, shown

    def variants(
        self, test: pd.DataFrame, choices: Mapping[str, Setting]
    ) -> dict[str, dict[str, pd.DataFrame]]:
        """The test rows of each steered control at each of its chances."""
        variants: dict[str, dict[str, pd.DataFrame]] = {}
        for control in self.controls:
            settings = control.settings(choices, self.main)
            if settings:
                variants[control.method.name] = {
                    chance: self.rows_at(test, control.method, setting)
                    for chance, setting in settings.items()
                }
        return variants

    def _dev_of(self, control: Control) -> tuple[Pair, ...]:
        return self.dev if control.dev is None else control.dev

    def rows_at(self, test: pd.DataFrame, method: Method, setting: Setting) -> pd.DataFrame:
        """A method's test rows at a setting, with the unsteered ones of the pairs that it cannot
        steer there."""
        rows = at(test, method.name, setting)
        return _with_unsteered(rows, method, setting, test, self.test)


def spread_over_families(langs: Sequence[str], count: int) -> tuple[str, ...]:
    """The first `count` languages when the families take turns, so that a few stand for many."""
    by_family: dict[str, list[str]] = {}
    for lang in langs:
        by_family.setdefault(language(lang).family, []).append(lang)
    order = []
    for turn in range(max(map(len, by_family.values()), default=0)):
        order += [members[turn] for members in by_family.values() if turn < len(members)]
    return tuple(order[:count])


def _unsteered(forms: Mapping[str, str], pairs: Sequence[Pair], split: str) -> list[Cell]:
    return [
        Cell.unsteered(method=name, source=source, target=target, split=split, form=form)
        for name, form in forms.items()
        for source, target in pairs
    ]


def _with_unsteered(
    rows: pd.DataFrame,
    method: Method,
    setting: Setting,
    split: pd.DataFrame,
    pairs: Sequence[Pair],
) -> pd.DataFrame:
    """A method's rows at a setting and, under its name, the unsteered rows of the pairs that it
    cannot steer.

    Args:
        rows: the method's rows at the setting.
        method: the method.
        setting: layer and strength.
        split: all rows of the split, the unsteered ones among them.
        pairs: the pairs that rows are needed of.
    """
    steered_pairs = set(zip(rows["source"], rows["target"], strict=True))
    # No method can steer a language to itself, so that such a pair is not missing.
    missing = {pair for pair in pairs if pair[0] != pair[1]} - steered_pairs
    if not missing:
        return rows
    unsteered = split[split["method"] == UNSTEERED]
    unsteered_pairs = zip(unsteered["source"], unsteered["target"], strict=True)
    of_missing = [pair in missing for pair in unsteered_pairs]
    unsteered = unsteered[np.array(of_missing, dtype=bool)]
    if len(rows):  # in a race each setting has read some of the sentences
        unsteered = unsteered[unsteered["sentence"].isin(rows["sentence"])]
    layer, strength = setting
    unsteered = unsteered.assign(
        method=method.name, operator=method.operator, layer=layer, strength=strength
    )
    return pd.concat([rows, unsteered], ignore_index=True)

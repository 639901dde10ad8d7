"""Which cells the main job runs: the methods' grid on dev, their choices and the controls on
test, removal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerlab.core.languages import language
from steerlab.edits import OPERATORS
from steerlab.sweeps.cell import RUN, Cell
from steerlab.sweeps.grid import method_name

MAIN = "diffmean"
METHODS = (
    ("diffmean", "add"),
    ("lda", "add"),
    ("pca", "add"),
    ("probe", "add"),
    ("eigengap", "add"),
    ("diffmean", "rotate"),
)
STRENGTHS = {"add": (0.5, 1.0, 1.5), "rotate": (0.5, 1.0, 1.5)}
SEEDS, DEV_TARGETS, CONTROL_TARGETS = 5, 8, 4

Setting = tuple[int, float]  # layer and strength


def spread_layers(count: int, *, quick: bool = False, full: bool = False) -> tuple[int, ...]:
    """Four layers of a model (two if `quick`, all if `full`), evenly spread and with the last."""
    if full:
        return tuple(range(count))
    few = min(2 if quick else 4, count)
    return tuple(sorted({round((count - 1) * (i + 1) / few) for i in range(few)}))


@dataclass(frozen=True)
class Plan:
    """The grid of a run; `full` takes every strength and target on dev, `quick` DiffMean alone
    and three targets."""

    source: str
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    form: str = "line"
    wrong: bool = True  # whether there is a third language to be the wrong one
    quick: bool = False
    full: bool = False

    @property
    def methods(self) -> tuple[tuple[str, str], ...]:
        """(estimator, operator) of each method."""
        return METHODS[:1] if self.quick else METHODS

    @property
    def names(self) -> list[str]:
        """What each method is called in the rows."""
        return [method_name(*pair) for pair in self.methods]

    @property
    def controls(self) -> dict[str, list[str]]:
        """The fits of each control of equal dose."""
        found = {
            "random": [
                f"random {kind} {seed}"
                for kind in ("isotropic", "covariance")
                for seed in range(SEEDS)
            ],
            "shuffled": [f"shuffled {seed}" for seed in range(SEEDS)],
        }
        if self.wrong:
            found["wrong"] = [f"wrong {seed}" for seed in range(SEEDS)]
        return found

    @property
    def dev_targets(self) -> tuple[str, ...]:
        """Eight targets, one of each family in turn."""
        if self.full:
            return self.targets
        by_family: dict[str, list[str]] = {}
        for iso in self.targets:
            by_family.setdefault(language(iso).family, []).append(iso)
        turns = max(map(len, by_family.values()))
        order = [
            group[turn]
            for turn in range(turns)
            for group in by_family.values()
            if turn < len(group)
        ]
        return tuple(order[: 3 if self.quick else DEV_TARGETS])

    def dev(self) -> list[Cell]:
        """Every method and control at every layer and strength; the controls on half of the
        targets."""
        cells = []
        for estimator, operator in self.methods:
            grid = self._grid(operator)
            cells += self._cells(
                method_name(estimator, operator),
                operator,
                [estimator],
                grid,
                "dev",
                self.dev_targets,
            )
        for name, fits in self.controls.items():
            targets = self.dev_targets if self.full else self.dev_targets[:CONTROL_TARGETS]
            cells += self._cells(name, "add", fits, self._grid("add"), "dev", targets)
        return cells

    def test(self, choices: Mapping[str, Setting]) -> list[Cell]:
        """Each method at its choice; each control at the main method's cell and at its own
        choice."""
        cells = []
        for estimator, operator in self.methods:
            name = method_name(estimator, operator)
            cells += self._cells(name, operator, [estimator], [choices[name]], "test", self.targets)
        for name, fits in self.controls.items():
            cells += self._cells(
                name, "add", fits, sorted({choices[MAIN], choices[name]}), "test", self.targets
            )
        for name, form in (("unsteered", self.form), ("prompt", "instructed")):
            cells += [
                Cell(name, "none", -1, 0.0, self.source, iso, "test", (), form)
                for iso in self.targets
            ]
        return cells

    def removal(self, layer: int) -> list[Cell]:
        """Continue a run of two lines of each language while its direction is removed: does the
        language go?"""
        cells = []
        for iso in self.dev_targets:
            cells.append(Cell("removal none", "none", -1, 0.0, iso, iso, "dev", (), RUN))
            for fraction in OPERATORS["ablate"].grid:
                for name, fits in (("ablate", [MAIN]), ("random", self.controls["random"])):
                    method = f"removal {name}"
                    cells.append(
                        Cell(method, "ablate", layer, fraction, iso, iso, "dev", tuple(fits), RUN)
                    )
        return cells

    def _grid(self, operator: str) -> list[Setting]:
        few = STRENGTHS[operator][1:] if self.quick else STRENGTHS[operator]
        return [
            (layer, strength)
            for layer in self.layers
            for strength in (OPERATORS[operator].grid if self.full else few)
        ]

    def _cells(
        self,
        method: str,
        operator: str,
        fits: Sequence[str],
        settings: Sequence[Setting],
        split: str,
        targets: Sequence[str],
    ) -> list[Cell]:
        return [
            Cell(
                method,
                operator,
                layer,
                strength,
                self.source,
                target,
                split,
                tuple(fits),
                self.form,
            )
            for layer, strength in settings
            for target in targets
        ]

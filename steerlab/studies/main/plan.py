"""What the main job compares: methods and controls on dev and test, and the removal of a
language."""

from dataclasses import dataclass
from typing import Any

from steerlab.analysis.choices import Setting
from steerlab.edits import OPERATORS
from steerlab.edits.twins import Twin
from steerlab.engine.shots import read_shots, with_number
from steerlab.studies.design import Control, Design, Method, Pair, spread_over_families
from steerlab.sweeps.cell import RUN, Cell
from steerlab.sweeps.grid import ALL, method_name
from steerlab.sweeps.methods import operator_for

MAIN = "diffmean"
METHODS = (
    ("diffmean", "add"),
    ("lda", "add"),
    ("pca", "add"),
    ("probe", "add"),
    ("eigengap", "add"),
    ("diffmean", "rotate"),
)
STRENGTHS: dict[str, tuple[float, ...]] = {"add": (0.5, 1.0, 1.5), "rotate": (0.5, 1.0, 1.5)}
RANDOM = ("random isotropic", "random covariance")
SEEDS = 5  # of each control: its sentences take them in turn
DEV_TARGETS = 8
CONTROL_TARGETS = 4  # controls are chosen on half of the dev targets, since there are many of them


def spread_layers(count: int, *, quick: bool = False, full: bool = False) -> tuple[int, ...]:
    """Four layers of a model (two if `quick`, all if `full`), evenly spread and with the last."""
    if full:
        return tuple(range(count))
    few = min(2 if quick else 4, count)
    # Of n layers the ends of n equal parts: the last layer is one of them, the first is none.
    return tuple(sorted({round((count - 1) * (i + 1) / few) for i in range(few)}))


def control_fits(*, wrong: bool = True) -> dict[str, tuple[str, ...]]:
    """The names of the directions of each control of equal dose; `wrong` needs a third language."""
    seeds = range(SEEDS)
    isotropic = tuple(f"random isotropic {seed}" for seed in seeds)
    covariance = tuple(f"random covariance {seed}" for seed in seeds)
    fits = {
        "random isotropic": isotropic,
        "random covariance": covariance,
        "shuffled": tuple(f"shuffled {seed}" for seed in seeds),
    }
    if wrong:
        fits["wrong"] = tuple(f"wrong {seed}" for seed in seeds)
    return fits


@dataclass(frozen=True)
class Plan:
    """What a run of the main job tries.

    Args:
        source: the language of the prompts.
        targets: the languages that are steered towards.
        layers: the layers to choose from.
        form: the form of the prompts.
        wrong: whether there is a third language to be the wrong one.
        quick: DiffMean alone, two strengths, and three targets on dev.
        full: every strength, and every target on dev.
        further: names of methods beside these, each with the operator that goes with it.
    """

    source: str
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    form: str = "line"
    wrong: bool = True
    quick: bool = False
    full: bool = False
    further: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[tuple[str, str], ...]:
        """(estimator, operator) of each method."""
        own = METHODS[:1] if self.quick else METHODS
        more = ((name, operator_for(name)) for name in self.further)
        return tuple(dict.fromkeys((*own, *more)))

    @property
    def named(self) -> tuple[str, ...]:
        """The estimators that are fitted by name, beside those of the job itself."""
        own = {name for name, _ in METHODS}
        return tuple(dict.fromkeys(name for name in self.further if name not in own))

    @property
    def names(self) -> list[str]:
        """What each method is called in the rows."""
        return [method_name(*pair) for pair in self.methods]

    @property
    def prompts(self) -> dict[str, str]:
        """The forms of the controls that ask for the language.

        Where examples show the model what to do, it is also asked with translated ones: a base
        model follows few instructions without. Those are parallel text, which no direction needs.
        """
        if read_shots(self.form) is None:
            return {"prompt": "instructed"}
        return {"prompt": "instructed", "fewshot": with_number("fewshot")}

    @property
    def controls(self) -> dict[str, tuple[str, ...]]:
        """The fits of each control of equal dose."""
        return control_fits(wrong=self.wrong)

    @property
    def dev_targets(self) -> tuple[str, ...]:
        """The targets of dev: all, or eight (three if `quick`) of as many families as there are."""
        if self.full:
            return self.targets
        return spread_over_families(self.targets, 3 if self.quick else DEV_TARGETS)

    @property
    def design(self) -> Design:
        """What is compared: every method and control at every layer and strength, beside the model
        as it is and the prompt with an instruction."""
        methods = [
            Method(
                name=method_name(estimator, operator),
                operator=operator,
                fits=(estimator,),
                settings=self._settings(operator),
            )
            for estimator, operator in self.methods
        ]
        few = self.dev_targets if self.full else self.dev_targets[:CONTROL_TARGETS]
        controls = [
            Control(
                method=Method(name=name, operator="add", fits=fits, settings=self._settings("add")),
                dev=self._pairs(few),
            )
            for name, fits in self.controls.items()
        ]
        return Design(
            methods=tuple(methods),
            controls=tuple(controls),
            prompts=self.prompts,
            dev=self._pairs(self.dev_targets),
            test=self._pairs(self.targets),
            form=self.form,
        )

    def removal(self, layer: int) -> list[Cell]:
        """Cells that ask whether a language goes when its direction is removed.

        The model continues two lines of a language, as it is, with a growing fraction of the main
        method's direction removed, with as large a fraction of random directions removed, and with
        as much of random directions removed as has the same dose.
        """
        cells = []
        for lang in self.dev_targets:
            same: dict[str, Any] = {"source": lang, "target": lang, "split": "dev", "form": RUN}
            cells.append(Cell.unsteered(method="removal none", **same))
            for fraction in OPERATORS["ablate"].grid:
                edited = {**same, "operator": "ablate", "layer": layer, "strength": fraction}
                cells.append(Cell(method="removal ablate", fits=(MAIN,), **edited))
                for name in RANDOM:
                    fits = self.controls[name]
                    cells.append(Cell(method=f"removal {name}", fits=fits, **edited))
                twins = tuple(Twin(seed) for seed in range(SEEDS))
                cells.append(
                    Cell(method="removal random, equal dose", fits=(MAIN,), twins=twins, **edited)
                )
        return cells

    def _settings(self, operator: str) -> tuple[Setting, ...]:
        strengths = STRENGTHS.get(operator, OPERATORS[operator].grid)
        if self.quick:
            strengths = strengths[1:]
        if self.full:
            strengths = OPERATORS[operator].grid
        layers = (ALL,) if OPERATORS[operator].whole else self.layers
        return tuple((layer, strength) for layer in layers for strength in strengths)

    def _pairs(self, targets: tuple[str, ...]) -> tuple[Pair, ...]:
        return tuple((self.source, target) for target in targets)

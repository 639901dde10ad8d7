"""The directions of the main job: those that are fitted by name, those of the controls, and which
of them can steer."""

from dataclasses import replace
from pathlib import Path

import steerlab.estimate.controls as controls
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.models.model import Model
from steerlab.studies.design import Design
from steerlab.studies.main.plan import SEEDS, Plan
from steerlab.studies.main.settings import Settings
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import read_or_fit
from steerlab.sweeps.trainings import Trainer


def named_directions(
    model: Model, texts: Corpus, plan: Plan, settings: Settings, folder: Path
) -> dict[str, Directions]:
    """The directions of further methods; what is in the folder already is read.

    Args:
        model: the model that is steered.
        texts: the lines to fit from.
        plan: the methods, layers and targets, and the form of prompt of trainings.
        settings: seed and knobs of trainings.
        folder: of the run.
    """
    return read_or_fit(
        model,
        texts,
        plan.named,
        folder=folder,
        layers=plan.layers,
        source=plan.source,
        form="line",
        dictionaries=None,
        trainer=Trainer(plan.targets, plan.form, settings.seed, settings.training or {}),
    )


def able_design(plan: Plan, directions: dict[str, Directions]) -> Design:
    """What a plan compares, once its directions are there.

    A further method may have no direction to a target at a layer, as a training that found nothing
    better than its start: there it is unsteered. Raises `SteerlabError` where that is everywhere.
    """

    def able(cell: Cell) -> bool:
        if not set(cell.fits) & set(plan.named):
            return True
        try:
            return bool(cell.edit(directions, 0).parts)
        except SteerlabError:
            return False

    design = replace(plan.design, able=able)
    left = {cell.method for cell in design.dev_cells()}
    for name, (fit, _) in zip(plan.names, plan.methods, strict=True):
        if name not in left:
            raise SteerlabError(
                f"estimators: {fit} found no direction to {', '.join(plan.dev_targets)} at layers "
                f"{', '.join(map(str, plan.layers))}, so that there is nothing to choose; leave it "
                "out, or give other layers or training="
            )
    return design


def control_directions(
    main: Directions, moments: Moments, *, source: str, wrong: bool = True
) -> dict[str, Directions]:
    """The directions of every control of equal dose, by the names in `plan.control_fits`.

    `main` gives the layers and the sizes; `wrong` needs a third language.
    """
    covariance = moments.covariance().float()
    directions = {}
    for seed in range(SEEDS):
        directions[f"random isotropic {seed}"] = controls.random(main, seed=seed, source=source)
        directions[f"random covariance {seed}"] = controls.random(
            main, seed=seed, source=source, covariance=covariance
        )
        directions[f"shuffled {seed}"] = controls.shuffled(main, seed=seed)
        if wrong:
            directions[f"wrong {seed}"] = controls.wrong(main, source=source, seed=seed)
    return directions

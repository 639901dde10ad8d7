"""Library calls whose results the gate hashes, each in a function of its own: a renamed call is
mended in one place."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import digests
import torch

import steerlab as sl
from steerlab.analysis.geometry import by_layer, family_neighbours, separation
from steerlab.engine.collect import text_means

LANGS, SOURCE, TARGET, LAYERS = ["en", "de", "fr", "it"], "en", "de", [3, 5]
BATCH = 16


# --------------------------------------------------------------------------- what the calls work on


@cache
def model() -> Any:
    return sl.load()


@cache
def corpus(split: str) -> Any:
    return sl.corpus(langs=LANGS).split(split)


def lines(count: int) -> list[str]:
    return [f"{line}\n" for line in corpus("dev")[SOURCE][:count]]


@cache
def moments() -> Any:
    return sl.collect(
        model(),
        corpus("estimate").take(48),
        layers=LAYERS,
        also=["scatter", "pairs"],
        source=SOURCE,
    )


@cache
def directions() -> Any:
    return sl.diffmean(moments())


@cache
def words() -> Any:
    return sl.mass.lexicon(model(), corpus("estimate"))


@cache
def latents() -> Any:
    return sl.collect_units(model(), corpus("estimate").take(24), dictionaries())


@cache
def dictionaries() -> Any:
    return sl.units.saes(layers=LAYERS[:1])


@cache
def masked() -> Any:
    neurons = sl.collect_units(model(), corpus("estimate").take(24))
    return sl.units.masked(sl.units.lape(neurons), neurons, source=SOURCE)


@cache
def edits() -> dict[str, Any]:
    """Every operator that a sweep does not steer with, and one that it does."""
    own = directions()[SOURCE].at(LAYERS[0])
    return {
        "add": sl.add(directions().between(SOURCE, TARGET).at(LAYERS[1]), strength=1.5),
        "ablate": sl.ablate(own),
        "erase": sl.edits.erase(sl.estimate.leace(moments())[SOURCE].at(LAYERS[0])),
        "detour": sl.edits.detour(directions()[SOURCE], remove=0.4),
        "neuron_zero": sl.edits.neuron_zero(masked().at(*masked().where(TARGET))[TARGET]),
    }


# ---------------------------------------------------------------------------------------- the calls


def evaluation() -> digests.Table:
    nats = sl.cross_entropy(model(), lines(6), list(edits().values()), batch=BATCH)
    return digests.of_arrays(dict(zip(edits(), nats, strict=True)))


def generation() -> digests.Table:
    said = {
        name: sl.generate(model(), lines(3), edit=edit, max_new_tokens=12)
        for name, edit in edits().items()
    }
    drawn = sl.generate(model(), lines(3), temperature=0.8, seed=3, max_new_tokens=12)
    return digests.of_lines(
        [f"{name}: {text}" for name, texts in said.items() for text in texts] + drawn
    )


def random_control() -> digests.Table:
    made = [
        sl.effects.random_like(model(), lines(4), edits()[name], seed=1, batch=BATCH)
        for name in ("add", "ablate")
    ]
    return digests.of_arrays({"nats": sl.cross_entropy(model(), lines(4), made, batch=BATCH)})


def masses() -> digests.Table:
    some = [edits()["add"], edits()["ablate"]]
    found = sl.mass.language_masses(model(), lines(3), some, words(), batch=BATCH)
    return digests.of_arrays({"mass": found.mass, "unsteered": found.unsteered, "kl": found.kl})


def shifts() -> digests.Table:
    return digests.of_frame(sl.mass.mass_shift(model(), lines(3), edits(), words(), batch=BATCH))


def gold() -> digests.Table:
    return digests.of_arrays(
        {"gold": sl.mass.gold_masses(model(), corpus("dev").take(8), words(), batch=BATCH)}
    )


def lift() -> digests.Table:
    some = sl.units.candidates(latents(), source=SOURCE, pool=3)
    told: dict[str, Any] = {
        "firing": latents(),
        "source": SOURCE,
        "strengths": (1.0, 2.0),
        "batch": BATCH,
    }
    found = sl.units.causal_lift(
        model(), corpus("dev").take(3), dictionaries(), some, words(), **told
    )
    return digests.of_arrays({"slope": found.slope, "effect": found.effect, "chosen": some.chosen})


def effects() -> digests.Table:
    steps = {iso: sl.add(directions().between(SOURCE, iso).at(LAYERS[1])) for iso in LANGS[1:]}
    rows = sl.effects.language_effects(model(), corpus("dev").take(4), steps, batch=BATCH)
    table = sl.effects.effect_matrix(rows)
    least = sl.effects.dominance(rows, draws=99, resamples=50)
    told = {
        "dose": rows["dose"],
        "rise": rows["rise"],
        "matrix": table,
        "dominance": [least.difference, least.p],
    }
    return digests.of_arrays(told)


def geometry() -> digests.Table:
    means = moments().mean.transpose(0, 1).numpy()
    apart = separation(moments(), text_means(model(), corpus("dev").take(3), layers=LAYERS))
    kin = family_neighbours(means, LANGS, permutations=200)
    return digests.of_arrays(
        {f"separation {name}": apart[name] for name in apart}
        | {f"layer {name}": column for name, column in by_layer(means, LANGS).items()}
        | {"kinship": kin.accuracy, "kinship p": kin.p}
    )


def spectra() -> digests.Table:
    return digests.of_frame(
        sl.estimate.spectrum_table(sl.estimate.spectra(moments(), bootstraps=3))
    )


CALLS: tuple[Callable[[], digests.Table], ...] = (
    evaluation,
    generation,
    random_control,
    masses,
    shifts,
    gold,
    lift,
    effects,
    geometry,
    spectra,
)


def main(out: Path) -> None:
    """Write the digest of every call to a file."""
    torch.set_num_threads(1)
    out.write_text(json.dumps({call.__name__: call() for call in CALLS}), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

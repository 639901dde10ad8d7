"""Neural FOXP2's signed shift against plain shifts of equal dose, and its push alone against push and pull."""

from collections.abc import Mapping

import pandas as pd
from shared import OUT, SOURCE, Bed

import steerlab as sl
from steerlab.directions import Directions
from steerlab.edits import Edit, add, signed_shift, stack
from steerlab.effects import doses
from steerlab.fits import fitted
from steerlab.generation import decode
from steerlab.intervals import by_sentence
from steerlab.judges import Answer, Retrieval, score
from steerlab.lift import least_kl
from steerlab.masses import language_masses
from steerlab.prompts import prompt
from steerlab.scores import first_line
from steerlab.selection import METHODS
from steerlab.summaries import markdown, spelled

PUSHES, PULLS, SHARE = (0.5, 1.0, 2.0, 4.0, 8.0), (0.0, 0.5, 1.0), 0.8
DEV_LINES, TEST_LINES = 16, 48


def run(bed: Bed) -> str:
    fit = METHODS["foxp2"].fit(bed.readings)
    dense = fitted(
        bed.model, bed.corpus.split("estimate"), ["diffmean"], layers=range(bed.model.n_layers), source=SOURCE
    )["diffmean"]
    rows, chosen = [], []
    for target in bed.targets:
        push, pull, windowed = strengths(bed, fit, target)
        chosen.append({"target": target, "window": windowed, "push": push, "pull": pull})
        rows.append(measured(bed, target, variants(bed, fit, dense, target, push, pull)))
    frame = pd.concat(rows, ignore_index=True)
    frame.to_parquet(OUT / "signed.parquet")
    settings = pd.DataFrame(chosen)
    settings.to_csv(OUT / "signed_choices.csv", index=False)
    note = (
        f"λ (push, of {', '.join(f'{p:g}' for p in PUSHES)}) and β (pull, of {', '.join(f'{p:g}' for p in PULLS)}) "
        f"are for each target those of the least KL on {DEV_LINES} dev lines among those that reach {SHARE:g} of the "
        f"best gain; the table is of {TEST_LINES} test lines and {len(bed.targets)} targets. ΔM: the mass of the "
        f"target's own tokens less the source's after the prompt, beside the unsteered; KL in nats to the unsteered "
        f"next-token distribution. Every row but *push alone* has the dose of *push and pull*, over the same layers."
    )
    table = settings.rename(columns={"push": "λ", "pull": "β"})
    return f"{markdown(summary(frame))}\n\n{note}\n\n{markdown(table)}\n"


def strengths(bed: Bed, fit: Directions, target: str) -> tuple[float, float, str]:
    """The λ and β of least KL on dev, and the window."""
    step = windowed(fit, target)
    edits = {(a, b): signed_shift(step, push=a, pull=b) for a in PUSHES for b in PULLS}
    (push, pull), _ = least_kl(
        bed.model, edits, prompts(bed, "dev", DEV_LINES), bed.words, source=SOURCE, target=target, share=SHARE
    )
    return push, pull, f"{step.layers[0]}-{step.layers[-1]}"


def windowed(fit: Directions, target: str):
    inside = fit.extra["window"][fit.langs.index(target)].bool().tolist()
    return fit.at(*(layer for layer, there in zip(fit.layers, inside, strict=True) if there)).between(SOURCE, target)


def prompts(bed: Bed, split: str, count: int) -> list[str]:
    lines = bed.corpus.split(split).take(count)[SOURCE]
    return [prompt(bed.model.tokenizer, "line", line, source=SOURCE, target=SOURCE) for line in lines]


def variants(bed: Bed, fit: Directions, dense: Directions, target: str, push: float, pull: float) -> Mapping[str, Edit]:
    """Edits of one dose over the target's window, and the push without the pull as it is."""
    step, texts = windowed(fit, target), prompts(bed, "dev", DEV_LINES)
    both = signed_shift(step, push=push, pull=pull or PULLS[-1])
    dose = float(doses(bed.model, texts, [both])[0])
    equal = lambda direction: add(direction, strength=scale(bed, texts, direction, dose))  # noqa: E731
    blind = sl.random_like(bed.model, texts, equal(step))
    return {
        "push and pull": both,
        "push alone": signed_shift(step, push=push),
        "push alone, equal dose": equal(step),
        "DiffMean, equal dose": equal(dense.at(*step.layers).between(SOURCE, target)),
        "random, equal dose": blind,
        "unsteered": Edit(()),
    }


def scale(bed: Bed, texts: list[str], direction, dose: float) -> float:
    """The strength at which `add` over these layers has this dose; below 1 % off."""
    strength = 1.0
    for _ in range(6):
        strength *= dose / float(doses(bed.model, texts, [add(direction, strength=strength)])[0])
    return strength


def measured(bed: Bed, target: str, edits: Mapping[str, Edit]) -> pd.DataFrame:
    """A row for each edit and test line: gain and KL after the prompt, and what was said."""
    lines, texts = bed.corpus.split("test").take(TEST_LINES), prompts(bed, "test", TEST_LINES)
    masses = language_masses(bed.model, texts, list(edits.values()), bed.words)
    ours, theirs = (masses.langs.index(iso) for iso in (target, SOURCE))
    gain = masses.gain[..., ours] - masses.gain[..., theirs]
    judge, identifier, found = Retrieval(bed.corpus.split("test")), sl.identifier(), []
    for place, (name, edit) in enumerate(edits.items()):
        many = stack([edit] * len(texts)) if edit.parts else None
        said = decode(bed.model, texts, edit=many, max_new_tokens=32)
        told = zip(said.texts, texts, lines[SOURCE], lines.numbers, strict=True)
        answers = [Answer(first_line(text), given, line, number, SOURCE, target) for text, given, line, number in told]
        rows = pd.DataFrame(score(answers, identifier=identifier, judge=judge))
        rows = rows.assign(variant=name, target=target, sentence=list(lines.numbers), dose=said.dose)
        found.append(rows.assign(gain=gain[place].tolist(), kl=masses.kl[place].tolist()))
    return pd.concat(found, ignore_index=True)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    made = []
    for name, part in frame.groupby("variant", sort=False):
        told = {"edit": name}
        for label, column in (("ΔM", "gain"), ("KL", "kl"), ("LFS", "in_language"), ("joint", "joint")):
            values = part[column].to_numpy(float)
            told[label] = spelled(by_sentence(values, part["sentence"].to_numpy(), strata=part["target"].to_numpy()))
        made.append(told | {"dose": f"{part['dose'].astype(float).mean():.2f}", "n": len(part)})
    return pd.DataFrame(made)

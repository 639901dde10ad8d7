"""What the pages of features and neurons are made of: the model, its SAEs, the prompt form, and how
much is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LISTED = (
    "diffmean",
    "sae diffmean",
    "langfir",
    "langfir shuffled",
    "monolinguality",
    "monolinguality clamp",
    "diffmean gated",
    "sae lape",
    "foxp2 add",
    "foxp2 push",
    "foxp2 push and pull",
    "lape add",
    "lape swap",
    "lape set",
    "nju swap",
    "nju set",
    "culnig swap",
    "culnig set",
)


@dataclass(frozen=True)
class Setup:
    """A model and how it is tried; numbers of sentences are of each language or pair of languages.

    Args:
        title: of the page.
        head: what the page says first, behind the title.
        out: the folder of rows and tables.
        found: the file of the figures that published claims are judged by.
        page: the page.
        images: what the names of its pictures begin with.
        model: what `load` takes; None for the model in the package.
        dtype: what it computes in.
        saes: whether its SAEs lie in the user's cache, where experiments/*/train_saes.py puts
            them, and not in the package.
        form: the form of prompt that is steered.
        prompts: controls that only ask, by name and form.
        layers: where features and DiffMean steer and are taken away.
        strengths: of `add` and `gate`, in natural gaps.
        methods: which rows of the steering table are run.
        targets: the languages that are steered to; None for all.
        dev_targets: how many of them settings are chosen on.
        dev_lines: the sentences that settings are chosen on.
        test_lines: the sentences that are reported on.
        seeds: of each random control.
        lift_prompts: the sentences that the causal lift is measured on.
        answered: the sentences whose answers CULNIG's gradients are of; None for all.
        selective: the languages of the selectivity matrix; None for all.
        selective_dev_lines: the sentences that its layer is chosen on.
        selective_lines: the sentences that it is reported on.
        shown: targets of the drawn spectra.
    """

    title: str
    head: str
    out: Path
    found: Path
    page: Path
    images: str = ""
    model: str | None = None
    dtype: str | None = None
    saes: bool = False
    form: str = "line"
    prompts: Mapping[str, str] = field(default_factory=lambda: {"prompt": "instructed"})
    layers: tuple[int, ...] = (1, 3, 5, 7)
    strengths: tuple[float, ...] = (0.5, 1.0, 1.5)
    methods: tuple[str, ...] = LISTED
    targets: tuple[str, ...] | None = None
    dev_targets: int = 8
    dev_lines: int = 16
    test_lines: int = 48
    seeds: int = 5
    lift_prompts: int = 16
    answered: int | None = None
    selective: tuple[str, ...] | None = None
    selective_dev_lines: int = 5
    selective_lines: int = 16
    shown: tuple[str, ...] = ("de", "ru", "ja")

    def picture(self, name: str) -> str:
        """The file name of one of the page's pictures."""
        return f"{self.images}{name}.svg"


SETUPS = {
    "polyglot": Setup(
        title="SAE features and neurons",
        head="""The methods that choose the features of sparse autoencoders, or the neurons, of a language, on the packaged model and
its own SAEs (their card: steerlab/data/polyglot/saes/README.md), from the 120 sentences in 16 languages of the packaged
corpus' split `estimate`. A feature fires on a token where its value is above its threshold, a neuron where its gate is
positive; its firing rate is the share of tokens on which it does. Brackets are 95 % intervals over sentences, rows in
italics are controls. Written by `python experiments/units/page.py`.
""",
        out=Path("build/units"),
        found=Path("build/units/found.json"),
        page=Path("docs/units.md"),
    ),
    "gemma-3-270m": Setup(
        title="SAE features and neurons of Gemma 3 270M",
        head="""The tables of [Features and neurons](units.md) again, on a real model: Gemma 3 270M in bfloat16 and SAEs of its own at
four of its 18 layers ([their card](gemma_saes.md)), from the 120 sentences in 16 languages of the packaged corpus' split
`estimate`. A feature fires on a token where its value is above its threshold, a neuron where its gate is positive; its
firing rate is the share of tokens on which it does. Steered is the form `echo`: five English sentences, each said twice,
then one that is said once, and which the model, unsteered, says again in English. As no two of the SAEs are of
neighbouring layers, a window of Neural FOXP2 is one layer here. Brackets are 95 % intervals over
sentences, rows in italics are controls. Written by `python experiments/units/page.py --model gemma-3-270m`, after
`experiments/gemma/train_saes.py`.
""",
        out=Path("build/gemma/units"),
        found=Path("build/gemma/units.json"),
        page=Path("docs/gemma_units.md"),
        images="gemma-",
        model="gemma-3-270m",
        dtype="bfloat16",
        saes=True,
        form="echo:5",
        prompts={"prompt": "instructed", "few-shot prompt": "fewshot:3"},
        layers=(4, 8),
        strengths=(0.5, 1.0, 1.5),
        methods=(
            "diffmean",
            "sae diffmean",
            "langfir",
            "langfir shuffled",
            "monolinguality",
            "monolinguality clamp",
            "sae lape",
            "foxp2 add",
            "foxp2 push",
            "foxp2 push and pull",
            "lape swap",
            "nju swap",
            "culnig swap",
        ),
        targets=("de", "es", "ru", "ja"),
        dev_targets=3,
        dev_lines=6,
        test_lines=16,
        seeds=3,
        lift_prompts=8,
        answered=16,
        selective=("en", "de", "es", "ru", "hi", "ja"),
        selective_dev_lines=2,
        selective_lines=8,
    ),
}

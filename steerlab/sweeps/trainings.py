"""Directions that are trained, by their names: each layer and target by itself, kept as it is
done."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.grains import SOURCES, grains
from steerlab.engine.learn import HOW, Training
from steerlab.engine.learn import learn as learn
from steerlab.engine.preferences import preferences
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.sweeps.kept import keep, kept

# What is found from preferences, each layer and target by itself.
TRAINED: dict[str, Training] = {
    **HOW,
    "grains": Training(cites=SOURCES["grains"].cites, operator="add_keep_norm"),
}
OF_PREFERENCES = ("pairs", "new")  # the knobs of what is found without training


@dataclass(frozen=True)
class Trainer:
    """How directions are trained that are asked for by name.

    Args:
        targets: the languages to train towards; None for all of the texts but the source.
        form: the form of prompt that answers are preferred behind.
        seed: of each training.
        knobs: keywords of `learn`, `pairs` (sentences at most) and `new` (the most tokens of the
            model's own answers), as `sweeps.settings.Training` has them.
    """

    targets: Sequence[str] | None = None
    form: str = "line"
    seed: int = 0
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self, texts: Corpus, source: str) -> dict[str, Any]:
        """Everything that decides trained directions beside model, texts, layers and SAEs."""
        return {
            "targets": list(self.targets_of(texts, source)),
            "form": self.form,
            "seed": self.seed,
            "knobs": {**_defaults(learn), "new": _defaults(preferences)["new"], **self.knobs},
        }

    def targets_of(self, texts: Corpus, source: str) -> tuple[str, ...]:
        """The languages to train towards."""
        if self.targets is not None:
            return tuple(dict.fromkeys(self.targets))
        return tuple(lang for lang in texts.langs if lang != source)

    def train(
        self,
        model: Model,
        texts: Corpus,
        how: str,
        *,
        layers: Sequence[int],
        source: str,
        saes: Mapping[int, SAE],
        folder: Path | None = None,
    ) -> Directions:
        """Directions from the source to each target at each layer, each trained by itself.

        With a folder every one is kept there when it is done, and found again by whoever asks for
        the same.

        Args:
            model: what stays frozen.
            texts: all lines that may be learnt from.
            how: a key of `TRAINED`.
            layers: where.
            source: the language of the prompts.
            saes: autoencoders by layer, for what trains a code.
            folder: where finished ones are kept; None keeps none.
        """
        texts.need_aligned(f"training {how}")
        _need_saes(how, layers, saes)
        # The tokens of a prompt are attributed once for all layers.
        together = [layers] if how not in HOW else [[layer] for layer in layers]
        trained = []
        for some in together:
            for target in self.targets_of(texts, source):
                file = None
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    decisive = self._digest(model, texts, some, source, target, saes)
                    file = folder / file_name(how, some, target, decisive)
                if file is not None and file.exists():
                    trained.append(kept(file, model))
                    continue
                made = self._one(model, texts, how, some, source, target, saes)
                if file is not None:
                    keep(made, file)
                trained.append(made)
        return joined(trained, layers)

    def _one(
        self,
        model: Model,
        texts: Corpus,
        how: str,
        layers: Sequence[int],
        source: str,
        target: str,
        saes: Mapping[int, SAE],
    ) -> Directions:
        knobs = dict(self.knobs)
        answers = {"new": knobs.pop("new")} if "new" in knobs else {}
        pairs = preferences(texts, source, target, form=self.form, **answers)
        if limit := knobs.pop("pairs", None):
            pairs = pairs.take(limit)
        if how not in HOW:
            return grains(model, pairs, layers=layers, seed=self.seed)
        [layer] = layers
        sae = saes[layer] if HOW[how].sae else None
        return learn(model, pairs, how=how, layer=layer, sae=sae, seed=self.seed, **knobs)

    def _digest(
        self,
        model: Model,
        texts: Corpus,
        layers: Sequence[int],
        source: str,
        target: str,
        saes: Mapping[int, SAE],
    ) -> str:
        """Of everything that decides one training: other languages of the corpus do not."""
        pair = texts.select([source, target])
        about = replace(self, targets=[target]).metadata(pair, source)
        layer = layers[0] if len(layers) == 1 else list(layers)
        coder = saes[layers[0]].digest if layers[0] in saes else None
        hashed = [model.fingerprint, str(model.dtype), pair.hash, about, layer, source, coder]
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:12]


def file_name(how: str, layers: Sequence[int], target: str, decisive: str) -> str:
    """Of what is kept: of several layers the first and the last are named, as many would make no
    file's name; `decisive` tells them apart."""
    at = "-".join(map(str, dict.fromkeys((layers[0], layers[-1]))))
    return f"{how}-{at}-{target}-{decisive}.safetensors"


def _defaults(function: Any) -> dict[str, Any]:
    """The values of the knobs that are not given, as a function has them."""
    parameters = inspect.signature(function).parameters.values()
    numbers = [each for each in parameters if isinstance(each.default, int | float)]
    return {each.name: each.default for each in numbers if each.name != "seed"}


def _need_saes(how: str, layers: Sequence[int], saes: Mapping[int, SAE]) -> None:
    """Raise where a code is to be trained at a layer without an autoencoder."""
    if not TRAINED[how].sae:
        return
    if missing := [layer for layer in layers if layer not in saes]:
        available = ", ".join(map(str, saes)) or "none"
        raise SteerlabError(
            f"{how} trains a code of an autoencoder, and layer {missing[0]} has none; there are "
            f"{available}: give layers= of these, or saes="
        )


# What the provenance of one training says of itself.
_OF_ONE = ("preferences", "pairs", "curve", "length", "taken", "completeness", "cost")


def joined(parts: Sequence[Directions], layers: Sequence[int]) -> Directions:
    """One `Directions` of trainings for each target, and each layer or all of them; a single one
    stays as it is.

    The source's means are the same in all, since they are of the same sentences.

    Args:
        parts: of two languages each, together one for each layer and target.
        layers: in the order of the result.
    """
    if len(parts) == 1:
        return parts[0]
    source = parts[0].langs[0]
    of = {
        (layer, part.langs[1]): (part, place)
        for part in parts
        for place, layer in enumerate(part.layers)
    }
    targets = list(dict.fromkeys(target for _, target in of))

    def row(read: Any, target: str, lang: int) -> Tensor:
        here = [of[layer, target] for layer in layers]
        return torch.stack([read(part)[lang, place] for part, place in here])

    def whole(read: Any) -> Tensor:
        """What is read of each part, [lang layer ...]: the source's of the first target."""
        return torch.stack([row(read, targets[0], 0), *(row(read, to, 1) for to in targets)])

    extra = {}
    for name in parts[0].extra:
        rank = max(part.extra[name].shape[2] for part in parts)
        extra[name] = whole(lambda part, name=name, rank=rank: _wide(part.extra[name], rank))
    first = parts[0].provenance
    shared = ("model", "form", "excluded", "estimator", "settings", "seed")
    made = {key: first[key] for key in shared if key in first}
    made["corpus"] = {"name": first["preferences"]["name"]}
    made["trainings"] = [
        {"layer": part.layers[0] if len(part.layers) == 1 else list(part.layers)}
        | {"target": part.langs[1]}
        | {key: part.provenance[key] for key in _OF_ONE if key in part.provenance}
        for part in parts
    ]
    costs = [part.provenance["cost"] for part in parts]
    made["cost"] = {name: round(sum(cost[name] for cost in costs), 3) for name in costs[0]}
    return Directions(
        vectors=whole(lambda part: part.vectors),
        basis=whole(lambda part: part.basis),
        means=whole(lambda part: part.means),
        langs=(source, *targets),
        layers=tuple(layers),
        site=parts[0].site,
        source=source,
        provenance=made,
        extra=extra,
    )


def _wide(value: Tensor, rank: int) -> Tensor:
    """`value` [lang layer rank ...] with rows of zeros up to a rank: a latent of zeros is off."""
    missing = rank - value.shape[2]
    return torch.cat([value, value.new_zeros(*value.shape[:2], missing, *value.shape[3:])], 2)

"""An edit that lies in the weights: on a model for a while, or written as a model of its own."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from steerlab.core.display import Shown, View
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights, unlike, weights_of
from steerlab.edits.digest import tensor_digest
from steerlab.engine.weights.apart import Apart
from steerlab.engine.weights.blocks import NewBlock, merged, numbers
from steerlab.engine.weights.change import Change, changed
from steerlab.engine.weights.folder import built, save_model
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.model import Model
from steerlab.models.writers import need_weights

# Said in steerlab.json of a folder with new blocks.
_READERS = (
    "what takes the kind of each layer from config.json (layer_types), as transformers does; not "
    "llama.cpp, which counts which layers of a Gemma see a window only"
)


@dataclass(frozen=True, eq=False, repr=False)
class WeightEdit(Shown):
    """Changes of a model's weights: `with weights.on(model):` makes them and takes them back bit
    for bit, `weights.save(folder)` writes the changed model, `weights.build()` gives it as a model
    of its own, and `a | b` is first a and then b.

    Args:
        changes: of linear maps, in their order.
        model: whose weights they are of.
        apart: how far the model so changed is from the model under the edit that was baked; None
            where there was no such edit, or after `|`.
        metadata: what made them.
        blocks: that the model gets beside its own (`bake(..., more_blocks=True)`). It is then
            another network, which `build` and `save` make; `on` refuses.
    """

    changes: tuple[Change, ...]
    model: Model
    apart: Apart | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[NewBlock, ...] = ()

    def _view(self) -> View:
        table: dict[tuple[str, str], list[Change]] = {}
        for change in self.changes:
            table.setdefault((change.module, change.side), []).append(change)
        rows = [
            (name, side, sum(each.left.shape[1] for each in here), _length(here))
            for (name, side), here in table.items()
        ]
        rows += [
            (f"new block behind {each.half} of layer {each.layer}", "output", 0, _length([each]))
            for each in self.blocks
        ]
        said = "" if self.apart is None else f", {self.apart.nats:.2g} nats from its hooks"
        parts = [f"{len({each.module for each in self.changes})} maps"] if self.changes else []
        if self.blocks:
            parts.append(f"{len(self.blocks)} new block{'s' if len(self.blocks) > 1 else ''}")
        return View(
            "WeightEdit",
            f"{' and '.join(parts)} of {self.model.name}{said}",
            head=("map", "side", "rank", "length of the shift"),
            rows=rows,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the changes and of the weights that they are of."""
        changes = [
            [each.module, each.side, *map(tensor_digest, (each.left, each.right, each.shift))]
            for each in self.changes
        ]
        hashed: list[Any] = [changes, self.model.fingerprint]
        if self.blocks:
            new = [[each.layer, each.half, tensor_digest(each.shift)] for each in self.blocks]
            hashed.append(new)
        return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()

    def __or__(self, other: "WeightEdit") -> "WeightEdit":
        if not isinstance(other, WeightEdit):
            raise SteerlabError(
                f"a WeightEdit goes together with another one, not with a {type(other).__name__}; "
                "sl.bake makes one of an edit"
            )
        self._need(other.model)
        return WeightEdit(
            self.changes + other.changes,
            self.model,
            metadata={"of": [dict(self.metadata), dict(other.metadata)]},
            # What a new block adds depends on nothing, and no map is changed by what it reads.
            blocks=merged(self.blocks + other.blocks),
        )

    @contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """The model with the changed weights, for the length of a `with`; afterwards, after an
        exception too, its parameters are the very ones of before.

        The model is then another model: directions that were made with the one of before are
        refused. Raises for a model of other weights.
        """
        held = need_weights(model, "an edit of weights")
        self._need(model)
        if self.blocks:
            raise SteerlabError(
                f"with {len(self.blocks)} more blocks {model.name} is another network: "
                "weights.build() gives it as a model, and weights.save(folder) writes it"
            )
        with model.turns.held():
            made = changed(held.hf, self.changes)
            before: list[tuple[dict[str, Any], str, Any]] = []
            view, held._tl = held._tl, None  # a bridge has the old parameters
            try:
                for (name, key), value in made.items():
                    own = held.hf.get_submodule(name)._parameters
                    before.append((own, key, own.get(key)))
                    own[key] = torch.nn.Parameter(value, requires_grad=False)
                yield
            finally:
                for own, key, value in reversed(before):
                    own[key] = value
                held._tl = view

    @contextmanager
    def running(self, model: Model) -> Iterator[HuggingFaceModel]:
        """The changed model, for the length of a `with`: this one under `on`, or, with new blocks,
        a network of its own. Raises for a model of other weights."""
        held = need_weights(model, "an edit of weights")
        if self.blocks:
            self._need(model)
            yield self.build()
        else:
            with self.on(model):
                yield held

    def build(self) -> HuggingFaceModel:
        """The changed model as one of its own, in memory; weights that do not change are the very
        ones of the model that they are of.

        Raises where the architecture has no place for a bias that the edit needs.
        """
        held = need_weights(self.model, "an edit of weights")
        network = built(held, changed(held.hf, self.changes), self.blocks)
        return HuggingFaceModel(
            network, held.tokenizer, name=f"{held.name}, changed", in_memory=True
        )

    def save(self, folder: str | Path) -> Path:
        """Write the changed model as an ordinary Hugging Face folder, with its tokenizer, and a
        steerlab.json that says what was changed; the folder appears whole or not at all.

        Weights keep the precision that the model was loaded in. With new blocks, the folder of a
        model whose layers are of several kinds is for what reads these from config.json
        (`layer_types`), as transformers does, and not for llama.cpp, which counts which layers of a
        Gemma see a window only. Raises where there is something at that name, and where the
        architecture has no place for a bias that the edit needs.
        """
        held = need_weights(self.model, "an edit of weights")
        about = {
            "format": "steerlab weights 1",
            "model": dict(self.model.metadata),
            "digest": self.digest,
            "made by": dict(self.metadata),
            "changes": [
                {"module": each.module, "side": each.side, "rank": each.left.shape[1]}
                for each in self.changes
            ],
        }
        if self.apart is not None:
            about["apart"] = vars(self.apart)
        if self.blocks:
            places = zip(self.blocks, numbers(self.blocks), strict=True)
            about["new blocks"] = [
                {
                    "block": number,
                    "behind": f"{each.half} of layer {each.layer}",
                    "length": _length([each]),
                    "why": each.why,
                }
                for each, number in places
            ]
            if len(set(getattr(held.config, "layer_types", None) or ())) > 1:
                about["readers"] = _READERS
        weights = changed(held.hf, self.changes)
        return save_model(held, weights, Path(folder), about, blocks=self.blocks)

    def _need(self, model: Model) -> None:
        own, given = self.model.fingerprint, model.fingerprint
        if own and given and not same_weights(own, given):
            raise SteerlabError(
                f"these weights were changed in {self.model.name} ({weights_of(own)}), and "
                f"{model.name} has others ({weights_of(given)}); bake the edit for this "
                f"model{unlike(own, given)}"
            )


def _length(shifts: Sequence[Change | NewBlock]) -> float:
    return float(torch.stack([each.shift for each in shifts]).sum(0).norm())

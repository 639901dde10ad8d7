"""Where a mixture of experts sends its tokens, by language: mean router weights of every text, and
how often each expert is met."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.display import Shown, View, counted, heat, layers, listed
from steerlab.core.equality import same
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.sites import ROUTER
from steerlab.core.tensor_file import Content, load_tensors, save_tensors

FORMAT = "steerlab routing 1"


def in_top(logits: Float[Tensor, "*any expert"], per_token: int) -> Bool[Tensor, "*any expert"]:
    """Whether each expert is among the `per_token` with the largest logits."""
    chosen = logits.topk(per_token, dim=-1).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, chosen, value=True)


@dataclass(frozen=True, eq=False, repr=False)
class Routing(Shown):
    """Where the tokens of each language go, gathered in one pass.

    Raises `SteerlabError` for shapes that do not fit together.

    Args:
        firing: the experts as units: on where a token meets one, their value the router's weight
            (the softmax over all experts), read from the logits. Whatever chooses units takes it.
        weights: of each language, the mean router weights over the tokens of each text, which sum
            to 1 over experts; a text and its translation have the same place.
        per_token: how many experts a token meets at a layer.
    """

    firing: Firing
    weights: Mapping[str, Float[Tensor, "text layer expert"]]
    per_token: int

    def __post_init__(self) -> None:
        if self.firing.site != ROUTER:
            raise SteerlabError(
                f"a routing is read at {ROUTER}, and this firing at {self.firing.site}; collect it "
                "by collect_routing"
            )
        behind = (len(self.layers), self.experts)
        wrong = {lang: list(each.shape) for lang, each in self.weights.items()}
        wrong = {lang: shape for lang, shape in wrong.items() if tuple(shape[1:]) != behind}
        if wrong or tuple(self.weights) != self.langs:
            raise SteerlabError(
                f"the weights are of {' '.join(self.weights)} and the firing of "
                f"{' '.join(self.langs)}, or have other shapes than [text, {behind[0]} layers, "
                f"{behind[1]} experts]: {wrong}; collect both in one pass"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Routing):
            return NotImplemented
        return self.per_token == other.per_token and same(
            [self.firing.content(), self.weights], [other.firing.content(), other.weights]
        )

    __hash__ = None  # type: ignore[assignment]  # a tensor can change in place

    def _view(self) -> View:
        return View(
            "Routing",
            f"{counted(self.experts, 'expert')} a layer, {self.per_token} of them a token, "
            f"{layers(self.layers)}, {counted(len(self.langs), 'language')} "
            f"({listed(self.langs)}), {counted(float(self.firing.tokens.sum()), 'token')}",
            {"model": self.firing.provenance.get("model", {}).get("name")},
            picture=lambda: heat(self.entropy.mean(1).tolist(), self.langs, self.layers),
            caption="entropy of a text's mean router weights in nats, by language and layer",
        )

    @property
    def langs(self) -> tuple[str, ...]:
        """The languages, or other labels."""
        return self.firing.langs

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a router and were read."""
        return self.firing.layers

    @property
    def experts(self) -> int:
        """How many experts a layer has."""
        return self.firing.units

    @property
    def mean(self) -> Float[Tensor, "lang layer expert"]:
        """The mean router weights: over the tokens of a text, then over texts."""
        return torch.stack([each.mean(0) for each in self.weights.values()])

    @property
    def rate(self) -> Float[Tensor, "lang layer expert"]:
        """The activation frequency: the share of tokens that meet each expert, which sum to
        `per_token`."""
        return self.firing.rate

    @property
    def entropy(self) -> Float[Tensor, "lang text layer"]:
        """Of each text's mean router weights, in nats; needs as many texts of every language."""
        return entropy_of(self.paired())

    def paired(self) -> Float[Tensor, "lang text layer expert"]:
        """The weights of parallel texts; raises where languages have different numbers of texts."""
        counts = {lang: len(each) for lang, each in self.weights.items()}
        if len(set(counts.values())) > 1:
            listed_counts = ", ".join(f"{lang} {count}" for lang, count in counts.items())
            raise SteerlabError(
                f"the languages have different numbers of texts ({listed_counts}), so that none "
                "is another's translation; collect the routing of an aligned corpus"
            )
        return torch.stack(list(self.weights.values()))

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what was read; the file appears whole or not at
        all. With `force` it replaces one that steerlab did not write."""
        tensors, about = self.firing.content()
        kept = {f"weights.{number}": each for number, each in enumerate(self.weights.values())}
        about = {**about, "per_token": self.per_token}
        return save_tensors(file, FORMAT, {**tensors, **kept}, about, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Routing":
        """Read what `save` wrote; raises `SteerlabError` for a missing, truncated, altered or
        foreign file."""
        return load_tensors(file, FORMAT, cls._from_file)

    @classmethod
    def _from_file(cls, content: Content) -> "Routing":
        firing = Firing.from_content(content)
        shape = (-1, len(firing.layers), firing.units)
        weights = {
            lang: content.take(f"weights.{number}", *shape, dtype=torch.float32)
            for number, lang in enumerate(firing.langs)
        }
        return cls(firing, weights, content.number("per_token", least=1))


def entropy_of(weights: Float[Tensor, "*any expert"]) -> Float[Tensor, "*any"]:
    """The entropy of distributions over experts, in nats, in float64; 0 log 0 is 0."""
    return torch.special.entr(weights.double()).sum(-1)

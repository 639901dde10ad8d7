"""A small network that reads one layer of a prompt once, and says whether and how far an edit
acts."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name
from steerlab.core.tensor_file import Content, load_tensors, save_tensors
from steerlab.edits.edit import Edit, need_edit
from steerlab.edits.gates import Gate, controls
from steerlab.engine.batching import InOrder
from steerlab.engine.collect_gradients import differentiable
from steerlab.engine.decoding import decode
from steerlab.engine.forward import read
from steerlab.engine.inputs import need_count, need_room
from steerlab.engine.prompts import encode, pad
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions

FORMAT = "steerlab controller 1"
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Controller:
    """What `fit_controller` makes: `controller.before(edit)` is the edit under its control.

    x = (h - centre) / scale at the prompt's last position of one layer, z = relu(W x + b); it acts
    where a = u·z + c > 0, by most · σ(a) · σ(v_l·z + e_l) at layer l, for the whole row.

    Args:
        tensors: centre, scale [width]; first [hidden width], first_bias [hidden]; act [hidden],
            act_bias []; layer [layer hidden], layer_bias [layer].
        layers: of the edit, in the order of the tensors.
        reads: (site, layer) where it reads.
        most: the largest factor.
        rates: on held-out prompts: false_open and false_shut, and of how many (negatives,
            positives).
        model: what it was fitted on.
    """

    tensors: Mapping[str, Tensor]
    layers: tuple[int, ...]
    reads: tuple[str, int]
    most: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def gate(self, layer: int, *, soft: bool = False) -> Gate:
        """Its gate of one of the edit's layers; `soft` leaves out whether it acts, as in
        training."""
        if layer not in self.layers:
            raise SteerlabError(
                f"the controller is of the layers {' '.join(map(str, self.layers))}, not {layer}"
            )
        number = self.layers.index(layer)
        own = dict(self.tensors)
        own["layer"], own["layer_bias"] = own["layer"][number], own["layer_bias"][number]
        own |= {"most": torch.tensor(self.most), "soft": torch.tensor(float(soft))}
        tensors = {name: tensor[None] for name, tensor in own.items()}
        return Gate(controls, "controller", tensors, whole=True, blind=False, reads=self.reads)

    def before(self, edit: Edit, *, soft: bool = False) -> Edit:
        """The edit with the controller before each of its parts."""
        need_edit(edit)
        edit.need_plain("control the edit first, and amplify it then")
        parts = [
            Edit((part,), edit.model).when(self.gate(part.layer, soft=soft)).parts[0]
            for part in edit.parts
        ]
        if not parts:
            raise SteerlabError("there is nothing to control: the edit has no parts")
        return Edit(tuple(parts), edit.model)

    def acts(self, features: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
        """a of each prompt: it acts above 0."""
        return _act(self.tensors, features)

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors, no code; the file appears whole or not at all."""
        about = {
            "layers": list(self.layers),
            "reads": list(self.reads),
            "most": self.most,
            "rates": dict(self.rates),
            "model": dict(self.model),
        }
        return save_tensors(file, FORMAT, self.tensors, about, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Controller":
        """Read what `save` wrote; raises `SteerlabError` for anything else."""
        return load_tensors(file, FORMAT, cls._from_file)

    @classmethod
    def _from_file(cls, content: Content) -> "Controller":
        layers, about = content.numbers("layers"), content.about
        site, layer = about["reads"]
        hook_name(site, layer)
        first = content.take("first", -1, -1, dtype=torch.float32)
        hidden, width = first.shape
        shapes: dict[str, tuple[int, ...]] = {
            "centre": (width,),
            "scale": (width,),
            "first_bias": (hidden,),
            "act": (hidden,),
            "act_bias": (),
            "layer": (len(layers), hidden),
            "layer_bias": (len(layers),),
        }
        tensors = {
            name: content.take(name, *shape, dtype=torch.float32) for name, shape in shapes.items()
        }
        made = {"first": first, **tensors}
        rates = {str(name): float(value) for name, value in content.object("rates").items()}
        return cls(
            made, layers, (site, layer), float(about["most"]), rates, content.object("model")
        )


def fit_controller(
    model: Any,
    edit: Edit,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    answers: Sequence[str] | None = None,
    layer: int | None = None,
    site: str = "resid_post",
    hidden: int = 16,
    most: float = 1.0,
    steps: int = 20,
    kl: float = 1.0,
    held_out: float = 0.25,
    new: int = 12,
    seed: int = 0,
) -> Controller:
    """Fit a controller that lets an edit act on prompts like the positive ones and not on others.

    Whether to act is learnt first, by binary cross-entropy on what `layer` has at the prompts' last
    positions; where five folds do not tell it from a constant, it is one. Then the weights by
    layer: the loss of the positives' answers under the controlled edit, plus `kl` times the
    divergence from the model as it is on the negatives' own continuations. `rates` are of prompts
    that took no part. Source: Guiding Giants (arXiv 2505.20309). Its released code reads the last
    four layers, so that it patches the last alone, adds an unbounded logit, and gives its weights
    by layer no gradient of the task; here it reads one early layer, is bounded, and learns them.

    Args:
        model: what `load` takes.
        edit: what is to be controlled.
        positive: prompts on which it shall act.
        negative: prompts on which it shall not.
        answers: of the positives, what shall come; by default what the edit itself makes of them.
        layer: where it reads; by default halfway to the edit's first layer.
        site: where in that layer.
        hidden: the width of its hidden layer.
        most: the largest factor.
        steps: of training the weights by layer; 0 leaves them alike, at σ(2) = .88.
        kl: the weight of the divergence.
        held_out: the share of each kind of prompts that only the rates read.
        new: tokens of a continuation.
        seed: of the split and of the first weights.
    """
    model = load(model)
    need_edit(edit)
    positive = need_texts(positive, "what fits a controller")
    negative = need_texts(negative, "what fits a controller")
    need_count("hidden", hidden)
    need_count("steps", steps, 0)
    _need_prompts(positive, negative, answers, held_out)
    layers = tuple(sorted({part.layer for part in edit.parts}))
    if not layers:
        raise SteerlabError("there is nothing to control: the edit has no parts")
    reads = (site, max(0, min(layers) // 2 if layer is None else layer))
    random = torch.Generator().manual_seed(seed)
    x = [features(model, prompts, *reads) for prompts in (positive, negative)]
    orders = [torch.randperm(len(each), generator=random) for each in x]
    kept = [order[max(1, round(held_out * len(order))) :] for order in orders]
    left = [order[: max(1, round(held_out * len(order)))] for order in orders]
    train = torch.cat([each[index] for each, index in zip(x, kept, strict=True)])
    label = torch.cat([torch.ones(len(kept[0])), torch.zeros(len(kept[1]))])
    tensors = _learn_to_act(train, label, hidden, random)
    tensors["layer"] = torch.zeros(len(layers), hidden)
    tensors["layer_bias"] = torch.full((len(layers),), 2.0)
    made = Controller(tensors, layers, reads, most, {}, model.metadata)
    if steps:
        wanted = None if answers is None else [answers[int(index)] for index in kept[0]]
        prompts = [
            [each[int(index)] for index in order]
            for each, order in zip((positive, negative), kept, strict=True)
        ]
        made = _learn_layers(model, edit, made, prompts, wanted, steps=steps, kl=kl, new=new)
    shut, opened = ((made.acts(each[index]) > 0) for each, index in zip(x, left, strict=True))
    rates = {
        "false_shut": float((~shut).float().mean()),
        "positives": float(len(shut)),
        "false_open": float(opened.float().mean()),
        "negatives": float(len(opened)),
    }
    return replace(made, rates=rates)


def _need_prompts(
    positive: Sequence[str], negative: Sequence[str], answers: Sequence[str] | None, held_out: float
) -> None:
    """Raise for too few prompts, and for answers that are not theirs."""
    if not 0 < held_out < 1:
        raise SteerlabError(f"held_out is {held_out}; give a share between 0 and 1")
    for name, given in (("positive", positive), ("negative", negative)):
        if len(given) < 2 * FOLDS:
            raise SteerlabError(
                f"there are {len(given)} {name} prompts; give {2 * FOLDS} or more, some of which "
                "are held out"
            )
    if answers is not None and len(answers) != len(positive):
        raise SteerlabError(
            f"there are {len(answers)} answers to {len(positive)} positive prompts; give each one"
        )


def features(
    model: Model, prompts: Sequence[str], site: str, layer: int
) -> Float[Tensor, "row width"]:
    """What a place of the model has at the last position of each prompt."""
    ids = encode(model.tokenizer, prompts)
    need_room(model, ids)
    model.need_layer(layer)
    seen: list[Tensor] = []

    def look(h: Tensor, _: Positions) -> None:
        seen[:] = [h[:, -1].float().cpu()]  # the padding is on the left

    hook: HookFn = look

    def work(rows: Sequence[int]) -> Tensor:
        read(model, [ids[row] for row in rows], [(site, layer, hook)])
        return seen[0]

    with torch.inference_mode():
        return torch.cat(list(InOrder(model).run(ids, work))).clone()


def _act(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    x = (x - tensors["centre"]) / tensors["scale"]
    hidden = torch.relu(x @ tensors["first"].T + tensors["first_bias"])
    return hidden @ tensors["act"] + tensors["act_bias"]


def _learn_to_act(
    x: Float[Tensor, "row width"], label: Tensor, hidden: int, random: torch.Generator
) -> dict[str, Tensor]:
    """The network's tensors but for the layers'; a constant where folds do not tell it from one."""
    order = torch.randperm(len(x), generator=random)
    gained = []
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        rest = torch.tensor([row for row in order.tolist() if row not in set(test.tolist())])
        made = _train(x[rest], label[rest], hidden, random)
        share = label[rest].mean().clamp(1e-3, 1 - 1e-3)
        constant = torch.logit(share).expand(len(test))
        losses = [
            torch.nn.functional.binary_cross_entropy_with_logits(
                logits, label[test], reduction="none"
            )
            for logits in (_act(made, x[test]), constant)
        ]
        gained.append(losses[1] - losses[0])
    gain = torch.cat(gained)
    made = _train(x, label, hidden, random)
    if gain.mean() < 1.64 * gain.std() / len(gain) ** 0.5:
        made["act"] = torch.zeros(hidden)
        made["act_bias"] = torch.logit(label.mean())
    return made


def _train(x: Tensor, label: Tensor, hidden: int, random: torch.Generator) -> dict[str, Tensor]:
    """Full batches of Adam with weight decay; small, so that it takes a second."""
    width = x.shape[1]
    fixed = {"centre": x.mean(0), "scale": x.std(0).clamp(min=1e-6)}
    learnt = {
        "first": torch.randn(hidden, width, generator=random) / width**0.5,
        "first_bias": torch.zeros(hidden),
        "act": torch.randn(hidden, generator=random) / hidden**0.5,
        "act_bias": torch.zeros(()),
    }
    with torch.inference_mode(mode=False), torch.enable_grad():
        learnt = {name: value.clone().requires_grad_(True) for name, value in learnt.items()}
        steps = torch.optim.AdamW(list(learnt.values()), lr=0.01, weight_decay=0.1)
        for _ in range(120):
            logits = _act({**fixed, **learnt}, x)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label)
            steps.zero_grad()
            loss.backward()
            steps.step()
    return fixed | {name: value.detach() for name, value in learnt.items()}


def _learn_layers(
    model: Model,
    edit: Edit,
    made: Controller,
    prompts: Sequence[Sequence[str]],
    answers: Sequence[str] | None,
    *,
    steps: int,
    kl: float,
    new: int,
) -> Controller:
    """The weights by layer, by what comes under the controlled edit."""
    options: dict[str, Any] = {"max_new_tokens": new, "one_line": True}
    if answers is None:
        answers = decode(model, prompts[0], edit=edit, **options).texts
    own = decode(model, prompts[1], **options).texts
    rows = [
        *(_Row(prompt, answer, True) for prompt, answer in zip(prompts[0], answers, strict=True)),
        *(_Row(prompt, answer, False) for prompt, answer in zip(prompts[1], own, strict=True)),
    ]
    rows = [row for row in rows if row.answer.strip()]
    # Mixed, so that each step has both kinds, and the same in every process.
    rows = sorted(rows, key=lambda row: zlib.crc32(row.prompt.encode()))
    size = min(8, len(rows))
    with differentiable(model):
        learnt = {
            name: made.tensors[name].clone().requires_grad_(True)
            for name in ("layer", "layer_bias")
        }
        optimiser = torch.optim.Adam(list(learnt.values()), lr=0.05)
        for step in range(steps):
            start = step * size % len(rows)
            some = [rows[(start + number) % len(rows)] for number in range(size)]
            here = replace(made, tensors={**made.tensors, **learnt})
            loss = _loss(model, here.before(edit, soft=True), some, kl)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    tensors = {**made.tensors, **{name: value.detach() for name, value in learnt.items()}}
    return replace(made, tensors=tensors)


@dataclass(frozen=True)
class _Row:
    prompt: str
    answer: str
    positive: bool


def _loss(model: Model, edit: Edit, rows: Sequence[_Row], kl: float) -> Tensor:
    """The loss of the positives' answers, and the divergence on the negatives'."""
    starts = encode(model.tokenizer, [row.prompt for row in rows])
    ends = [list(model.tokenizer(row.answer, add_special_tokens=False).input_ids) for row in rows]
    tokens, mask = pad(
        [[*a, *b] for a, b in zip(starts, ends, strict=True)], model.padding, model.device
    )
    in_answer = torch.zeros_like(mask)
    for number, end in enumerate(ends):
        in_answer[number, tokens.shape[1] - len(end) :] = True
    before, where, longest = tokens[:, :-1], mask[:, :-1], max(map(len, ends))
    # What is answered counts as generated: the controller reads the prompt's end.
    places = replace(model.positions(before, where), generated=in_answer[:, :-1])
    with torch.no_grad():
        plain, _ = model.forward(before, where, last=longest)
    with edit.on(model):
        logits, _ = model.forward(before, where, last=longest, positions=places)
    follows = in_answer[:, -longest:]
    positive = torch.tensor([row.positive for row in rows], device=mask.device)[:, None]
    log = logits.float().log_softmax(-1)
    base = plain.float().log_softmax(-1)
    said = log.gather(-1, tokens[:, -longest:, None])[..., 0]
    wanted, kept = follows & positive, follows & ~positive
    far = (base.exp() * (base - log)).sum(-1)
    loss = -said[wanted].sum() / wanted.sum().clamp(min=1)
    return loss + kl * far[kept].sum() / kept.sum().clamp(min=1)

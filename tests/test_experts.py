"""Mixtures of experts: the site of their routers against Hugging Face's own and TransformerLens',
what is collected there, which experts are chosen, and where an edit sends tokens."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS
from torch import Tensor

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.routing import Routing, in_top
from steerlab.edits import OPERATORS, route, stack, steer
from steerlab.engine.collect_routing import collect_routing
from steerlab.estimate.units import lape, masked, random_units
from steerlab.estimate.units.experts import experts, multilingual, other_layers
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model

SIZES = {
    "vocab_size": 12288,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 128,
}
SIX = {"num_experts": 6, "num_experts_per_tok": 2}
LOCAL = {"num_local_experts": 6, "num_experts_per_tok": 2}
MOE: dict[str, dict[str, Any]] = {
    "mixtral": LOCAL,
    "olmoe": SIX,
    "qwen2_moe": SIX | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": SIX | {"moe_intermediate_size": 16, "head_dim": 8, "norm_topk_prob": True},
    "gpt_oss": LOCAL | {"head_dim": 8, "sliding_window": 8},
    "phimoe": LOCAL,
}
NAMES = {"phimoe": "PhiMoEForCausalLM"}  # where TransformerLens has another
SHOWN = [shape for shape in MOE if shape != "gpt_oss"]  # by TransformerLens, at mlp.gate
IDS = torch.tensor([[1, 50, 60, 70, 80], [0, 1, 55, 65, 75]])  # of padding 0 and BOS 1
EXPERT = 3


@functools.cache
def moe(shape: str, **more: Any) -> Model:
    """A tiny random mixture of experts, of which tokens go to different ones."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    more = {name: list(each) if isinstance(each, tuple) else each for name, each in more.items()}
    config = AutoConfig.for_model(shape, **{**SIZES, **MOE.get(shape, {}), **more})
    hf = AutoModelForCausalLM.from_config(config)
    # By which TransformerLens knows it.
    hf.config.architectures = [NAMES.get(shape, type(hf).__name__)]
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.5 * weight.shape[-1] ** -0.5)
            else:
                weight.add_(0.1 * torch.randn_like(weight))
    return load(hf, tokenizer=AutoTokenizer.from_pretrained(PACKAGED))


@torch.inference_mode()
def run(model: Model, *changes: tuple[str, int, Any], past: int = 0) -> Tensor:
    """The logits of IDS, of which the last `past` tokens come by a cache, one at a time."""
    mask = IDS != 0
    with model.attached(changes):
        first = IDS.shape[1] - past
        logits, cache = model.forward(IDS[:, :first], mask[:, :first], room=past or None)
        parts = [logits]
        for place in range(first, IDS.shape[1]):
            logits, cache = model.forward(
                IDS[:, place : place + 1], mask[:, : place + 1], past=cache
            )
            parts.append(logits)
    return torch.cat(parts, 1)


def watched(model: Model, **options: Any) -> dict[int, Tensor]:
    """The logits of every router, [row pos expert]."""
    seen: dict[int, list[Tensor]] = {}

    def at(layer: int) -> Any:
        return "router", layer, lambda h, _: seen.setdefault(layer, []).append(h)

    run(model, *map(at, model.routed), **options)
    return {layer: torch.cat(parts, 1) for layer, parts in seen.items()}


def theirs(model: Model) -> tuple[Tensor, ...]:
    """What Hugging Face records, [token expert] a layer."""
    mask = IDS != 0
    with torch.inference_mode():
        out = model.hf(
            IDS,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            output_router_logits=True,
        )
    return tuple(out.router_logits)


def chosen_by(model: Model, layer: int, *changes: tuple[str, int, Any]) -> tuple[Tensor, Tensor]:
    """(the numbers, the weights) of the experts that each token meets, [token k], as the experts
    of a layer are given them."""
    module = model.anatomy.router(layer).module  # type: ignore[attr-defined]
    names = {each: name for name, each in model.hf.named_modules()}
    block = model.hf.get_submodule(names[module].rpartition(".")[0])
    given: list[tuple] = []
    handle = block.experts.register_forward_pre_hook(
        lambda _, args, kwargs: given.append((*args, *kwargs.values())), with_kwargs=True
    )
    run(model, *changes)
    handle.remove()
    tensors = given[0][1:]
    [numbers] = [each for each in tensors if each.dtype == torch.int64]
    [weights] = [each for each in tensors if each.is_floating_point()]
    return numbers, weights


# ---------------------------------------------------------------------------------------- the site


@pytest.mark.parametrize("shape", MOE)
def test_the_site_is_what_hugging_face_records(shape: str) -> None:
    model = moe(shape)
    assert (model.width_of("router"), model.experts_per_token()) == (6, 2)
    assert model.routed == (0, 1, 2)
    recorded, stepped = theirs(model), watched(model, past=2)
    for layer, seen in watched(model).items():
        assert torch.equal(seen.flatten(0, 1), recorded[layer])
        torch.testing.assert_close(stepped[layer], seen, atol=1e-5, rtol=1e-5)
        assert float(seen.std(-1).min()) > 0.01, "a router that is indifferent tells nothing"


@pytest.mark.parametrize("shape", MOE)
def test_experts_are_those_of_the_changed_logits_and_so_are_their_weights(shape: str) -> None:
    """Against the formulas by hand: what is changed is before the softmax and the top k."""
    model = moe(shape)
    before, _ = chosen_by(model, 1)
    seen: list[Tensor] = []

    def push(h: Tensor, _: Any) -> Tensor:
        new = h.clone()
        new[..., EXPERT] += 2 * h.std(-1, correction=0)
        seen.append(new.flatten(0, 1))
        return new

    numbers, weights = chosen_by(model, 1, ("router", 1, push))
    [logits] = seen
    best = logits.topk(2, dim=-1)
    assert torch.equal(numbers.sort(-1).values, best.indices.sort(-1).values)
    assert (numbers == EXPERT).any(1).float().mean() > (before == EXPERT).any(1).float().mean()
    if shape == "phimoe":  # whose weights are those of its own sampler
        return
    normed = shape in ("mixtral", "qwen3_moe", "gpt_oss")  # over the two, or over all six
    by_hand = best.values.softmax(-1) if normed else logits.softmax(-1).gather(-1, best.indices)
    torch.testing.assert_close(
        weights.gather(-1, numbers.argsort(-1)), by_hand.gather(-1, best.indices.argsort(-1))
    )
    whole = watched(model)[1].flatten(0, 1).topk(2, dim=-1).values
    assert not torch.allclose(best.values, whole)


@pytest.mark.parametrize("shape", MOE)
def test_transformerlens_shows_the_same_and_an_edit_there_does_the_same(shape: str) -> None:
    model = moe(shape)
    tl = model.tl
    lens = load(tl)
    assert lens.width_of("router") == 6
    assert (lens.routed, lens.experts_per_token()) == (model.routed, 2)
    ours, other = watched(model), watched(lens)
    real = IDS != 0  # what the two compute at padding is nobody's
    for layer in model.routed:
        torch.testing.assert_close(other[layer][real], ours[layer][real], atol=1e-5, rtol=1e-5)
    if shape in SHOWN:
        name = sl_name(1)
        with torch.inference_mode():
            _, cache = tl.run_with_cache(IDS, attention_mask=(IDS != 0).long(), names_filter=[name])
        shown = cache[name].reshape(*IDS.shape, 6)
        torch.testing.assert_close(shown[real], ours[1][real], atol=1e-5, rtol=1e-5)
    edit = route(planted(model), strength=1.0, hard=True)
    with edit.on(model):
        mine = run(model)
    with edit.on(lens):
        through = run(lens)
    text = (IDS != 0) & (IDS != 1)
    torch.testing.assert_close(through[text], mine[text], atol=1e-4, rtol=1e-4)
    assert (mine - run(model))[text].abs().max() > 1e-3


def sl_name(layer: int) -> str:
    from steerlab.core.sites import hook_name, site_of

    name = hook_name("router", layer)
    assert site_of(name) == ("router", layer)
    return name


def test_a_plain_hook_at_a_bridges_router_routes_nothing_so_that_edits_are_refused_there() -> None:
    model = moe("mixtral")
    tl = model.tl
    with torch.inference_mode():
        plain = tl(IDS, attention_mask=(IDS != 0).long())
        with tl.hooks(fwd_hooks=[(sl_name(1), lambda h, hook: -h)]):
            hooked = tl(IDS, attention_mask=(IDS != 0).long())
    assert torch.equal(plain, hooked)
    with pytest.raises(SteerlabError, match="changes the logits that are shown and not where"):
        route(planted(model)).hooks(tl)


def test_what_has_no_router_that_can_be_read_says_so(polyglot: Model, lens: Any) -> None:
    with pytest.raises(SteerlabError, match="LlamaForCausalLM is no mixture of experts"):
        polyglot.width_of("router")
    with pytest.raises(SteerlabError, match="LlamaForCausalLM is no mixture of experts"):
        collect_routing(polyglot, corpus())
    with pytest.raises(SteerlabError, match="only a TransformerBridge to a mixture of experts"):
        load(lens("mixtral", "hooked")).width_of("router")
    # Its router corrects the logits by a bias before it chooses.
    odd = moe("ernie4_5_moe", moe_num_experts=6, moe_k=2, moe_layer_start_index=0)
    with pytest.raises(SteerlabError, match="are not those of the largest logits; use resid_pre"):
        odd.width_of("router")
    half = moe("qwen2_moe", mlp_only_layers=(0,))
    assert (half.routed, half.width_of("router")) == ((1, 2), 6)
    with (
        pytest.raises(SteerlabError, match="layer 0 has no experts.*the layers 1, 2 have"),
        half.attached([("router", 0, lambda h, _: None)]),
    ):
        raise AssertionError("attached")
    with pytest.raises(SteerlabError, match="the block of layer 0 has no experts"):
        collect_routing(half, corpus(), layers=[0, 1])
    assert collect_routing(half, corpus()).layers == (1, 2)


def test_nothing_is_left_behind_and_a_router_that_only_looks_is_untouched() -> None:
    model = moe("olmoe")
    before = run(model)
    hooks = dict(model.anatomy.router(1).module._forward_hooks)  # type: ignore[attr-defined]
    looked = run(model, *(("router", layer, lambda h, _: None) for layer in model.routed))
    assert torch.equal(before, looked)

    def broken(h: Tensor, _: Any) -> Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run(model, ("router", 1, broken))
    assert torch.equal(run(model), before)
    assert hooks == model.anatomy.router(1).module._forward_hooks  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------- collecting

LINES = {
    "en": ["The weather is nice today.", "No.", "We eat bread.", "I would like two tickets."],
    "de": ["Das Wetter ist heute schön.", "Nein.", "Wir essen Brot.", "Ich möchte zwei Karten."],
    "es": ["Hoy hace buen tiempo.", "No.", "Comemos pan.", "Quisiera dos billetes."],
}


def corpus() -> Corpus:
    return Corpus("few", {lang: tuple(lines) for lang, lines in LINES.items()})


@pytest.mark.parametrize("shape", ["mixtral", "gpt_oss"])
def test_routing_is_the_mean_of_each_text_and_how_often_experts_are_met(shape: str) -> None:
    model = moe(shape)
    found = collect_routing(model, corpus(), batch=3)
    assert (found.langs, found.layers, found.experts, found.per_token) == (
        ("en", "de", "es"),
        (0, 1, 2),
        6,
        2,
    )
    rates, tokens = torch.zeros(3, 6, dtype=torch.float64), 0
    for place, line in enumerate(LINES["de"]):
        ids = torch.tensor([model.tokenizer(line)["input_ids"]])
        with torch.inference_mode():
            recorded = model.hf(ids, output_router_logits=True).router_logits
        logits = torch.stack(recorded, 0)[:, 1:]  # without BOS
        by_hand = logits.softmax(-1).mean(1)
        torch.testing.assert_close(found.weights["de"][place], by_hand, atol=1e-5, rtol=1e-4)
        best = logits.topk(2, dim=-1).indices
        rates += torch.nn.functional.one_hot(best, 6).sum((1, 2))
        tokens += logits.shape[1]
    torch.testing.assert_close(found.rate[1], rates / tokens)
    assert torch.allclose(found.rate.sum(-1), torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(found.mean.sum(-1), torch.ones(3, 3))
    again = collect_routing(model, corpus(), layers=[1])
    torch.testing.assert_close(again.weights["es"], found.weights["es"][:, [1]])


def test_a_routing_is_kept_in_a_file_and_units_are_chosen_from_it(tmp_path: Path) -> None:
    found = collect_routing(moe("mixtral"), corpus())
    back = Routing.load(found.save(tmp_path / "routing.safetensors"))
    assert back == found
    assert (back.per_token, back.firing.provenance["experts per token"]) == (2, 2)
    assert "6 experts a layer, 2 of them a token" in repr(found)
    assert lape(found.firing, share=0.5).site == "router"
    with pytest.raises(SteerlabError, match="a routing is read at router, and this firing at mlp"):
        Routing(Firing(("en",), (0,), 4, 4, site="mlp_post"), {}, 1)
    with pytest.raises(SteerlabError, match="collect both in one pass"):
        Routing(found.firing, {"en": found.weights["en"]}, 2)


# -------------------------------------------------------------------------------------- divergence


def routing_of(weights: dict[str, Tensor], *, rate: Tensor | None = None) -> Routing:
    """A routing with these mean weights, [text layer expert], and these frequencies."""
    first = next(iter(weights.values()))
    count, layers, size = first.shape
    firing = Firing(tuple(weights), range(layers), size, size, site="router")
    firing.tokens += 100
    firing.texts += count
    firing.on += 100 * (torch.rand(firing.on.shape) if rate is None else rate)
    firing.sums += torch.randn(firing.sums.shape, generator=torch.Generator().manual_seed(3))
    return Routing(firing, weights, 2)


def drawn(texts: int, layers: int, size: int, seed: int, *, by: Tensor | float = 0.0) -> Tensor:
    """Random weights of texts, whose logits are moved `by`."""
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(texts, layers, size, generator=random) + by).softmax(-1)


def test_divergence_has_its_closed_forms() -> None:
    from steerlab.analysis.routing import divergence

    half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert float(divergence(half, half)) == 0
    # JS of disjoint ones is log 2, and so is the entropy of two equal shares.
    assert float(divergence(half, half.flip(0))) == pytest.approx(1.0)
    quarter = torch.full((4,), 0.25)
    js = 2.0794415416798357 - 0.75 * 0.9162907318741551 * 0 - 1.5 * 0.6931471805599453
    mixed = torch.tensor([0.375, 0.375, 0.125, 0.125])
    js = float(-(mixed * mixed.log()).sum()) - 1.5 * 0.6931471805599453
    assert float(divergence(half, quarter)) == pytest.approx(js / (1.5 * 0.6931471805599453))
    certain = torch.tensor([1.0, 0.0])
    assert float(divergence(certain, certain)) == 0
    assert float(divergence(certain, certain.flip(0))) == float("inf")


def test_a_planted_language_is_found_where_it_is_and_an_equal_one_nowhere() -> None:
    content = 1.5 * torch.randn(60, 4, 8, generator=torch.Generator().manual_seed(9))
    own = torch.zeros(4, 8)
    own[2, 0] = 1.5  # at layer 2 alone
    weights = {
        "en": drawn(60, 4, 8, 1, by=content),
        "de": drawn(60, 4, 8, 2, by=content + own),
        "es": drawn(60, 4, 8, 3, by=content),
    }
    found = sl.units.routing_divergence(routing_of(weights), draws=199)
    rows: list[Any] = found.table.to_dict("records")
    here = {(row["lang"], row["layer"]): row for row in rows}
    there = here.pop(("de", 2))
    assert there["p"] == 1 / 200
    assert there["p_holm"] < 0.05
    assert there["of_means"] > 5 * there["null"]
    others = [row["p"] for row in here.values()]
    assert min(others) > 0.01, "and no p is small where nothing was planted"
    assert all(row["shuffled"] > row["divergence"] for row in rows), "the content is shared"
    assert (found.langs, found.pairs.shape) == (("de", "es"), (2, 60, 4))
    assert found.pairs.mean(1)[0, 2] == pytest.approx(there["divergence"])


def test_the_test_keeps_its_level_where_languages_are_alike() -> None:
    """Of many pairs that differ by nothing, one in twenty has p ≤ .05."""
    small = 0
    for seed in range(20):
        weights = {
            lang: drawn(12, 5, 4, 10 * seed + number) for number, lang in enumerate(("en", "de"))
        }
        found = sl.units.routing_divergence(routing_of(weights), draws=59, seed=seed)
        small += int((found.table["p"] <= 0.05).sum())
    assert 0 < small <= 12, f"{small} of 100"


def test_families_are_found_by_exchanging_languages() -> None:
    langs = ("es", "pt", "it", "de", "nl", "sv")
    random = torch.Generator().manual_seed(0)
    family = {name: 1.5 * torch.randn(2, 8, generator=random) for name in ("romance", "germanic")}
    weights = {}
    for number, lang in enumerate(langs):
        by = family["romance" if number < 3 else "germanic"].clone()
        by[0] = 0  # nothing at layer 0
        weights[lang] = drawn(40, 2, 8, number, by=by)
    table = sl.units.routing_by_family(routing_of(weights), draws=499)
    assert table["p"].tolist()[1] < 0.15  # 20 ways to deal three and three, of which two are this
    assert table["p"].tolist()[0] > 0.15
    assert table["difference"][1] > 10 * abs(table["difference"][0])
    assert (table["p_layers"] >= table["p"]).all()
    with pytest.raises(SteerlabError, match="are all of one family or of one each"):
        sl.units.routing_by_family(routing_of({k: weights[k] for k in ("es", "pt")}))


@pytest.mark.parametrize(
    ("ends", "verdict"), [(2.0, "holds here"), (-2.0, "opposite here"), (0.0, "cannot tell")]
)
def test_a_u_is_found_where_it_is_planted(ends: float, verdict: str) -> None:
    depth = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    apart = (2.5 + ends * (depth - 0.5))[:, None] * torch.eye(8)[0]
    weights = {"en": drawn(40, 6, 8, 1), "de": drawn(40, 6, 8, 2, by=apart)}
    found = sl.units.routing_divergence(routing_of(weights), draws=9)
    said = sl.units.u_shape(found)
    assert said.verdict == verdict
    assert said.sentences == 40
    assert said.statistic * ends >= 0
    if verdict == "holds here":  # one end alone is no U
        lone = apart.clone()
        lone[:2] = lone[2:4]
        weights["de"] = drawn(40, 6, 8, 2, by=lone)
        found = sl.units.routing_divergence(routing_of(weights), draws=9)
        assert sl.units.u_shape(found).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("sharp", "verdict"), [(0.5, "holds here"), (3.0, "opposite here"), (1.0, "cannot tell")]
)
def test_spread_in_the_end_is_found_where_it_is_planted(sharp: float, verdict: str) -> None:
    scale = torch.tensor([1.0, 1.0, sharp])[:, None]
    random = torch.Generator().manual_seed(0)
    weights = {
        lang: (scale * 2 * torch.randn(50, 3, 8, generator=random)).softmax(-1)
        for lang in ("en", "de")
    }
    assert sl.units.spread_out(routing_of(weights)).verdict == verdict
    with pytest.raises(SteerlabError, match="2 layers with a router; thirds need three"):
        sl.units.spread_out(routing_of({k: v[:, :2] for k, v in weights.items()}))


def test_what_cannot_be_paired_is_refused() -> None:
    uneven = routing_of({"en": drawn(4, 3, 4, 1), "de": drawn(5, 3, 4, 2)})
    with pytest.raises(SteerlabError, match=r"different numbers of texts \(en 4, de 5\)"):
        sl.units.routing_divergence(uneven)
    with pytest.raises(SteerlabError, match="the source 'fr' is none of en de"):
        sl.units.routing_divergence(uneven, source="fr")


# ---------------------------------------------------------------------------------------- choosing


def rates(values: list[list[list[float]]], langs: tuple[str, ...]) -> Routing:
    rate = torch.tensor(values)
    weights = {lang: drawn(3, rate.shape[1], rate.shape[2], 0) for lang in langs}
    return routing_of(weights, rate=rate)


TASK = rates(  # [lang layer expert]
    [
        [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]],
        [[0.9, 0.5, 0.1, 0.5], [0.5, 0.7, 0.5, 0.3]],
        [[0.9, 0.1, 0.5, 0.5], [0.4, 0.5, 0.6, 0.5]],
    ],
    ("en", "de", "es"),
)


def test_experts_are_those_met_more_often_than_in_the_reference() -> None:
    found = experts(TASK)
    assert (found.site, found.langs, found.method) == ("router", ("en", "de", "es"), "experts")
    assert [found.of(lang, layer) for lang in found.langs for layer in (0, 1)] == [
        *([], []),
        *([0], []),
        *([0], []),
    ]
    assert float(found.score[1, 0, 0]) == pytest.approx(0.4)
    assert experts(TASK, threshold=0.15).of("de", 1) == [1]
    # Against another reference: a task is met more often than general text.
    reference = rates([[[0.1, 0.5, 0.5, 0.9], [0.5, 0.5, 0.1, 0.9]]], ("en",))
    assert experts(TASK, reference).of("en", 1) == [2]
    assert experts(TASK, reference).provenance["settings"]["own reference"] is False
    with pytest.raises(SteerlabError, match="the reference has no 'fr'"):
        experts(TASK, source="fr")
    with pytest.raises(SteerlabError, match="with layers .* collect the routing of both alike"):
        experts(TASK, rates([[[0.1, 0.5, 0.5, 0.9]]], ("en",)))
    with pytest.raises(SteerlabError, match="give a share from 0 to 1"):
        experts(TASK, threshold=30)


def test_controls_have_as_many_experts_and_other_ones() -> None:
    found = experts(TASK, threshold=0.15)
    assert found.counts.to_numpy().tolist() == [[0, 0], [1, 1], [1, 0]]
    many = multilingual(found)
    assert [many.of(lang, 0) for lang in many.langs] == [[0]] * 3
    assert many.method == "experts multilingual"
    with pytest.raises(SteerlabError, match="chosen for 3 languages or more"):
        multilingual(found, least=3)
    blind = random_units(found, TASK.firing, seed=1)
    assert blind.counts.equals(found.counts)
    assert not (blind.chosen & found.chosen.any(0)).any()
    elsewhere = other_layers(found, 0)
    assert elsewhere.layers == (1,)
    assert [int(each) for each in elsewhere.chosen.sum((1, 2))] == [0, 1, 1]
    assert (elsewhere.of("de", 1), elsewhere.of("es", 1)) == ([1], [2])
    with pytest.raises(SteerlabError, match="so that there are no others"):
        other_layers(found, 0, 1)


# ----------------------------------------------------------------------------------------- routing


def planted(model: Model, *, layers: tuple[int, ...] = (0, 1, 2)) -> Any:
    """From en to de, whose expert is EXPERT at every layer."""
    count, size = len(layers), model.width_of("router")
    rate = torch.full((2, count, size), 0.5)
    rate[1, :, EXPERT] = 0.9
    made = routing_of({lang: drawn(3, count, size, 0) for lang in ("en", "de")}, rate=rate)
    made.firing.layers = layers
    return masked(experts(made), made.firing).between("en", "de")


def test_route_has_its_closed_forms() -> None:
    z = torch.tensor([[[1.0, 2.0, 3.0, 6.0, 0.0, 0.0]]])
    spread = float(z.flatten().numpy().std())  # over the experts, divided by how many
    step = planted(moe("mixtral"), layers=(1,))
    [part] = route(step, strength=-0.5).parts
    assert (part.site, part.layer, part.operator) == ("router", 1, "route")
    added = part.change(z, part.tensors, None)
    assert added.flatten().tolist() == pytest.approx([0, 0, 0, -0.5 * spread, 0, 0])
    shifted = z.roll(1, -1)  # now EXPERT has 3.0 and the largest is 6.0
    [on] = route(step, strength=1.0, hard=True).parts
    new = shifted + on.change(shifted, on.tensors, None)
    assert 0 < float(new[0, 0, EXPERT]) - 6 < 0.01
    [off] = route(step, strength=-0.1, hard=True).parts
    new = shifted + off.change(shifted, off.tensors, None)
    assert -0.01 < float(new[0, 0, EXPERT]) < 0
    assert new[0, 0].argmin() == EXPERT
    rest = [place for place in range(6) if place != EXPERT]
    assert torch.equal(new[..., rest], shifted[..., rest])


@pytest.mark.parametrize("shape", MOE)
@pytest.mark.parametrize(("strength", "share"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_hard_edit_sends_every_touched_token_and_no_other(
    shape: str, strength: float, share: float
) -> None:
    model = moe(shape)
    edit = route(planted(model), strength=strength, hard=True)
    with edit.on(model) as stats:
        said = sl.generate(model, PROMPTS[:2], max_new_tokens=3)
    assert len(said) == 2
    assert stats.routed is not None
    table = stats.routed.table()
    steered = table[table["expert"] == EXPERT]
    assert steered["layer"].tolist() == [0, 1, 2]
    assert steered["after"].tolist() == [share] * 3
    assert 0 < steered["before"].mean() < 1
    assert table.groupby("layer")["after"].sum().tolist() == pytest.approx([2.0] * 3)
    assert sum(stats.decode.values()) > 0
    # What comes to the stream is not known, and the share of the logits is.
    assert stats.doses(2).isnan().all()
    assert float(stats.site_doses(2)["router"].min()) > 0
    with edit.on(model):
        _, (numbers, _) = None, chosen_by(model, 1)
    text = ((IDS != 0) & (IDS != 1)).flatten()
    assert (numbers == EXPERT).any(1)[text].float().mean() == share
    plain, _ = chosen_by(model, 1)
    assert torch.equal(numbers[~text], plain[~text]), "BOS and padding go where they went"


def test_strength_0_changes_no_bit_and_a_stack_is_each_row_alone() -> None:
    model = moe("olmoe")
    step, prompts = planted(model), PROMPTS[:3]
    each = [route(step, strength=0.0), route(step, strength=1.0), route(step, hard=True)]
    with stack(each).on(model) as stats:
        together = run_prompts(model, prompts)
    assert stats.routed is not None
    for row, edit in enumerate(each):
        with edit.on(model):
            alone = run_prompts(model, prompts[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    plain = run_prompts(model, prompts)
    torch.testing.assert_close(together[0], plain[0], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(together[1], plain[1], atol=1e-3)
    with each[0].on(model):
        assert torch.equal(run_prompts(model, prompts), plain)


@torch.inference_mode()
def run_prompts(model: Model, prompts: list[str]) -> Tensor:
    from steerlab.engine.prompts import encode, pad

    ids, mask = pad(encode(model.tokenizer, prompts), 0, model.device)
    return model.forward(ids, mask, last=1)[0][:, 0]


def test_an_edit_of_experts_is_a_cell_like_any_other(tmp_path: Path) -> None:
    """It is saved, takes a gate, and has a random control; directions of neurons are no experts."""
    model = moe("mixtral")
    found = collect_routing(model, corpus())
    chosen = experts(found, threshold=0.02)
    directions = masked(chosen, found.firing)
    edit = steer("route", directions, 0.5, source="en", target="de")
    assert {part.layer for part in edit.parts} == set(chosen.where("de"))
    assert sl.Edit.load(edit.save(tmp_path / "edit.safetensors")).digest == edit.digest
    [part, *_] = edit.parts
    random = torch.Generator().manual_seed(0)
    twin = OPERATORS["route"].twin
    assert twin is not None
    other = twin(part.tensors, random, 1.0)["soft"]
    assert (other != 0).sum() == (part.tensors["soft"] != 0).sum()
    with pytest.raises(SteerlabError, match="route edits the logits of routers, at router"):
        route(residual(directions))
    with pytest.raises(SteerlabError, match="'en' has no expert at layers"):
        route(masked(chosen, found.firing).between("de", "en"))


def residual(directions: Directions) -> Any:
    import dataclasses

    layers = directions.where("de", "en")
    return dataclasses.replace(directions.at(*layers).between("en", "de"), site="resid_post")


def test_in_top_marks_the_largest() -> None:
    assert in_top(torch.tensor([[3.0, 1.0, 2.0]]), 2).tolist() == [[True, False, True]]

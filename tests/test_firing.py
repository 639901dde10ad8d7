"""Firing is streamed: batches, shards and padding make no difference, and the numbers are those
counted by hand."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.engine.collect_units import collect_units, ordinary
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE

COUNTS = ("tokens", "texts", "on", "texts_on")
SUMS = ("total", "square", "sums")


@pytest.fixture(scope="module")
def few(lines: Corpus) -> Corpus:
    """Seven sentences in three languages."""
    return lines.split("estimate").take(7).select(["en", "de", "ru"])


@pytest.fixture(scope="module")
def saes(polyglot: Model) -> dict[int, SAE]:
    """Random ones at two layers, whose thresholds do keep latents off."""
    return {layer: random_sae(polyglot, layer) for layer in (1, 6)}


def random_sae(model: Model, layer: int, *, latents: int = 48, site: str = "resid_post") -> SAE:
    random = torch.Generator().manual_seed(layer)
    width = model.width_of(site)
    encoder = torch.nn.functional.normalize(torch.randn(width, latents, generator=random), dim=0)
    bias, threshold = torch.full((latents,), -3.0), 10 * torch.rand(latents, generator=random)
    decoder = encoder.mT.contiguous()
    return SAE(encoder, bias, decoder, torch.zeros(width), "jumprelu", layer, site, threshold)


def same(a: Firing, b: Firing) -> None:
    for name in COUNTS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in SUMS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-3)


def kept(firing: Firing) -> torch.Tensor:
    assert firing.seen is not None
    return firing.seen


def texts_of(model: Model, few: Corpus, iso: str) -> list[torch.Tensor]:
    """Each text's tokens, alone in a batch."""
    return [
        torch.tensor([ids]) for ids in encode(model.tokenizer, [f"{line}\n" for line in few[iso]])
    ]


@torch.inference_mode()
def gates(model: Model, ids: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """act(gate) and act(gate)·up of a text [pos neuron] without BOS, by hooks on transformers'
    own modules."""
    mlp, seen = model.hf.model.layers[layer].mlp, dict[str, torch.Tensor]()
    hooks = [
        mlp.act_fn.register_forward_hook(lambda _, __, out: seen.update(gate=out[0, 1:])),
        mlp.up_proj.register_forward_hook(lambda _, __, out: seen.update(up=out[0, 1:])),
    ]
    model.hf(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return seen["gate"], seen["gate"] * seen["up"]


# ------------------------------------------------------------------------------------------ by hand


def test_neurons_are_counted_as_by_hand(polyglot, few):
    """LAPE's rate: the share of tokens at which act(gate) > 0, from transformers' own outputs,
    text by text."""
    firing = collect_units(polyglot, few, form="line", batch=3)
    assert (firing.langs, firing.layers, firing.site) == (few.langs, tuple(range(8)), "mlp_post")
    assert firing.units == firing.width == polyglot.config.intermediate_size
    for place, iso in enumerate(few.langs):
        for layer in (0, 7):
            read = [gates(polyglot, ids, layer) for ids in texts_of(polyglot, few, iso)]
            gate, value = (torch.cat(parts).double() for parts in zip(*read, strict=True))
            assert firing.tokens[place] == len(gate)
            assert abs(firing.on[place, layer] - (gate > 0).sum(0)).max() <= 1, (
                "but where a gate is 0 but for rounding"
            )
            assert (firing.on[place, layer] == (gate > 0).sum(0)).double().mean() > 0.99
            torch.testing.assert_close(
                firing.level[place, layer], value.mean(0), atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                firing.means[place, layer], value.mean(0), atol=1e-5, rtol=1e-4
            )
            deviation = value.std(0, correction=0)
            torch.testing.assert_close(
                firing.deviation[place, layer], deviation, atol=1e-4, rtol=1e-3
            )
            share = torch.stack([(one > 0).any(0) for one, _ in read]).double().mean(0)
            assert (firing.share[place, layer] == share).double().mean() > 0.99
    assert 0.1 < firing.rate.mean() < 0.9, "and some are on, some off"


def test_neurons_without_a_gate(tiny, few):
    model = load(tiny("gpt2"))
    firing, seen = collect_units(model, few.select(["de"]), layers=[1], form="line"), []
    hook = model.hf.transformer.h[1].mlp.act.register_forward_hook(
        lambda _, __, out: seen.append(out[0, 1:])
    )
    with torch.inference_mode():
        for ids in texts_of(model, few, "de"):
            model.hf(input_ids=ids)
    hook.remove()
    value = torch.cat(seen).double()
    assert (firing.on[0, 0] == (value > 0).sum(0)).double().mean() > 0.99
    torch.testing.assert_close(firing.level[0, 0], value.mean(0), atol=1e-5, rtol=1e-4)


def test_latents_are_counted_as_by_hand(polyglot, few, saes):
    firing = collect_units(polyglot, few, saes, form="line", batch=3)
    assert (firing.layers, firing.units, firing.width, firing.site) == (
        (1, 6),
        48,
        polyglot.width,
        "resid_post",
    )
    for place, iso in enumerate(few.langs):
        with torch.inference_mode():
            found = [
                polyglot.hf(ids, output_hidden_states=True) for ids in texts_of(polyglot, few, iso)
            ]
        for depth, layer in enumerate(firing.layers):
            states = [out.hidden_states[layer + 1][0, 1:] for out in found]
            latents = [saes[layer].encode(h).double() for h in states]
            z, h = torch.cat(latents), torch.cat(states).double()
            assert 0.01 < (z > 0).double().mean() < 0.5
            assert (firing.on[place, depth] - (z > 0).sum(0)).abs().sum() <= 1
            torch.testing.assert_close(firing.level[place, depth], z.mean(0), atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(firing.means[place, depth], h.mean(0), atol=1e-4, rtol=1e-4)
            share = torch.stack([(one > 0).any(0) for one in latents]).double().mean(0)
            assert (firing.share[place, depth] == share).double().mean() > 0.95
    assert firing.provenance["saes"] == [saes[1].digest, saes[6].digest]


# --------------------------------------------------------------------------------------------- laws


def test_batches_make_no_difference(polyglot, few, saes):
    whole, small = (collect_units(polyglot, few, saes, keep=5, batch=batch) for batch in (64, 2))
    same(whole, small)
    assert torch.equal(kept(whole), kept(small))


@pytest.mark.parametrize("noise", [None, "random", "shuffled"])
def test_other_texts_beside_a_text_change_nothing_of_it(polyglot, few, saes, noise):
    """A much longer text in the batch pads the others: neither padding nor BOS is ever counted."""
    alone = collect_units(polyglot, few.select(["de"]), saes, noise=noise)
    long = {"en": (" ".join(few["en"]) + " ", *few["en"][1:]), "de": few["de"]}
    beside = collect_units(polyglot, Corpus("long", long, tuple(range(7))), saes, noise=noise)
    for name in COUNTS:
        assert torch.equal(getattr(alone, name)[0], getattr(beside, name)[1]), name
    one, padded = (
        collect_units(polyglot, Corpus("x", {"de": texts}, tuple(range(len(texts)))), saes)
        for texts in ((few["de"][0],), (few["de"][0], " ".join(few["en"])))
    )
    rest = collect_units(polyglot, Corpus("x", {"de": (" ".join(few["en"]),)}, (0,)), saes)
    same(one.merge(rest), padded)


def test_two_halves_are_the_whole(polyglot, few, saes):
    whole = collect_units(polyglot, few, saes)
    halves = [
        Corpus(few.name, {iso: few[iso][part] for iso in few.langs}, few.numbers[part])
        for part in (slice(0, 4), slice(4, 7))
    ]
    first, second = (collect_units(polyglot, half, saes) for half in halves)
    assert not torch.equal(first.on, whole.on)
    same(first.merge(second), whole)


def test_kept_texts_are_those_in_which_a_unit_is_on(polyglot, few, saes):
    seen = kept(collect_units(polyglot, few, saes, keep=3, batch=2))
    assert seen.shape == (3, 3, 2, 48)
    for text in range(3):
        one = Corpus("one", {"ru": few["ru"][text : text + 1]}, (0,))
        assert torch.equal(collect_units(polyglot, one, saes).on[0] > 0, seen[2, text])
    assert kept(collect_units(polyglot, few, saes, keep=100)).shape[1] == 7
    everything = collect_units(polyglot, few, saes, keep=7)
    assert torch.equal(kept(everything).sum(1).double(), everything.texts_on)


def test_a_transformer_lens_model_is_read_alike(polyglot, hooked, few):
    ours = collect_units(polyglot, few, layers=[2, 5])
    for theirs in (hooked, polyglot.tl):
        found = collect_units(theirs, few, layers=[2, 5])
        assert (ours.on == found.on).double().mean() > 0.999
        torch.testing.assert_close(ours.level, found.level, atol=1e-4, rtol=1e-4)


# -------------------------------------------------------------------------------------------- noise


def fed(
    model: Model, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Firing]
) -> tuple[list[list[int]], Firing]:
    """The rows of tokens that a pass puts to the model."""
    seen: list[list[int]] = []
    body = model.body

    def watch(ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> None:
        seen.extend(row[kept].tolist() for row, kept in zip(ids, mask, strict=True))
        body(ids, mask, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "body", watch)
        return seen, run()


def test_random_noise_has_the_lengths_of_the_texts_and_no_special_token(
    polyglot, few, saes, monkeypatch
):
    def run(**more):
        return lambda: collect_units(polyglot, few, saes, form="line", noise="random", **more)

    rows, firing = fed(polyglot, monkeypatch, run())
    texts = [ids[0].tolist() for iso in few.langs for ids in texts_of(polyglot, few, iso)]
    assert [len(row) for row in rows] == [len(text) for text in texts]
    assert rows != texts
    assert all(row[0] == polyglot.tokenizer.bos_token_id for row in rows)
    special = set(polyglot.tokenizer.all_special_ids)
    assert special
    assert not special & {token for row in rows for token in row[1:]}
    assert torch.equal(firing.tokens, collect_units(polyglot, few, saes, form="line").tokens)
    assert (firing.noise, firing.provenance["noise"], firing.provenance["seed"]) == (
        "random",
        "random",
        0,
    )
    assert fed(polyglot, monkeypatch, run(batch=2))[0] == rows, "it does not depend on the batch"
    assert fed(polyglot, monkeypatch, run(seed=1))[0] != rows
    pool = ordinary(polyglot).tolist()
    assert len(pool) == len(set(pool)) == polyglot.vocabulary - len(special)


def test_shuffled_noise_has_each_languages_own_tokens(polyglot, few, saes, monkeypatch):
    def run(**more):
        return lambda: collect_units(polyglot, few, saes, form="line", noise="shuffled", **more)

    rows, _ = fed(polyglot, monkeypatch, run())
    for place, iso in enumerate(few.langs):
        texts = [ids[0].tolist() for ids in texts_of(polyglot, few, iso)]
        noise = rows[place * len(few) : (place + 1) * len(few)]
        assert [len(row) for row in noise] == [len(text) for text in texts]
        assert Counter(token for row in noise for token in row) == Counter(
            token for text in texts for token in text
        )
        assert sum(sorted(a) == sorted(b) for a, b in zip(noise, texts, strict=True)) <= 1, (
            "dealt across the texts"
        )
    assert fed(polyglot, monkeypatch, run(batch=3))[0] == rows
    assert fed(polyglot, monkeypatch, run(seed=5))[0] != rows


def test_unused_tokens_are_no_noise(tiny):
    """Gemma and Llama name tokens that no text has; they are ordinary by all else."""
    model = load(tiny("llama"))
    everything = len(ordinary(model))
    names: Any = model.tokenizer.convert_ids_to_tokens

    class Named:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __len__(self) -> int:
            return len(tokenizer)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            told = {
                100: "<unused7>",
                101: "<|reserved_special_token_3|>",
                102: "[unused12]",
                103: "unused",
            }
            return [told.get(token, name) for token, name in zip(ids, names(ids), strict=True)]

    tokenizer, model.tokenizer = model.tokenizer, Named()
    left = ordinary(model).tolist()
    assert len(left) == everything - 3
    assert 103 in left


# ------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_read_is_refused(polyglot, few, saes, tiny):
    with pytest.raises(
        SteerlabError, match="there is no noise 'white'; use random, shuffled, or None"
    ):
        collect_units(polyglot, few, saes, noise="white")
    with pytest.raises(
        SteerlabError, match="keep is 0 or more and batch 1 or more; given: 0 and 0"
    ):
        collect_units(polyglot, few, saes, batch=0)
    with pytest.raises(
        SteerlabError, match="there is no autoencoder for layer 2; there are some for \\[1, 6\\]"
    ):
        collect_units(polyglot, few, saes, layers=[1, 2])
    with pytest.raises(SteerlabError, match="no autoencoder was given; give SAEs by layer"):
        collect_units(polyglot, few, {})
    with pytest.raises(SteerlabError, match="given for layer 2 is one of layer 1"):
        collect_units(polyglot, few, {2: saes[1]})
    with pytest.raises(
        SteerlabError,
        match="of different kinds: 20 latents of width 256 .*, 48 latents of width 256",
    ):
        collect_units(polyglot, few, {1: saes[1], 6: random_sae(polyglot, 6, latents=20)})
    with pytest.raises(SteerlabError):
        collect_units(tiny("llama"), few, saes)
    with pytest.raises(SteerlabError, match="MixtralSparseMoeBlock is a mixture of experts"):
        collect_units(tiny("mixtral"), few)
    with pytest.raises(
        SteerlabError, match="a text has .* tokens; polyglot was made for 512: cut it"
    ):
        collect_units(polyglot, Corpus("long", {"en": ("word " * 600,)}, (0,)))


def test_broken_weights_are_told(tiny, few):
    model = load(tiny("llama"))
    with torch.no_grad():
        model.hf.get_parameter("model.layers.1.mlp.up_proj.weight")[0] = float("nan")
    with pytest.raises(
        SteerlabError, match="the units of layer 1 hold NaN or infinity for 'en'; the weights"
    ):
        collect_units(model, few)


def firing_of(units: int = 2, **more: Any) -> Firing:
    return Firing(("en", "de"), (0,), units, 3, site="resid_post", **more)


def test_what_does_not_count_may_be_anything():
    firing = firing_of()
    mask = torch.tensor([[False, True]])
    value = torch.tensor([[[torch.nan, 5.0], [2.0, 0.0]]])
    states = torch.tensor([[[torch.inf] * 3, [1.0, 2.0, 3.0]]])
    firing.update("de", 0, on=value > 0, value=value, states=states, mask=mask)
    firing.count("de", mask)
    assert firing.on[1, 0].tolist() == firing.share[1, 0].tolist() == [1, 0]
    assert firing.level[1, 0].tolist() == [2, 0]
    assert firing.means[1, 0].tolist() == [1, 2, 3]
    assert firing.tokens.tolist() == [0, 1]
    with pytest.raises(SteerlabError, match="nothing was read of en; give some text"):
        firing.need_texts()


def test_firing_of_different_kinds_is_not_compared():
    with pytest.raises(SteerlabError, match="of a different kind cannot be merged: units 2 and 4"):
        firing_of().merge(firing_of(4))
    with pytest.raises(SteerlabError, match="cannot be merged: noise None and random"):
        firing_of().merge(firing_of(noise="random"))
    with pytest.raises(
        SteerlabError, match="the noise has units 4 and the text 2; collect both alike"
    ):
        firing_of().need_like(firing_of(4), "the noise")
    firing_of().need_like(firing_of(noise="random"), "the noise")

"""One streaming pass: equal to reading text by text, whatever the batch; it says what it costs
and what is broken."""

import shutil

import numpy as np
import pytest
import torch
from conftest import RESIDUAL, save_tiny

from steerlab.core.corpus import Corpus, texts
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name
from steerlab.engine import collect as collection
from steerlab.engine.collect import collect, text_means
from steerlab.engine.prompts import prompt
from steerlab.models.loading import load
from steerlab.models.model import Model


@pytest.fixture(scope="module")
def few(lines: Corpus) -> Corpus:
    return lines.split("estimate").take(7)


@torch.inference_mode()
def one_by_one(
    model: Model, corpus: Corpus, site: str, form: str = "line"
) -> dict[str, list[torch.Tensor]]:
    """Token vectors [token layer width] of each text, without BOS, from Hugging Face's hidden
    states."""
    found: dict[str, list[torch.Tensor]] = {}
    for iso in corpus.langs:
        for line in corpus[iso]:
            text = prompt(model.tokenizer, form, line, source=iso, target=iso)
            ids = [
                model.tokenizer.bos_token_id,
                *model.tokenizer(text, add_special_tokens=False).input_ids,
            ]
            out = model.hf(input_ids=torch.tensor([ids]), output_hidden_states=True)
            states = torch.stack([state[0, 1:] for state in out.hidden_states], 1)
            found.setdefault(iso, []).append(
                states[:, :-1] if site == "resid_pre" else states[:, 1:-1]
            )
    return found


@pytest.mark.parametrize("site", RESIDUAL)
def test_collect_is_reading_text_by_text(site, polyglot, few):
    layers = range(
        polyglot.n_layers - (site == "resid_post")
    )  # the last hidden state is after the final norm
    read = one_by_one(polyglot, few, site)
    moments = collect(polyglot, few, layers=layers, site=site, batch=3, also=["scatter", "pairs"])
    assert (moments.langs, moments.layers, moments.site) == (few.langs, tuple(layers), site)
    within = torch.zeros(len(layers), polyglot.width, polyglot.width, dtype=torch.float64)
    for place, iso in enumerate(few.langs):
        tokens = torch.cat(read[iso]).double()
        assert moments.count[place] == len(tokens)
        assert moments.rows[place] == len(few)
        torch.testing.assert_close(moments.mean[place], tokens.mean(0), atol=1e-4, rtol=1e-4)
        pooled = torch.stack([text.mean(0) for text in read[iso]]).double().mean(0)
        torch.testing.assert_close(moments.pooled[place], pooled, atol=1e-4, rtol=1e-4)
        last = torch.stack([text[-1] for text in read[iso]]).double().mean(0)
        torch.testing.assert_close(moments.last[place], last, atol=1e-4, rtol=1e-4)
        centred = tokens - tokens.mean(0)
        within += torch.einsum("nlw,nlv->lwv", centred, centred)
        if iso != "en":
            pairs = torch.stack(
                [b.mean(0) - a.mean(0) for a, b in zip(read["en"], read[iso], strict=True)]
            ).double()
            torch.testing.assert_close(
                moments.need("pairs").total[place], pairs.sum(0), atol=1e-3, rtol=1e-3
            )
            square = torch.einsum("nlw,nlv->lwv", pairs, pairs).float()
            torch.testing.assert_close(
                moments.need("pairs").square[place], square, atol=1e-2, rtol=1e-3
            )
    torch.testing.assert_close(moments.within, within, atol=0.05, rtol=1e-3)
    assert moments.provenance["tokens"] == moments.count.sum()
    assert moments.provenance["model"]["fingerprint"] == polyglot.fingerprint
    assert moments.provenance["corpus"] == {"name": few.name, "hash": few.hash, "lines": 7}


def test_sites_inside_the_mlp_have_its_width(polyglot, few):
    """From transformers' own modules: what gate_proj gives, and what down_proj takes."""
    mlp, seen = polyglot.hf.model.layers[3].mlp, dict[str, list[torch.Tensor]]()
    hooks = [
        mlp.gate_proj.register_forward_hook(
            lambda _, __, out: seen.setdefault("mlp_pre", []).append(out[0, 1:])
        ),
        mlp.down_proj.register_forward_pre_hook(
            lambda _, args: seen.setdefault("mlp_post", []).append(args[0][0, 1:])
        ),
    ]
    one_by_one(polyglot, few.select(["de"]), "resid_pre")
    for hook in hooks:
        hook.remove()
    for site, parts in seen.items():
        moments = collect(polyglot, few, layers=[3], site=site, batch=3, also=["scatter", "pairs"])
        assert moments.width == polyglot.config.intermediate_size != polyglot.width
        mean = torch.cat(parts).double().mean(0)
        torch.testing.assert_close(moments.mean[1, 0], mean, atol=1e-4, rtol=1e-4)
        read = text_means(polyglot, few.select(["de"]), layers=[3], site=site)["de"]
        torch.testing.assert_close(
            read[:, 0], torch.stack([part.mean(0) for part in parts]), atol=1e-4, rtol=1e-4
        )


def test_batch_size_does_not_matter(polyglot, few):
    whole, small = collect(polyglot, few), collect(polyglot, few, batch=2)
    assert torch.equal(whole.count, small.count)
    for name in ("mean", "last", "within"):
        a, b = getattr(whole, name), getattr(small, name)
        torch.testing.assert_close(a, b, atol=1e-4 * a.abs().max().item(), rtol=0)
    torch.testing.assert_close(
        whole.need("pairs").total, small.need("pairs").total, atol=1e-3, rtol=1e-4
    )


def test_deranged_pairs_keep_the_mean_difference_and_nothing_of_the_pairing(polyglot, few):
    whole = collect(polyglot, few, layers=[5], also=["pairs"])
    deranged = collect(polyglot, few, layers=[5], also=["pairs"], derange=0)
    read = text_means(polyglot, few, layers=[5])
    pairs, others = whole.need("pairs"), deranged.need("pairs")
    torch.testing.assert_close(others.total, pairs.total, atol=1e-3, rtol=1e-3)
    for place, iso in enumerate(few.langs[1:], start=1):
        assert others.square[place, 0].trace() > 1.01 * pairs.square[place, 0].trace(), (
            "strangers are further apart"
        )
        partners = read[iso][:, 0] - others.sample.of(place)[:, 0]
        found = torch.cdist(partners, read["en"][:, 0]).argmin(1)
        assert sorted(map(int, found)) == list(range(len(few)))
        assert all(int(row) != place for place, row in enumerate(found))
    assert deranged.provenance["deranged"] == 0
    with pytest.raises(
        SteerlabError, match="of a different kind cannot be merged: deranged None and 0"
    ):
        whole.merge(deranged)


def test_text_means_are_the_texts_means(polyglot, few):
    read = one_by_one(polyglot, few, "resid_pre")
    means = text_means(polyglot, few, site="resid_pre")
    for iso in few.langs:
        expected = torch.stack([text.mean(0) for text in read[iso]])
        torch.testing.assert_close(means[iso], expected, atol=1e-4, rtol=1e-4)


def test_the_prompt_form_is_read_and_recorded(polyglot, few):
    moments = collect(polyglot, few, layers=[2], form="instructed")
    tokens = torch.cat(one_by_one(polyglot, few, "resid_post", "instructed")["de"])
    assert moments.provenance["form"] == "instructed"
    assert moments.count[1] == len(tokens)
    torch.testing.assert_close(
        moments.mean[1, 0], tokens[:, 2].double().mean(0), atol=1e-4, rtol=1e-4
    )


def test_also_names_what_is_gathered(polyglot, few):
    bare = collect(polyglot, few, layers=[1], also=[])
    assert (bare.within, bare.clouds, bare.sample, bare.pairs) == (None, None, None, None)
    some = collect(polyglot, few, layers=[1], also=["sample"])
    assert some.within is None
    assert some.pairs is None
    assert some.need("sample").filled(0) == min(some.count[0], collection.SAMPLE)
    with pytest.raises(
        SteerlabError, match="no statistic 'median'; also= takes scatter, clouds, sample, pairs"
    ):
        collect(polyglot, few, also=["median"])
    with pytest.raises(SteerlabError, match=r"corpus '.*' has no 'tr'; it has en de es fr ru"):
        collect(polyglot, few, also=["pairs"], source="tr")


def test_without_also_what_fits_is_gathered(polyglot, few, monkeypatch):
    everything = collect(polyglot, few, layers=[1])
    assert None not in (everything.within, everything.clouds, everything.sample, everything.pairs)
    monkeypatch.setattr(collection, "FREE_BYTES", 600_000)  # scatter of one layer takes 8 * 256²
    little = collect(polyglot, few, layers=[1])
    assert little.within is not None
    assert (little.clouds, little.sample, little.pairs) == (None, None, None)


def test_a_large_request_prints_its_memory(polyglot, few, monkeypatch, capsys):
    collect(polyglot, few, layers=[1], also=["scatter", "pairs"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(collection, "FREE_BYTES", 100_000)
    collect(polyglot, few, layers=[1], also=["scatter", "pairs"])
    size = (
        (8 + 4 * len(few.langs)) * polyglot.width**2 + 4 * len(few.langs) * 256 * polyglot.width
    ) / 2**30
    assert (
        f"the statistics scatter, pairs will take {size:.1f} GiB of memory"
        in capsys.readouterr().err
    )


def test_unaligned_texts_have_no_pairs(polyglot, few, tmp_path):
    for iso, count in (("en", 5), ("de", 3)):
        (tmp_path / f"{iso}.txt").write_text("\n".join(few[iso][:count]) + "\n", "utf-8")
    loose = texts(tmp_path)
    moments = collect(polyglot, loose, layers=[1], batch=4)
    assert moments.pairs is None
    assert sorted(moments.rows.tolist()) == [3, 5]
    with pytest.raises(SteerlabError, match="collecting pairs needs sentences aligned by line"):
        collect(polyglot, loose, also=["pairs"])


def test_every_architecture_is_read(tiny, few):
    for shape in ("gemma2", "gpt2", "qwen2"):
        model = load(tiny(shape))
        read = one_by_one(model, few, "resid_post")
        moments = collect(model, few, layers=[0, 1], batch=4)
        mean = torch.cat(read["ru"]).double().mean(0)
        torch.testing.assert_close(moments.mean[few.langs.index("ru")], mean, atol=1e-4, rtol=1e-4)


def test_moments_read_a_transformer_lens_cache(polyglot, few):
    from steerlab.core.moments import Moments
    from steerlab.engine.prompts import encode, pad

    ids, mask = pad(
        encode(polyglot.tokenizer, [f"{line}\n" for line in few["es"]]), 0, polyglot.device
    )
    names = [hook_name("resid_post", layer) for layer in (2, 5)]
    with torch.inference_mode():
        cache = polyglot.tl.run_with_cache(ids, attention_mask=mask.long(), names_filter=names)[1]
    theirs = Moments(("es",), (2, 5), polyglot.width)
    theirs.update("es", cache, mask & (mask.long().cumsum(1) > 1))
    ours = collect(polyglot, few.select(["es"]), layers=[2, 5], also=[])
    assert torch.equal(ours.count, theirs.count)
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-4, rtol=1e-4)


def test_nan_in_saved_weights_is_told_on_loading(tmp_path):
    from safetensors.torch import load_file, save_file

    file = save_tiny(tmp_path / "broken", "llama") / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    told = (
        r"the weights of .*broken hold NaN or infinity in model\.layers\.1\.mlp\.up_proj\.weight; "
        r"fetch the model"
    )
    with pytest.raises(SteerlabError, match=told):
        load(tmp_path / "broken")


def test_nan_in_activations(tiny, few):
    model = load(tiny("llama"))
    with torch.no_grad():
        model.hf.get_parameter("model.layers.1.mlp.up_proj.weight")[0] = float("nan")
    with pytest.raises(
        SteerlabError,
        match="activations of 'en' hold NaN or infinity; the model's weights are broken",
    ):
        collect(model, few)
    collect(model, few, layers=[0])  # what is above the damage is whole


def test_layers_that_are_not_there(polyglot, few):
    with pytest.raises(SteerlabError, match="polyglot has layers 0 to 7; layer 8 was asked for"):
        collect(polyglot, few, layers=[8])
    with pytest.raises(SteerlabError, match="layers 0 to 7; layer -1"):
        collect(polyglot, few, layers=[-1])
    with pytest.raises(SteerlabError, match="name at least one of polyglot's layers 0 to 7"):
        collect(polyglot, few, layers=[])
    with pytest.raises(
        SteerlabError, match="there is no site 'mlp'; the sites are resid_pre, attn_z"
    ):
        collect(polyglot, few, site="mlp")


def test_a_text_longer_than_the_context(tiny, few):
    long = Corpus("long", {iso: (few[iso][0], "word " * 300) for iso in ("en", "de")}, (0, 1))
    with pytest.raises(SteerlabError, match=r"a text has \d+ tokens; .* was made for 128: cut it"):
        collect(load(tiny("qwen2")), long)


def test_the_same_files_give_the_same_numbers(polyglot, few, tiny, tmp_path):
    """A copy of the folder is the same model: directions made with one are good for the other."""
    shutil.copytree(tiny("llama"), tmp_path / "copy")
    here, there = load(tiny("llama")), load(tmp_path / "copy")
    assert here.fingerprint == there.fingerprint
    a, b = collect(here, few), collect(there, few)
    assert np.array_equal(a.mean.numpy(), b.mean.numpy())

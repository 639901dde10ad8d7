"""Autoencoders compute what sae-lens computes, and survive saving."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from sae_weights import (
    HOOK,
    LATENTS,
    WIDTH,
    activations,
    agree,
    altered,
    jumprelu,
    theirs,
    weights,
)
from safetensors.torch import load_file, save_file

from steerlab.core.errors import SteerlabError
from steerlab.models.model import Model
from steerlab.sae import SAE


@pytest.fixture(params=["standard", "jumprelu", "topk", "topk by norm", "b_dec kept"])
def of_sae_lens(request: pytest.FixtureRequest) -> Any:
    if request.param == "b_dec kept":
        return theirs("jumprelu", apply_b_dec_to_input=False)
    if request.param.startswith("topk"):
        return theirs("topk", k=5, rescale_acts_by_decoder_norm="norm" in request.param)
    return theirs(request.param)


# ------------------------------------------------------------------------------------ sae-lens' own


def test_an_object_and_a_folder_of_sae_lens_compute_the_same(
    of_sae_lens: Any, tmp_path: Path
) -> None:
    of_sae_lens.save_model(tmp_path)
    folds = getattr(of_sae_lens.cfg, "rescale_acts_by_decoder_norm", False)
    for ours in (SAE.of(of_sae_lens), SAE.load(tmp_path)):
        agree(ours, of_sae_lens, exactly=not folds)
        assert (ours.site, ours.layer, ours.width, ours.latents) == (
            "resid_post",
            2,
            WIDTH,
            LATENTS,
        )
        assert ours.about["model"] == "some model"


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu"])
def test_what_sae_lens_trains_is_read_as_it_reads_it(kind: str, tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE
    from sae_lens import TrainingSAE
    from sae_lens.saes.sae import SAEMetadata

    told: dict[str, Any] = {
        "architecture": kind,
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "metadata": {"hook_name": HOOK},
    }
    made = TrainingSAE.from_dict(told | ({} if kind == "jumprelu" else {"k": 5}))
    assert isinstance(made.cfg.metadata, SAEMetadata)
    with torch.no_grad():
        made.b_enc.copy_(weights()["b_enc"])
        if kind == "batchtopk":
            made.topk_threshold.fill_(0.05)  # the decoder rows of a new one are short
    made.save_inference_model(tmp_path)
    ours = SAE.load(tmp_path)
    agree(ours, TheirSAE.load_from_disk(tmp_path), exactly=kind != "topk")
    assert ours.kind == ("topk" if kind == "topk" else "jumprelu")


def test_a_file_of_before_version_6_is_read(tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    save_file(
        {name: value for name, value in weights().items() if name != "threshold"},
        tmp_path / "sae_weights.safetensors",
    )
    old = {
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "hook_name": HOOK,
        "model_name": "gpt2-small",
    }
    old |= {
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5},
        "normalize_activations": False,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    ours = SAE.load(tmp_path)
    agree(ours, TheirSAE.load_from_disk(tmp_path))
    assert (ours.kind, ours.k, ours.about["model"]) == ("topk", 5, "gpt2-small")


def test_activations_and_weights_of_16_bit_are_computed_in_float32() -> None:
    halves = SAE(
        **{name: value.half() for name, value in weights().items()},
        kind="jumprelu",
        layer=2,
        site="resid_post",
    )
    h = activations().half()
    assert halves.encode(h).dtype == halves.decode(halves.encode(h)).dtype == torch.float32
    assert torch.equal(halves.encode(h), halves.encode(h.float()))
    coarse = (h - weights()["b_dec"].half()) @ weights()["W_enc"].half() + weights()["b_enc"].half()
    assert not torch.equal(
        halves.encode(h), (coarse.relu() * (coarse > weights()["threshold"].half())).float()
    )


# ------------------------------------------------------------------------------- saving and loading


def test_a_learned_threshold_is_honoured_after_saving_and_loading(tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    made = jumprelu(about={"model": "some model", "fingerprint": "0123456789abcdef"})
    read = SAE.load(made.save(tmp_path / "new" / "folder"))
    h = activations()
    pre = (h - made.b_dec) @ made.W_enc + made.b_enc
    assert made.threshold is not None
    between = (pre > 0) & (pre <= made.threshold)
    assert between.any()
    assert not read.encode(h)[between].any()
    assert torch.equal(read.encode(h), made.encode(h))
    agree(read, TheirSAE.load_from_disk(tmp_path / "new" / "folder"))
    assert read.digest == made.digest
    assert (read.about["model"], read.about["fingerprint"]) == ("some model", "0123456789abcdef")


@pytest.mark.parametrize("kind", ["relu", "topk"])
def test_other_kinds_survive_too(kind: str, tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    parts = {name: value for name, value in weights().items() if name != "threshold"}
    made = SAE(
        **parts,
        kind=kind,
        layer=1,
        site="mlp_post",
        k=5 if kind == "topk" else None,
        apply_b_dec_to_input=False,
    )
    read = SAE.load(made.save(tmp_path))
    agree(read, TheirSAE.load_from_disk(tmp_path))
    assert (read.digest, read.site, read.layer, read.k) == (made.digest, "mlp_post", 1, made.k)


def test_an_autoencoder_of_attention_heads_is_that_of_sae_lens(tmp_path: Path) -> None:
    """It takes hook_z [row pos head dim] there, and here the heads side by side."""
    from sae_lens import SAE as TheirSAE

    parts = {name: value for name, value in weights().items() if name != "threshold"}
    made = SAE(**parts, kind="relu", layer=1, site="attn_z")
    read, other = SAE.load(made.save(tmp_path)), TheirSAE.load_from_disk(tmp_path)
    assert (read.digest, read.hook) == (made.digest, "blocks.1.attn.hook_z")
    assert (SAE.of(other).site, SAE.of(other).digest) == ("attn_z", made.digest)
    h = activations()
    heads = rearrange(h, "row pos (head dim) -> row pos head dim", head=2)
    with torch.no_grad():
        z = other.encode(heads)
        torch.testing.assert_close(read.encode(h), z)
        torch.testing.assert_close(
            rearrange(read.decode(z), "row pos (head dim) -> row pos head dim", head=2),
            other.decode(z),
        )
    wrong = altered(other, tmp_path / "wrong", lambda told: told["metadata"].update(hook_name=HOOK))
    with pytest.raises(SteerlabError, match=f"attention heads .hook_z. but reads {HOOK}"):
        SAE.load(wrong)


def test_16_bit_weights_come_back_as_they_were_rounded(tmp_path: Path) -> None:
    made = jumprelu()
    read = SAE.load(made.save(tmp_path, dtype=torch.float16))
    assert torch.equal(read.W_enc, made.W_enc.half().float())
    assert not torch.equal(read.W_enc, made.W_enc)
    assert load_file(tmp_path / "sae_weights.safetensors")["W_dec"].dtype == torch.float16


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    made = jumprelu()
    made.save(tmp_path)
    large = SAE(
        **weights() | {"b_enc": torch.full((LATENTS,), 1e6)},
        kind="jumprelu",
        layer=2,
        site="resid_post",
    )
    with pytest.raises(SteerlabError, match="b_enc of this autoencoder holds NaN or infinity"):
        large.save(tmp_path, dtype=torch.float16)
    assert SAE.load(tmp_path).digest == made.digest
    (tmp_path / "file").write_text("")
    with pytest.raises(SteerlabError, match="could not write"):
        made.save(tmp_path / "file")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cfg.json",
        "file",
        "sae_weights.safetensors",
    ]


def test_two_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    jumprelu(0).save(tmp_path / "a")
    jumprelu(0, layer=3).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "cfg.json", tmp_path / "b" / "cfg.json")
    with pytest.raises(SteerlabError, match="do not belong together"):
        SAE.load(tmp_path / "b")


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_the_digest_sees_every_weight(name: str) -> None:
    other = weights()
    other[name].view(-1)[0] += 1e-3
    assert SAE(**other, kind="jumprelu", layer=2, site="resid_post").digest != jumprelu().digest
    assert SAE(**weights(), kind="jumprelu", layer=2, site="resid_post").digest == jumprelu().digest


# ---------------------------------------------------------------------------------------- the model


def test_it_is_refused_for_another_width_layer_or_model(polyglot: Model) -> None:
    own = {"model": "steerlab polyglot", "fingerprint": polyglot.fingerprint}
    jumprelu(width=polyglot.width, about=own).need(polyglot)
    jumprelu(width=polyglot.width).need(polyglot)  # nothing is known of its model
    with pytest.raises(
        SteerlabError,
        match=f"reads {WIDTH} numbers, and resid_post of polyglot has {polyglot.width}",
    ):
        jumprelu(about=own).need(polyglot)
    with pytest.raises(
        SteerlabError, match="blocks.40.hook_resid_post, and polyglot has layers 0 to 7"
    ):
        jumprelu(width=polyglot.width, layer=40, about=own).need(polyglot)
    stale = own | {"fingerprint": "0" * 16}
    with pytest.raises(
        SteerlabError, match=f"0000, and polyglot has {polyglot.fingerprint}; .*make rebuild"
    ):
        jumprelu(width=polyglot.width, about=stale).need(polyglot)


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(
        SteerlabError, match=f"the activations have 3 numbers each; .* takes {WIDTH}"
    ):
        jumprelu().encode(torch.zeros(2, 3))
    with pytest.raises(SteerlabError, match=f"the latents have 3 numbers each; .* takes {LATENTS}"):
        jumprelu().decode(torch.zeros(2, 3))


# ------------------------------------------------------------------------------------------ readers


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("kind", ["jumprelu", "relu"])
def test_a_few_latents_are_read_alone_as_among_all(kind: str, *, subtracted: bool) -> None:
    parts = (
        weights()
        if kind == "jumprelu"
        else {n: v for n, v in weights().items() if n != "threshold"}
    )
    made = SAE(**parts, kind=kind, layer=2, site="resid_post", apply_b_dec_to_input=subtracted)
    units, h = [7, 0, 39], activations()
    encoder, bias, threshold = made.readers(units)
    pre = h @ encoder.mT + bias
    expected = made.encode(h)[..., units]
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(pre.relu() * (pre > threshold), expected)
    assert made.readers([])[0].shape == (0, WIDTH)
    with pytest.raises(SteerlabError, match="no latent 40; this autoencoder has latents 0 to 39"):
        made.readers([1, 40])


def test_latents_of_a_topk_autoencoder_cannot_be_read_alone() -> None:
    with pytest.raises(SteerlabError, match="topk autoencoder.*take a jumprelu one"):
        SAE.of(theirs("topk", k=5)).readers([1])

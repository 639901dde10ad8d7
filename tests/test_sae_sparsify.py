"""Autoencoders of sparsify are read, dictionary_learning's are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from steerlab.core.errors import SteerlabError
from steerlab.sae import SAE

WIDTH, LATENTS, K = 6, 12, 3


def written(folder: Path, **config: Any) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(LATENTS, WIDTH, generator=random),
        "encoder.bias": torch.randn(LATENTS, generator=random),
        "W_dec": torch.randn(LATENTS, WIDTH, generator=random),
        "b_dec": torch.randn(WIDTH, generator=random),
    }
    folder.mkdir(parents=True)
    save_file(weights, folder / "sae.safetensors")
    told = {"k": K, "d_in": WIDTH, "num_latents": LATENTS, "activation": "topk", **config}
    (folder / "cfg.json").write_text(json.dumps(told))
    return weights


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("layers.5", "blocks.5.hook_resid_post"),
        ("layers.0.mlp", "blocks.0.hook_mlp_out"),
        ("h.7.attn", "blocks.7.hook_attn_out"),
    ],
)
def test_one_of_sparsify_computes_what_its_formula_says(tmp_path, name, hook):
    w = written(tmp_path / name)
    sae = SAE.load(tmp_path / name)
    assert (sae.hook, sae.kind, sae.k) == (hook, "topk", K)
    x = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    before = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    best, index = before.topk(K)
    latents = torch.zeros_like(before).scatter(1, index, best)
    torch.testing.assert_close(sae.encode(x), latents)
    torch.testing.assert_close(sae.decode(latents), latents @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"k": None}, "k of .* is None; it has to be a whole number of 1"),
        ({"k": 3.7}, r"k of .* is 3\.7; it has to be a whole number"),
        ({"k": 0}, "k of .* it has to be a whole number"),
        ({"activation": "groupmax"}, "by 'groupmax'; .* only those by topk"),
        ({"transcode": True}, "holds a transcoder"),
        ({"skip_connection": True}, "holds a transcoder"),
    ],
)
def test_what_is_no_topk_autoencoder_is_refused(tmp_path, config, told):
    written(tmp_path / "layers.5", **config)
    with pytest.raises(SteerlabError, match=told):
        SAE.load(tmp_path / "layers.5")


def test_where_it_reads_is_asked_for_if_no_name_says_it(tmp_path):
    written(tmp_path / "mine")
    with pytest.raises(SteerlabError, match="does not say where its autoencoder reads"):
        SAE.load(tmp_path / "mine")
    assert SAE.load(tmp_path / "mine", layer=4).hook == "blocks.4.hook_resid_post"


def test_a_damaged_one_is_refused(tmp_path):
    w = written(tmp_path / "layers.5")
    del w["encoder.bias"]
    save_file(w, tmp_path / "layers.5" / "sae.safetensors")
    with pytest.raises(SteerlabError, match="has no b_enc"):
        SAE.load(tmp_path / "layers.5")


@pytest.mark.parametrize("kind", ["AutoEncoder", "GatedAutoEncoder", "BatchTopKSAE"])
def test_a_pickle_of_dictionary_learning_is_refused_by_name(tmp_path, kind):
    (tmp_path / "ae.pt").write_bytes(b"\x80\x02.")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind}}))
    with pytest.raises(SteerlabError, match=f"{kind} of dictionary_learning in ae.pt, a pickle"):
        SAE.load(tmp_path)

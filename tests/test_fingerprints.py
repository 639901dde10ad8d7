"""A model's fingerprint: every weight counts, and nothing that changes no number does."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights
from steerlab.edits import add
from steerlab.engine.collect import collect
from steerlab.models.fingerprint import fingerprint_of, of_weights
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import load
from steerlab.sweeps import sweep as sweeps

OLD = "5af2307f6adc9fb9"  # as fingerprints were while they read one weight in five hundred


@pytest.fixture
def own(tiny):
    """A model that a test may change."""
    return load(tiny("llama"))


def test_every_element_counts(own):
    """One step of one element, in every weight, at an index drawn at random."""
    random = torch.Generator().manual_seed(3)
    before = own.fingerprint
    for name, weight in own.hf.named_parameters():
        index = tuple(int(torch.randint(size, (), generator=random)) for size in weight.shape)
        kept = weight[index].item()
        with torch.no_grad():
            weight[index] = torch.nextafter(weight[index], torch.tensor(9.0))
        assert own.fingerprint != before, name
        assert fingerprint_of(own.hf, own.tokenizer) == own.fingerprint
        with torch.no_grad():
            weight[index] = kept
        assert own.fingerprint == before, name


def test_a_step_below_bfloat16_is_another_model_with_the_same_weights(own):
    before = own.fingerprint
    with torch.no_grad():
        own.hf.lm_head.weight[7, 3] *= 1 + 2**-20
    assert own.fingerprint != before
    assert same_weights(own.fingerprint, before)
    with torch.no_grad():
        own.hf.lm_head.weight[7, 3] *= 1.1
    assert not same_weights(own.fingerprint, before)


def test_it_does_not_depend_on_the_dtype_that_holds_the_same_numbers(own):
    with torch.no_grad():
        for weight in own.hf.parameters():
            weight.copy_(weight.to(torch.bfloat16))
    assert fingerprint_of(copy.deepcopy(own.hf).to(torch.bfloat16)) == fingerprint_of(own.hf)
    half = copy.deepcopy(own.hf).to(torch.float16)
    assert fingerprint_of(copy.deepcopy(half).to(torch.float32)) == fingerprint_of(half)


def test_rounded_weights_are_taken_for_the_same(own):
    half = HuggingFaceModel(copy.deepcopy(own.hf).to(torch.bfloat16), own.tokenizer, name="half")
    assert half.fingerprint != own.fingerprint
    assert same_weights(half.fingerprint, own.fingerprint)


def test_buffers_count_since_quantised_layers_keep_their_weights_there(own):
    layer: Any = torch.nn.Module()
    layer.register_buffer("qweight", torch.arange(12, dtype=torch.int32))
    layer.register_buffer("cached", torch.zeros(3), persistent=False)
    before = of_weights(layer)
    layer.cached += 1
    assert of_weights(layer) == before
    layer.qweight[5] += 1
    assert of_weights(layer) != before


def test_a_configuration_that_changes_the_numbers_counts(own):
    before = own.fingerprint
    own.hf.config.rms_norm_eps = 1e-3
    assert fingerprint_of(own.hf, own.tokenizer) != before
    own.hf.config.rms_norm_eps = 1e-6
    own.hf.config._name_or_path = "elsewhere"
    own.hf.config.use_cache = False
    assert fingerprint_of(own.hf, own.tokenizer) == before


def test_the_tokenizer_counts_and_its_last_call_does_not(own):
    before = own.fingerprint
    own.tokenizer(["a", "longer than that"], padding=True, truncation=True, max_length=2)
    assert fingerprint_of(own.hf, own.tokenizer) == before
    own.tokenizer.add_tokens(["<new>"])
    assert fingerprint_of(own.hf, own.tokenizer) != before


def test_a_weight_without_values_is_refused():
    with torch.device("meta"):
        layer = torch.nn.Linear(2, 2)
    with pytest.raises(SteerlabError, match=r"the weight weight has no values .*'meta'"):
        of_weights(layer)


def test_an_old_fingerprint_proves_nothing_and_says_so(polyglot, directions):
    made = replace(
        directions, provenance={**directions.provenance, "model": {"name": "x", "fingerprint": OLD}}
    )
    told = rf"made with x \({OLD}\), not with polyglot .*{OLD} is of the old kind"
    with pytest.raises(SteerlabError, match=told), add(made.between("en", "es").at(3)).on(polyglot):
        pass
    with pytest.raises(SteerlabError, match=told):
        sl.sweep(polyglot, sl.corpus(langs=["en", "es"]), directions={"x": made}, limit=1)


def test_a_changed_weight_gets_no_row_of_the_old_model(own, lines, tmp_path):
    """The folder of a sweep belongs to the model that made it, to its last weight."""
    grid: Any = {"layers": [1], "limit": 1, "strengths": [1.0], "targets": ["de"]}
    texts = lines.select(["en", "de"])
    sweeps.sweep(own, texts, estimators=["diffmean"], out=tmp_path / "sweep", **grid)
    with torch.no_grad():
        own.hf.model.layers[1].mlp.down_proj.weight[3, 5] += 0.01
    with pytest.raises(SteerlabError, match="holds a sweep of another model .*give another folder"):
        sweeps.sweep(own, texts, estimators=["diffmean"], out=tmp_path / "sweep", **grid)


def test_moments_of_a_changed_model_do_not_merge(own, lines):
    part = lines.select(["en", "de"]).take(2)
    before = collect(own, part)
    with torch.no_grad():
        own.hf.model.layers[0].self_attn.q_proj.weight[1, 1] += 1
    with pytest.raises(SteerlabError, match="different kind"):
        before.merge(collect(own, part))


def test_a_large_models_hash_is_kept_by_its_files(tiny, tmp_path, monkeypatch):
    """And made anew when a file is another one, or a weight is changed in memory."""
    import os
    import shutil

    import steerlab.models.fingerprint as fingerprints

    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "LARGE", 1)
    hashed = []
    plain = fingerprints.of_weights

    def counted(module):
        hashed.append(module)
        return plain(module)

    monkeypatch.setattr(fingerprints, "of_weights", counted)
    first, again = load(folder), load(folder)
    assert again.fingerprint == first.fingerprint
    assert len(hashed) == 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert load(folder).fingerprint == first.fingerprint
    assert len(hashed) == 2
    with torch.no_grad():
        again.hf.lm_head.weight[0, 0] += 1
    assert again.fingerprint != first.fingerprint
    assert len(hashed) == 3
    for kept in (tmp_path / "cache" / "fingerprints").glob("*.json"):
        kept.write_text("{")
    assert load(folder).fingerprint == first.fingerprint

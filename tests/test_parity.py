"""Views: an edit does the same on the Hugging Face view, a bridge and a HookedTransformer, at
every site and shape."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_hand import OPERATORS, Row, Step, differing, edit_of, rows_of
from conftest import ALL_SHAPES, NO_BOS, PROMPTS, RESIDUAL, random_directions

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import NEURONS, SITES, hook_name
from steerlab.edits import Edit, add, stack
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

NEW = 8
TOLERANCE = 1e-4  # of logits whose standard deviation is 1.5 to 5; the views differ by 1e-5
UNKNOWN = "TransformerLens 3.9 makes no HookedTransformer of "
NO_HOOKED = {
    "gemma2": UNKNOWN + "a Gemma-2 or Gemma-3 of other than the official sizes",
    "gemma3": UNKNOWN + "a Gemma-2 or Gemma-3 of other than the official sizes",
    "qwen3_moe": UNKNOWN + "a Qwen3-MoE",
}

EXPERTS = (
    "mixtral",
    "qwen3_moe",
)  # which neurons a token meets differs there, so there are no sites inside the MLP

# TransformerLens puts no BOS before their texts, and the tokenizer here has one.
UNTOLD = ("qwen2", "qwen3", "qwen3_moe")

Shaped = Callable[[str], Model]
Lens = Callable[[str, str], Any]


def views(*shapes: str) -> Any:
    """Every shape as a bridge and as a `HookedTransformer`, where there is one."""
    marks = lambda shape: [pytest.mark.skip(reason=NO_HOOKED[shape])] if shape in NO_HOOKED else []  # noqa: E731
    hooked = [pytest.param(shape, "hooked", marks=marks(shape)) for shape in shapes]
    return pytest.mark.parametrize(
        ("shape", "view"), [*((shape, "bridge") for shape in shapes), *hooked]
    )


def sites_of(shape: str) -> Sequence[str]:
    """The sites of a shape, those of the residual stream first."""
    inside = [site for site in SITES if site not in RESIDUAL]
    return [*RESIDUAL, *(site for site in inside if shape not in EXPERTS or site not in NEURONS)]


def hooks_of(edit: Edit, tl: Any, shape: str) -> list[tuple[str, Callable]]:
    """Plain hooks for token ids as `encode` makes them."""
    return edit.hooks(tl, bos=True) if shape in UNTOLD else edit.hooks(tl)


def rows_at(model: Model, site: str, known: Directions | None = None) -> list[Row]:
    """Each operator alone, each at a layer of its own; all three at one place; one at every
    layer."""
    directions = (
        random_directions(model, site=site) if known is None or site not in RESIDUAL else known
    )
    step = replace(directions.between("en", "es"), site=site)
    last = max(step.layers)
    every = [Step(operator, step.at(place % last), 0.8) for place, operator in enumerate(OPERATORS)]
    here = [Step(operator, step.at(last), 0.8) for operator in reversed(OPERATORS)]
    return [*([one] for one in every), here, [Step("add", step, 0.8 / len(step.layers))]]


def feeds_of(model: Model, rows: int) -> Sequence[torch.Tensor]:
    """A prompt of BOS, if any, and twelve tokens in each row, all different, and three single
    tokens to go on with.

    No padding, which plain hooks cannot see.
    """
    text = " ".join(line.strip() for line in PROMPTS * 2)  # longer than there are rows
    [ids] = encode(model.tokenizer, [text])
    return torch.tensor([[ids[0], *ids[1 + row : 16 + row]] for row in range(rows)]).split(
        [13, 1, 1, 1], 1
    )


@torch.inference_mode()
def passes(
    run: Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]], feeds: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Logits [row pos vocab] of a prompt and of tokens fed one by one to the cache that it left."""
    found, past = [], None
    for feed in feeds:
        logits, past = run(feed, past)
        found.append(logits)
    return torch.cat(found, 1)


def hugging_face(model: Model) -> Any:
    def run(ids: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
        out = model.hf(input_ids=ids, past_key_values=past, use_cache=True)
        return out.logits, out.past_key_values

    return run


def lens_passes(tl: Any, view: str) -> Any:
    """How a bridge or a `HookedTransformer` goes on from its own cache."""
    if view == "bridge":
        return lambda ids, past: tl(
            ids, past_key_values=past, use_cache=True, return_type="logits_and_cache"
        )
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    def run(ids: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
        past = past or TransformerLensKeyValueCache.init_cache(tl.cfg, ids.device, len(ids))
        return tl(ids, past_kv_cache=past, return_type="logits"), past

    return run


# ------------------------------------------------------------------------------------------- logits


@views("polyglot", *ALL_SHAPES, NO_BOS)
def test_the_views_have_the_same_logits_at_every_site(
    shape: str, view: str, shaped: Shaped, lens: Lens, directions: Directions
) -> None:
    """At every position of the prompt and of a cached decode, each row of a stack with an edit
    of its own."""
    model, tl = shaped(shape), lens(shape, view)
    known = directions if shape == "polyglot" else None
    rows: list[Row] = [
        [],
        *(row for site in sites_of(shape) for row in rows_at(model, site, known)),
    ]
    edit, feeds = stack([edit_of(row) for row in rows]), feeds_of(model, len(rows))
    with edit.on(model):
        ours = passes(hugging_face(model), feeds)
    with tl.hooks(fwd_hooks=hooks_of(edit, tl, shape)):
        theirs = passes(lens_passes(tl, view), feeds)
    torch.testing.assert_close(theirs, ours, atol=TOLERANCE, rtol=TOLERANCE)
    plain = passes(hugging_face(model), feeds)
    apart = (plain - ours).abs().amax(-1)
    assert apart[0].max() < TOLERANCE, "a row without an edit"
    assert apart[1:, 1:].min() > 10 * TOLERANCE, (
        "every edit is felt at every position but the first"
    )
    residual = 1 + sum(len(rows_at(model, site, known)) for site in RESIDUAL)
    assert apart[1:residual].amax(1).min() > 0.3
    # An attention or an MLP is a part of what a block adds, and of what the stream holds by then.
    assert apart[residual:].amax(1).min() > 0.03
    torch.testing.assert_close(
        passes(lens_passes(tl, view), feeds), plain, atol=TOLERANCE, rtol=TOLERANCE
    )


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("site", RESIDUAL)
@views("llama", "gpt2", "mixtral")
def test_one_edit_for_all_rows_does_the_same(
    shape: str, view: str, site: str, operator: str, shaped: Shaped, lens: Lens
) -> None:
    """As plain hooks, and attached to the view itself."""
    model, tl = shaped(shape), lens(shape, view)
    step = replace(random_directions(model).between("en", "es").at(0, 2), site=site)
    edit, feeds = Step(operator, step, 0.5).edit, feeds_of(model, 3)
    with edit.on(model):
        ours = passes(hugging_face(model), feeds)
    for attached in (tl.hooks(fwd_hooks=edit.hooks(tl)), edit.on(load(tl))):
        with attached:
            theirs = passes(lens_passes(tl, view), feeds)
        torch.testing.assert_close(theirs, ours, atol=TOLERANCE, rtol=TOLERANCE)
    assert (passes(hugging_face(model), feeds) - ours).abs().amax((1, 2)).min() > 0.3


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("site", [site for site in SITES if site not in RESIDUAL])
@views("llama", "gpt2", "gemma2")
def test_one_edit_inside_a_block_does_the_same(
    shape: str, view: str, site: str, operator: str, shaped: Shaped, lens: Lens
) -> None:
    """And what is read there, on the prompt and on each token after it."""
    model, tl = shaped(shape), lens(shape, view)
    edit = Step(
        operator, random_directions(model, site=site).between("en", "es").at(0, 2), 0.5
    ).edit
    feeds, seen = feeds_of(model, 3), dict[str, list[torch.Tensor]]()

    def look(name: str) -> Any:
        return lambda h, where: seen.setdefault(name, []).append(h.clone())

    watched = [
        (place, layer, look(hook_name(place, layer)))
        for place in SITES
        for layer in range(model.n_layers)
    ]
    with edit.on(model), model.attached(watched):
        ours = passes(hugging_face(model), feeds)
    read = {name: torch.cat(parts, 1) for name, parts in seen.items()}
    seen.clear()
    for attached in (tl.hooks(fwd_hooks=edit.hooks(tl)), edit.on(load(tl))):
        with attached, load(tl).attached(watched):
            theirs = passes(lens_passes(tl, view), feeds)
        torch.testing.assert_close(theirs, ours, atol=TOLERANCE, rtol=TOLERANCE)
        assert len(read) == len(seen) == len(SITES) * model.n_layers
        for name, parts in seen.items():
            torch.testing.assert_close(
                torch.cat(parts, 1), read[name], atol=TOLERANCE, rtol=TOLERANCE
            )
        seen.clear()
    assert (passes(hugging_face(model), feeds) - ours).abs().amax((1, 2)).min() > 0.1


@pytest.mark.parametrize("site", ["mlp_pre", "mlp_post"])
@pytest.mark.parametrize(
    ("shape", "view"), [("mixtral", "bridge"), ("mixtral", "hooked"), ("qwen3_moe", "bridge")]
)
def test_experts_have_no_sites_inside(
    shape: str, view: str, site: str, shaped: Shaped, lens: Lens
) -> None:
    """A bridge has names for them there that mean something else."""
    model, tl = shaped(shape), lens(shape, view)
    step = replace(random_directions(model).between("en", "es"), site=site)
    edit = Step("add", step, 1.0).edit
    with pytest.raises(
        SteerlabError, match="SparseMoeBlock is a mixture of experts.*use resid_pre or resid_post"
    ):
        model.width_of(site)
    for attached in (
        edit.on(model),
        edit.on(load(tl)),
        load(tl).attached([(site, 0, lambda h, where: None)]),
    ):
        with pytest.raises(SteerlabError, match="a mixture of experts"), attached:
            raise AssertionError("attached")
    with pytest.raises(
        SteerlabError, match="the model is a mixture of experts, which has no sites mlp_pre"
    ):
        edit.hooks(tl)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2"])
def test_what_a_bridges_middle_returns_does_not_reach_its_stream(
    shape: str, shaped: Shaped, lens: Lens
) -> None:
    """Which is why our hooks change it in place: returned, it reaches the MLP alone."""
    model, tl = shaped(shape), lens(shape, "bridge")
    step, [ids, *_] = random_directions(model).between("en", "es").at(1), feeds_of(model, 2)
    middle, attention = (
        add(replace(step, site=site)).hooks(model) for site in ("resid_mid", "attn_out")
    )
    shift = step.unit * step.gap[:, None]

    def returned(h: torch.Tensor, hook: Any) -> torch.Tensor:
        moved = h + shift
        moved[:, 0] = h[:, 0]  # BOS
        return moved

    with torch.inference_mode():
        [expected, ours, theirs] = [
            tl.run_with_hooks(ids, fwd_hooks=hooks)
            for hooks in (attention, middle, [(hook_name("resid_mid", 1), returned)])
        ]
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert (theirs - expected).abs().max() > 0.3


@views("llama", "gpt2")
def test_run_with_hooks_takes_the_hooks(shape: str, view: str, shaped: Shaped, lens: Lens) -> None:
    """And a site's name means the same: what is edited at a layer's output is what the next
    layer reads."""
    model, tl = shaped(shape), lens(shape, view)
    step, [ids, *_] = random_directions(model).between("en", "es"), feeds_of(model, 2)
    after = Step("add", step.at(0), 1.0).edit
    before = Step("add", replace(step.at(0), layers=(1,), site="resid_pre"), 1.0).edit
    with torch.inference_mode():
        one, other = (tl.run_with_hooks(ids, fwd_hooks=edit.hooks(tl)) for edit in (after, before))
        with after.on(model):
            ours = model.hf(ids).logits
    torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(one, ours, atol=TOLERANCE, rtol=TOLERANCE)


@views("llama", "gpt2", NO_BOS)
def test_plain_hooks_know_whether_a_views_own_texts_begin_with_bos(
    shape: str, view: str, shaped: Shaped, lens: Lens
) -> None:
    """They do what an edit does that sees the tokens, on the text as TransformerLens itself
    encodes it."""
    model, tl = shaped(shape), lens(shape, view)
    edit, text = (
        Step("add", random_directions(model).between("en", "es").at(0), 0.5).edit,
        PROMPTS[2],
    )
    ids = tl.to_tokens(text)
    with torch.inference_mode():
        theirs = tl.run_with_hooks(text, fwd_hooks=edit.hooks(tl))
        with edit.on(load(tl)) as touched:
            ours = tl(ids)
        torch.testing.assert_close(theirs, ours, atol=TOLERANCE, rtol=TOLERANCE)
        apart = (tl(ids) - ours).abs().amax((0, 2))
    assert touched.prefill == {0: ids.shape[1] - 1}  # BOS, or the first token where there is none
    assert apart[0] < TOLERANCE


@views("llama", NO_BOS, *UNTOLD)
def test_a_model_of_ours_tells_by_its_tokenizer(
    shape: str, view: str, shaped: Shaped, lens: Lens
) -> None:
    """As `encode` does; where TransformerLens and the tokenizer disagree, a plain hook cannot
    know."""
    model, tl = shaped(shape), lens(shape, view)
    edit = Step("add", random_directions(model).between("en", "es").at(0), 0.5).edit
    ids = torch.tensor(encode(model.tokenizer, [PROMPTS[2]]))
    with torch.inference_mode():
        theirs = [tl.run_with_hooks(ids, fwd_hooks=edit.hooks(told)) for told in (model, load(tl))]
        with edit.on(model):
            ours = model.hf(ids).logits
    for logits in theirs:
        torch.testing.assert_close(logits, ours, atol=TOLERANCE, rtol=TOLERANCE)
    if shape in UNTOLD:
        with pytest.raises(
            SteerlabError,
            match="TransformerLens puts no BOS before .* give bos=True .*, or bos=False",
        ):
            edit.hooks(tl)


@pytest.mark.parametrize("view", ["bridge", "hooked"])
def test_a_model_without_bos_stays_so(view: str, shaped: Shaped, lens: Lens) -> None:
    """TransformerLens gives the tokenizer that it is given its EOS as BOS."""
    model, tl = shaped(NO_BOS), lens(NO_BOS, view)
    ids = model.tokenizer(PROMPTS, add_special_tokens=False).input_ids
    for one in (model, load(tl)):
        assert one.tokenizer.bos_token_id is None
        assert encode(one.tokenizer, PROMPTS) == ids
    assert tl.tokenizer.bos_token == tl.tokenizer.eos_token


# ------------------------------------------------------------------------------------------- tokens


@views(*ALL_SHAPES, NO_BOS)
def test_the_views_own_generate_says_what_decode_says(
    shape: str, view: str, shaped: Shaped, lens: Lens
) -> None:
    model, tl = shaped(shape), lens(shape, view)
    rows: list[Row] = [[], *(row for site in sites_of(shape) for row in rows_at(model, site))]
    prompts = [PROMPTS[2]] * len(rows)  # of one length, so that there is no padding
    edit, ids = (
        stack([edit_of(row) for row in rows]),
        torch.tensor(encode(model.tokenizer, prompts)),
    )
    ours = decode(model, prompts, edit=edit, max_new_tokens=NEW, one_line=False).texts
    with torch.inference_mode(), tl.hooks(fwd_hooks=hooks_of(edit, tl, shape)):
        made = tl.generate(
            ids,
            max_new_tokens=NEW,
            do_sample=False,
            stop_at_eos=False,
            return_type="tokens",
            verbose=False,
        )
    theirs = [_until_the_end(model, row) for row in made[:, ids.shape[1] :].tolist()]
    assert len(differing(model, prompts, rows, ours, theirs, NEW)) <= 1
    assert sum(text == ours[0] for text in ours) <= len(rows) / 7, "the edits change what is said"


@views(*ALL_SHAPES, NO_BOS)
def test_decode_says_the_same_with_a_model_that_is_brought(
    shape: str, view: str, shaped: Shaped, lens: Lens
) -> None:
    """With padding, all kinds of positions, and rows that end."""
    model = shaped(shape)
    rows = rows_of(random_directions(model), 12, targets=["es"])
    prompts = [PROMPTS[row * 7 % 4] for row in range(12)]
    edit = stack([edit_of(row) for row in rows])
    ours, theirs = (
        decode(one, prompts, edit=edit, max_new_tokens=NEW, one_line=False).texts
        for one in (model, lens(shape, view))
    )
    assert len(differing(model, prompts, rows, ours, theirs, NEW)) <= 1
    assert len(set(ours)) > 8, "the edits do change what is said"


def _until_the_end(model: Model, tokens: list[int]) -> str:
    end = model.tokenizer.eos_token_id
    kept = tokens[: tokens.index(end)] if end in tokens else tokens
    return str(model.tokenizer.decode(kept, skip_special_tokens=True))

"""Models that see a picture of noise and write with the packaged model's weights, and what they say
of a sentence beside it."""

from collections.abc import Sequence
from typing import Any

import torch
from shapes import IMAGE, made, picture, writer_of
from torch import Tensor

import steerlab as sl
from steerlab.edits import Edit
from steerlab.engine.prompts import pad
from steerlab.models.model import Model

PARTS = 4  # of a picture
NEW_TOKENS = 32
# Whose part that writes is a Llama, as the packaged model is; and what brings a picture's parts into
# its width.
HOLDS = {
    "llava": "multi_modal_projector.linear_2",
    "idefics3": "connector.modality_projection.proj",
    "smolvlm": "connector.modality_projection.proj",
}


def seeing(shape: str) -> Model:
    """A model of a shape that writes with the packaged model's weights, and whose tower is random.

    Each shape's tower is drawn with a seed of its own: of one seed, SmolVLM is Idefics 3.

    The tower's last projection is scaled so that a picture's parts are as long as words are: longer
    ones would drown the text, and shorter ones would be as if not there.
    """
    own: Any = sl.load().hf
    text = own.config.to_dict() | {"tie_word_embeddings": False}
    hf = made(shape, text=text, seed=list(HOLDS).index(shape))
    writer_of(hf).load_state_dict(own.model.state_dict())
    hf.lm_head.load_state_dict(own.lm_head.state_dict())
    model = sl.load(hf, tokenizer=sl.load().tokenizer)
    words, parts = lengths(model, shape)
    with torch.no_grad():
        for weight in hf.model.get_submodule(HOLDS[shape]).parameters():
            weight *= words / parts
    return sl.load(hf, tokenizer=model.tokenizer)  # the weights are others now, and so is its name


@torch.inference_mode()
def lengths(model: Model, shape: str) -> tuple[float, float]:
    """The mean length of a word's vector and of a picture's part, before the first block."""
    ids, mask = prompts(model, ["The weather is nice today."], seen=True)
    found: list[Tensor] = []
    with model.attached([("resid_pre", 0, lambda h, _: found.append(h[0].norm(dim=-1)))]):
        model.hf(input_ids=ids, attention_mask=mask, **picture(shape, ids))
    parts = ids[0] == IMAGE
    return float(found[0][~parts][1:].mean()), float(found[0][parts].mean())


def prompts(model: Model, lines: Sequence[str], *, seen: bool) -> tuple[Tensor, Tensor]:
    """BOS, the places of a picture, a sentence and a line break, which is how the packaged model is
    asked to go on; padded on the left."""
    rows = []
    for line in lines:
        [start, *rest] = model.tokenizer(line + "\n").input_ids
        if IMAGE in rest:
            raise SystemExit(f"{line!r} holds the token that stands for a picture; take another")
        rows.append([start, *[IMAGE] * (PARTS if seen else 0), *rest])
    ids, mask = pad(rows, model.padding, model.device)
    return ids, mask.long()


@torch.inference_mode()
def captions(
    model: Model,
    shape: str,
    lines: Sequence[str],
    edit: Edit | None = None,
    *,
    seed: int | None = None,
) -> list[str]:
    """What the model's own `generate` says of each sentence, up to a line break.

    Args:
        model: of `seeing`.
        shape: of the model.
        lines: the sentences.
        edit: is on meanwhile.
        seed: of the picture of noise; None for no picture.
    """
    ids, mask = prompts(model, lines, seen=seed is not None)
    shown = {} if seed is None else picture(shape, ids, seed=seed)
    given = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": model.padding}

    def say() -> Tensor:
        found: Tensor = model.hf.generate(ids, attention_mask=mask, **shown, **given)
        return found[:, ids.shape[1] :]

    if edit is None:
        tokens = say()
    else:
        with edit.on(model):
            tokens = say()
    texts = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip("\n").split("\n")[0] for text in texts]

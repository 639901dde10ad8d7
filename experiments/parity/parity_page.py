"""The words of docs/parity.md around its tables."""

from collections.abc import Sequence
from typing import Any

TEXT = """# The same vector, everywhere

One direction is added at one layer, by every view of steerlab and, through the files that `direction.export` writes, by other
tools in environments of their own. All read the same token ids, a text with the {new} tokens that the reference says
behind it; the reference is steerlab's own module hook, in float32 on a CPU. Other tools steer every position, the first one
too, so that here `positions="everywhere"` is what is compared ([more](#what-a-file-can-say)).

{settings}

{table}

*Largest difference*: of any logit after any token, from the reference; *unsteered* is the control, what the two
implementations differ by without a vector. *Equal likeliest tokens*: of all positions that were read. *Equal tokens said*: of
{new} tokens that each goes on with by itself, place by place, so that one token that differs costs all that follow it. The
first row of each model is the size of the edit itself: what a tool that did nothing would show.

The float32 file is written from the very weights that steerlab runs, and llama.cpp keeps its cache in float32 there. Of the
packed file (Q4_K_M) steerlab runs the unpacked weights, and llama.cpp the packed ones, multiplied by activations of 8 bits:
its difference without a vector says how much that is. Gemma's GELU is a table in float16 in llama.cpp, which is where its
hundredths come from. `bake` adds a bias to the MLP's last map; of Gemma, which has a norm behind that, the folder has a block
more instead (`more_blocks=True`).
llama.cpp is compiled for the processor at hand, and rounds otherwise on another: the last digits move, and where two tokens
are nearly as likely the packed file may go on with the other, so that its share of equal tokens said hangs on a single one.

The environments hold: {pins}; and, but for llama.cpp, the torch of steerlab.

To make this page: `python experiments/parity/parity.py`, which needs the extra `models`. It makes an environment for each tool
in `build/bench` and compiles llama.cpp there (the control vector is set by `llama_set_adapter_cvec`); a Python that has the
tool already is named by `--python llama.cpp=PATH`. One tool by itself, on the files that a run left, by the Python of the tool:

```text
build/bench/env-llama.cpp/bin/python experiments/parity/others.py llama.cpp build/parity/polyglot
```

## In another tool

In an environment of the tool, with no steerlab in it; `model` is one of transformers:

```text
# steering-vectors, of direction.export("vector.pt", format="steering-vectors")
import torch
from steering_vectors import SteeringVector

vector = SteeringVector(**torch.load("vector.pt", weights_only=True))
with vector.apply(model):
    model.generate(**tokens)

# repeng, of direction.export("vector.gguf")
from repeng import ControlModel, ControlVector

vector = ControlVector.import_gguf("vector.gguf")
controlled = ControlModel(model, sorted(vector.directions))
controlled.set_control(vector, 1.0)
controlled.generate(**tokens)
```

llama.cpp's own programs take the same file as `--control-vector vector.gguf`; from Python it is set as
`experiments/parity/others.py` does it.

## What a file can say

{formats}

*Norm*: a file holds the step as it is added, `strength` natural gaps of the direction, so that no reader needs a norm. repeng
rescales only if asked to (`normalize=True`), and then is no longer the same edit. *First token*: BOS carries a norm of its
own, and steerlab leaves it alone unless `positions="everywhere"` says otherwise; llama.cpp, repeng and lm-eval cannot leave
it alone, steering-vectors can by `min_token_index=1`. *Layers*: a file names blocks, and its vector is added to what the block
puts out; llama.cpp has none for block 0. What no file says: rotation, ablation, gates, windows of positions. What reads them
adds, and adds everywhere.
"""


def text(
    parity: str,
    settings: Sequence[str],
    pins: Sequence[str],
    formats: Sequence[dict[str, Any]],
    new: int,
) -> str:
    """The page."""
    head = list(formats[0])
    lines = [head, ["---"] * len(head), *[[str(row[key]) for key in head] for row in formats]]
    return TEXT.format(
        new=new,
        settings="Of " + "; of ".join(settings) + ".",
        table=parity,
        pins="; ".join(pins),
        formats="\n".join(f"| {' | '.join(line)} |" for line in lines),
    )

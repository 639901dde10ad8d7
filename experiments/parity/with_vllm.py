"""Steer vLLM by a file of `direction.export`, with the plug-in vllm-lens: `python with_vllm.py MODEL
vector.npz PROMPT ...`. It needs a GPU, vllm and vllm-lens 1.2, and nothing of steerlab.

It was not run where it was written. A driver has to prove that it steered: each prompt is said with
the vector and without, and where that never makes a difference the script raises.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np


def steering(file: Path, strength: float = 1.0) -> dict[str, Any]:
    """The arguments of vllm-lens' `SteeringVector`, but for tensors arrays: `activations`
    [layer width] is added to the output of each of `layer_indices` at every position."""
    with np.load(file, allow_pickle=False) as held:
        vectors, layers = held["vectors"], held["layers"]
    return {
        "activations": (strength * vectors).astype(np.float32),
        "layer_indices": [int(layer) for layer in layers],
        "scale": 1.0,
        # The file holds the step as it is added; a norm would be that of a part of the stream.
        "norm_match": False,
        "position_indices": None,  # all: the prompt, the first token too, and what is said
    }


def need_changed(plain: list[str], steered: list[str]) -> None:
    """Raise where no answer differs: vLLM passes over arguments that no plug-in takes."""
    if plain == steered:
        raise SystemExit(
            "every answer is the same with the vector and without: it was not applied; see whether "
            "vllm-lens is installed in the environment of every worker"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("vector", type=Path)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--strength", type=float, default=1.0, help="times the file's step")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    given = steering(options.vector, options.strength)

    import torch
    from vllm import LLM, SamplingParams
    from vllm_lens import SteeringVector

    vector = SteeringVector(**given | {"activations": torch.from_numpy(given["activations"])})
    model = LLM(options.model)
    said: dict[bool, list[str]] = {}
    for steered in (False, True):
        extra = {"apply_steering_vectors": [vector]} if steered else {}
        sampling = SamplingParams(
            temperature=0, max_tokens=options.tokens, extra_args=extra or None
        )
        said[steered] = [each.outputs[0].text for each in model.generate(options.prompts, sampling)]
    need_changed(said[False], said[True])
    for prompt, plain, steered_text in zip(options.prompts, said[False], said[True], strict=True):
        print(f"{prompt!r}\n  as it is: {plain!r}\n  steered:  {steered_text!r}")


if __name__ == "__main__":
    main()

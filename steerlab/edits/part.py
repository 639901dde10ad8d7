"""A part of an edit: one function of the activations, at one layer of one site."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steerlab.core.equality import by_content
from steerlab.edits.digest import function_digest, tensor_digest
from steerlab.edits.gates import Gate
from steerlab.edits.own_function import OwnFunction
from steerlab.edits.windows import Kinds, kinds_of

Tensors = Mapping[str, Tensor]

# What an edit adds: change(h, tensors, positions) -> what is added to h [row pos width].
#
# It gives the addition and not the new h, for three reasons: the dose Σ ‖Δh‖/‖h‖ is read off it
# without the loss of digits that `new - h` brings; a shift is one vector for all positions, never
# spread out over them; and an addition of 0 leaves h as it is, to the last bit.
#
# h is in float32 whatever the model computes in. Each tensor has a leading axis of 1, or of h's
# rows. The result may have one row or one position for all. `positions` has `text` and `generated`
# [row pos], `rows` [row] and `step` (see `models.positions.Positions`); a plain hook, which sees no
# tokens, gives None.
ChangeFn = Callable[[Tensor, Tensors, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Part:
    """One function at one layer, for one row pattern: every row alike (`rows` None), or tensor
    row i for `rows[i]`.

    `operator` is what messages call the function; nothing is looked up by it. A part whose
    `identity` is true changes nothing and only counts the dose that it would have had.
    `positions` is what `window` calls them.
    """

    change: ChangeFn
    operator: str
    site: str
    layer: int
    positions: str
    tensors: Tensors
    identity: bool
    rows: Tensor | None = None
    gate: Gate | None = None  # its tensors are among those of the part

    __eq__ = by_content

    @property
    def kinds(self) -> Kinds:
        """Which positions it is of."""
        return kinds_of(self.positions)

    @property
    def digest(self) -> str:
        """SHA-256 of what the part does: its function's source or name, where it acts, its
        tensors."""
        change = self.change
        hashed = [
            change.digest if isinstance(change, OwnFunction) else function_digest(change),
            self.site,
            self.layer,
            self.positions,
            self.identity,
            None if self.rows is None else self.rows.tolist(),
            {name: tensor_digest(tensor) for name, tensor in sorted(self.tensors.items())},
        ]
        if self.gate is not None:
            hashed.append(self.gate.digest)
        return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()

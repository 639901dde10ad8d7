"""A sparse autoencoder at one hook point: latents that are on or off, and a decoder row for
each."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from steerlab.core.display import Shown, View, bars, counted
from steerlab.core.equality import same
from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, need_folder, replacing
from steerlab.core.fingerprints import same_weights, unlike
from steerlab.core.sites import hook_name
from steerlab.core.targets import checksum
from steerlab.sae.formats import CONFIG, WEIGHTS, as_config
from steerlab.sae.reading import read

PACKAGED = Path(__file__).parents[1] / "data" / "polyglot" / "saes"
KINDS = ("relu", "jumprelu", "topk")
_SHOWN = ("model", "release", "id")  # of `about`, in a view


@dataclass(frozen=True, eq=False, repr=False)
class SAE(Shown):
    """A sparse autoencoder: z = activation((h - b_dec) @ W_enc + b_enc), and h ≈ z @ W_dec + b_dec.

    Weights of any precision become float32, and everything is computed in it. Raises
    `SteerlabError` for parts that do not fit together, NaN or infinity.

    Args:
        W_enc: encoder weights.
        b_enc: encoder bias.
        W_dec: decoder weights, one row for each latent.
        b_dec: decoder bias.
        kind: the activation: "relu"; "jumprelu", which keeps a value where it is above its
            threshold (Rajamanoharan et al. 2024); "topk", the `k` largest values, if positive (Gao
            et al. 2024).
        layer: the layer that it reads.
        site: the site that it reads at that layer.
        threshold: of each latent, for "jumprelu" only.
        k: how many latents are on, for "topk" only.
        apply_b_dec_to_input: whether b_dec is subtracted from the input first.
        about: what is known of its origin: `model` and `fingerprint` of the model that it was
            trained on, `release` and `id`, `sha256` of the file, `metadata` of sae-lens.
    """

    W_enc: Float[Tensor, "width latent"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent width"]
    b_dec: Float[Tensor, " width"]
    kind: str
    layer: int
    site: str
    threshold: Float[Tensor, " latent"] | None = None
    k: int | None = None
    apply_b_dec_to_input: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hook_name(self.site, self.layer)  # raises for an unknown site
        if self.kind not in KINDS:
            raise SteerlabError(
                f"there is no kind {self.kind!r} of autoencoder here; there are {', '.join(KINDS)}"
            )
        if (self.threshold is not None) != (self.kind == "jumprelu"):
            raise SteerlabError(
                "a threshold belongs to a jumprelu autoencoder, and to no other; this is "
                f"{self.kind}"
            )
        if (self.k is not None) != (self.kind == "topk"):
            raise SteerlabError(
                f"k belongs to a topk autoencoder, and to no other; this is {self.kind}"
            )
        width, latents = self.W_enc.shape
        # What the shape of W_enc asks of the others.
        shapes = {
            "W_enc": (width, latents),
            "b_enc": (latents,),
            "W_dec": (latents, width),
            "b_dec": (width,),
            "threshold": (latents,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:  # the threshold of the other kinds
                continue
            if tuple(value.shape) != shape:
                raise SteerlabError(
                    f"{name} has shape {tuple(value.shape)}; W_enc {width} x {latents} asks for "
                    f"{shape}; the file is damaged or of another format"
                )
            if not torch.isfinite(value).all():
                raise SteerlabError(
                    f"{name} of this autoencoder holds NaN or infinity; fetch or train it again"
                )
            # A frozen dataclass can only be changed this way, here, before anyone has seen it.
            object.__setattr__(self, name, value.detach().float().contiguous())
        # Here, and not above, since the shape of W_enc says how many latents there are.
        if self.k is not None and not 0 < self.k <= latents:
            raise SteerlabError(
                f"k = {self.k} of {latents} latents was given; k is between 1 and their number"
            )

    def _view(self) -> View:
        kind = self.kind if self.k is None else f"{self.kind}, k = {self.k}"
        return View(
            f"SAE ({kind})",
            f"{counted(self.latents, 'latent')} of width {self.width}, at layer {self.layer} of "
            f"{self.site}",
            {name: str(self.about[name]) for name in _SHOWN if self.about.get(name)},
            picture=lambda: bars(self._alignments()),
            caption="latents by the cosine of what each reads and what it writes",
        )

    def _alignments(self) -> dict[str, float]:
        cosine = torch.nn.functional.cosine_similarity(self.W_enc.T, self.W_dec, dim=-1).cpu()
        counts = torch.histc(cosine, 20, -1, 1).tolist()
        return {f"{(2 * n + 1) / 20 - 1:.2f}": count for n, count in enumerate(counts)}

    @property
    def width(self) -> int:
        """The width of the activations that it reads."""
        return self.W_enc.shape[0]

    @property
    def latents(self) -> int:
        """How many latents it has."""
        return self.W_enc.shape[1]

    @property
    def hook(self) -> str:
        """The TransformerLens name of the hook point that it reads."""
        return hook_name(self.site, self.layer)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what it computes, and where."""
        fields = [
            self.kind,
            self.k,
            self.apply_b_dec_to_input,
            self.site,
            self.layer,
            self.W_enc.shape,
        ]
        digest = hashlib.sha256(json.dumps(fields).encode())
        for value in self._tensors().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SAE) and self.digest == other.digest and same(self.about, other.about)
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def encode(self, h: Float[Tensor, "*any width"]) -> Float[Tensor, "*any latent"]:
        """The latents of activations of any dtype, in float32: zero where a latent is off."""
        self._need_width(h.shape[-1], self.width, "activations")
        h = h.float()
        if self.apply_b_dec_to_input:
            h = h - self.b_dec
        pre = h @ self.W_enc + self.b_enc
        if self.threshold is not None:
            # `relu` too, as sae-lens has it: a threshold below zero lets no negative value pass.
            return pre.relu() * (pre > self.threshold)
        if self.k is None:
            return pre.relu()
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        # Of the k largest, those that are negative are off as well.
        return torch.zeros_like(pre).scatter_(-1, indices, values.relu())

    def decode(self, z: Float[Tensor, "*any latent"]) -> Float[Tensor, "*any width"]:
        """The activations that latents stand for, in float32: z @ W_dec + b_dec."""
        self._need_width(z.shape[-1], self.latents, "latents")
        return z.float() @ self.W_dec + self.b_dec

    def readers(
        self, units: Sequence[int]
    ) -> tuple[Float[Tensor, "rank width"], Float[Tensor, " rank"], Float[Tensor, " rank"]]:
        """The weights that compute a few latents alone: (encoder, bias, threshold).

        With pre = encoder @ h + bias, the latents are relu(pre) · (pre > threshold): b_dec is
        folded into the bias. Raises `SteerlabError` for a latent that is not there, and for a topk
        autoencoder, whose latents depend on one another.
        """
        if self.kind == "topk":
            raise SteerlabError(
                "which latents of a topk autoencoder are on depends on all others, so a few cannot "
                "be read alone; take a jumprelu one (sae-lens saves a BatchTopK autoencoder as "
                "that)"
            )
        wrong = [unit for unit in units if not 0 <= unit < self.latents]
        if wrong:
            raise SteerlabError(
                f"there is no latent {wrong[0]}; this autoencoder has latents 0 to "
                f"{self.latents - 1}"
            )
        # Only these columns are computed, so a few latents cost next to nothing.
        chosen = torch.tensor(list(units), dtype=torch.long, device=self.W_enc.device)
        encoder = self.W_enc[:, chosen].mT.contiguous()
        bias = self.b_enc[chosen]
        if self.apply_b_dec_to_input:
            # (h - b_dec) @ W_enc + b_enc = h @ W_enc + (b_enc - b_dec @ W_enc)
            bias = bias - encoder @ self.b_dec
        # A relu is a jumprelu whose thresholds are zero.
        threshold = torch.zeros_like(bias)
        if self.threshold is not None:
            threshold = self.threshold[chosen]
        return encoder, bias, threshold

    def to(self, device: str | torch.device) -> "SAE":
        """The same autoencoder on another device."""
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        return replace(self, **moved)

    def need(self, model: Any) -> None:
        """Raise `SteerlabError` unless it was made for this model: its layers, its width and, where
        known, its very weights."""
        if not 0 <= self.layer < model.n_layers:
            raise SteerlabError(
                f"this autoencoder is of {self.hook}, and {model.name} has layers 0 to "
                f"{model.n_layers - 1}; {self._remedy()}"
            )
        width = model.width_of(self.site)
        if width != self.width:
            raise SteerlabError(
                f"this autoencoder reads {self.width} numbers, and {self.site} of {model.name} has "
                f"{width}; {self._remedy()}"
            )
        # Most published autoencoders name no fingerprint: then the width has to do.
        trained_on = self.about.get("fingerprint")
        if trained_on is not None and not same_weights(trained_on, model.fingerprint):
            raise SteerlabError(
                f"this autoencoder was trained on another model: {self.about.get('model', 'one')} "
                f"with fingerprint {trained_on}, and {model.name} has {model.fingerprint}; "
                f"{self._remedy()}{unlike(trained_on, model.fingerprint)}"
            )

    def save(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float32, force: bool = False
    ) -> Path:
        """Write sae-lens' own two files (`sae_lens.SAE.load_from_disk` reads them), the weights in
        `dtype`.

        The header of the weights holds the digest of both files together, so that a folder of which
        only one was replaced is refused when it is read, and the checksum of the configuration.
        Files that steerlab did not write are replaced with `force` only.
        """
        folder = need_folder(folder)
        stored = {name: value.cpu().to(dtype) for name, value in self._tensors().items()}
        kept = replace(self, **stored)  # raises where a number does not fit into the dtype
        files = [folder / WEIGHTS, folder / CONFIG]
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Both are written before either is replaced: two files of one autoencoder.
            with replacing(*files, force=force) as (weights, config):
                text = json.dumps(as_config(kept, dtype), indent=1)
                config.write_text(text, "utf-8")
                vouched = {"steerlab": kept.digest, "config": checksum(text.encode())}
                save_file(stored, weights, metadata=vouched)
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, *, layer: int | None = None, hook: str | None = None
    ) -> "SAE":
        """Read a folder that sae-lens, Gemma Scope (1 or 2) or Llama Scope wrote, without a
        network.

        Input scaling and decoder norms are folded into the weights. Raises `SteerlabError` for
        what cannot be folded, and for files that are missing, damaged or of another format.

        Args:
            folder: holds the files.
            layer: short for the residual stream after that block, in place of `hook`.
            hook: where it reads, as `blocks.5.hook_resid_post` or `model.layers.5`. Needed where
                the files do not say it (Gemma Scope's `params.npz`); where they do, it must agree.
        """
        parts, saved_digest = read(Path(folder), layer=layer, hook=hook)
        autoencoder = cls(**parts)
        # Weights and configuration are two files: one could be replaced without the other.
        if saved_digest is not None and autoencoder.digest != saved_digest:
            raise SteerlabError(
                f"the two files in {folder} do not belong together, or one was altered after it "
                "was written; write the autoencoder again"
            )
        return autoencoder

    @classmethod
    def from_pretrained(cls, release: str, sae_id: str) -> "SAE":
        """An autoencoder of a release that sae-lens knows, fetched from the Hub or its cache.

        Args:
            release: such as `gemma-scope-2b-pt-res-canonical`.
            sae_id: which of the release, such as `layer_3/width_16k/canonical`.
        """
        # Here, since importing sae-lens takes seconds.
        from steerlab.sae.pretrained import fetch

        return cls(**fetch(release, sae_id))

    @classmethod
    def of(cls, sae: Any) -> "SAE":
        """An autoencoder object of sae-lens, its weights copied."""
        from steerlab.sae.pretrained import parts_of

        return cls(**parts_of(sae))

    def _tensors(self) -> dict[str, Any]:
        """The weights that there are, by field, in the order in which the digest reads them."""
        tensors = {}
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
            value = getattr(self, name)
            if value is not None:
                tensors[name] = value
        return tensors

    def _need_width(self, given: int, wanted: int, what: str) -> None:
        if given != wanted:
            raise SteerlabError(
                f"the {what} have {given} numbers each; this autoencoder of {self.hook} takes "
                f"{wanted}"
            )

    def _remedy(self) -> str:
        """What to do about an autoencoder of another model."""
        return (
            "take the autoencoders of this model, or, if they are polyglot's own and it was "
            "retrained, `make rebuild`"
        )


def saes(place: str | Path | None = None, layers: Sequence[int] | None = None) -> dict[int, SAE]:
    """The autoencoders in a folder's subfolders `layer_<number>`, by layer.

    Raises `SteerlabError` for a folder without such subfolders, and for a layer that has none.

    Args:
        place: the folder above them; None for those of the packaged model, polyglot.
        layers: the layers to read; None for all that are there.
    """
    top = PACKAGED if place is None else Path(place)
    folders = {}
    for folder in top.glob("layer_*"):
        number = folder.name.removeprefix("layer_")
        if number.isascii() and number.isdecimal():
            folders[int(number)] = folder
    if not folders:
        raise SteerlabError(
            f"{top} holds no layer_<number>; give the folder above them, or SAE.load a single one"
        )
    wanted = sorted(folders) if layers is None else list(layers)
    missing = [layer for layer in wanted if layer not in folders]
    if missing:
        there = ", ".join(map(str, sorted(folders)))
        raise SteerlabError(
            f"{top} has no autoencoder of layer {missing[0]}; there are those of layers {there}"
        )
    if not wanted:
        raise SteerlabError("no layer was named; name at least one, or leave layers out for all")
    return {layer: SAE.load(folders[layer], layer=layer) for layer in wanted}

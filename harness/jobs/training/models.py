"""Small real networks: a causal transformer over bytes, and one that also sees an image.

Every parameter has one global name, whichever pipeline stage holds it, and its first value depends
only on that name and the seed. So a model starts from the same weights in every layout. Freeze
settings name the direct children `transformer`, `vision_encoder` and `adapter`. There are no
biases: each parameter costs time in every step, and a bias proves nothing more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.jobs.training.variants import VARIANTS
from harness.jobs.training.variants.variant import Origin
from harness.scenario.schema import Data, Model

VOCABULARY = 256
IMAGE_SIDE = 16
_PATCH_SIDE = 8
_PATCHES = (IMAGE_SIDE // _PATCH_SIDE) ** 2
_INITIAL_SPREAD = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """Which part of the model is held: some blocks, and possibly one or both ends."""

    blocks: tuple[int, ...]
    first: bool
    last: bool

    def __add__(self, other: ModelPart) -> ModelPart:
        """Returns the part of a rank that holds this part and a later one."""
        return ModelPart(
            blocks=self.blocks + other.blocks,
            first=self.first or other.first,
            last=self.last or other.last,
        )


def split(layers: int, stages: int, stage: int) -> ModelPart:
    """Returns the part of `stage`; earlier stages take one more block if it does not divide."""
    size, more = divmod(layers, stages)
    begin = stage * size + min(stage, more)
    end = begin + size + (1 if stage < more else 0)
    return ModelPart(blocks=tuple(range(begin, end)), first=stage == 0, last=stage == stages - 1)


def visible_length(model: Model, data: Data) -> int:
    """Counts the positions that the transformer sees: the image's patches, then the text."""
    return data.seq_len + (_PATCHES if model.preset == "tiny_vlm" else 0)


class Block(nn.Module):
    """Causal attention and a small MLP, both with dropout."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.dropout = model.heads, model.dropout
        self.norm1 = nn.RMSNorm(model.dim)
        self.qkv = nn.Linear(model.dim, 3 * model.dim, bias=False)
        self.out = nn.Linear(model.dim, model.dim, bias=False)
        self.norm2 = nn.RMSNorm(model.dim)
        self.up = nn.Linear(model.dim, 2 * model.dim, bias=False)
        self.down = nn.Linear(2 * model.dim, model.dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Keeps the shape: batch, positions, width."""
        batch, length, dim = hidden.shape
        # Head by head, so that tensor-parallel peers have whole heads; here are this peer's only.
        qkv = self.qkv(self.norm1(hidden)).view(batch, length, -1, 3, dim // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        seen = self.out(seen.transpose(1, 2).flatten(2))
        hidden = hidden + functional.dropout(seen, self.dropout, self.training)
        thought = self.down(functional.gelu(self.up(self.norm2(hidden))))
        return hidden + functional.dropout(thought, self.dropout, self.training)


class LearnedPositions(nn.Module):
    """A learned vector for each position."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, dim))

    def forward(self, hidden: Tensor) -> Tensor:
        """Keeps the shape."""
        return hidden + self.weight


class Transformer(nn.Module):
    """Embeddings, blocks and head, as far as this stage holds them."""

    def __init__(self, model: Model, data: Data, part: ModelPart) -> None:
        super().__init__()
        if part.first:
            self.embed = nn.Embedding(VOCABULARY, model.dim)
            self.position = LearnedPositions(visible_length(model, data), model.dim)
        self.blocks = nn.ModuleDict({str(index): Block(model) for index in part.blocks})
        if part.last:
            self.norm = nn.RMSNorm(model.dim)
            self.head = nn.Linear(model.dim, VOCABULARY, bias=False)
        self.part = part
        self.text_length = data.seq_len

    def begin(self, tokens: Tensor, before: Tensor | None) -> Tensor:
        """Embed the text positions, after those of the image if there is one."""
        text = self.embed(tokens)
        hidden = text if before is None else torch.cat((before, text), dim=1)
        return cast(Tensor, self.position(hidden))

    def forward(self, given: Tensor, before: Tensor | None = None) -> Tensor:
        """Takes tokens on the first stage, hidden states on a later one; the last returns logits.

        The logits are for the text, one row per position; an image's positions predict nothing.
        """
        hidden = self.begin(given, before) if self.part.first else given
        for block in self.blocks.values():
            hidden = block(hidden)
        if not self.part.last:
            return hidden
        text = hidden[:, -self.text_length :]
        return cast(Tensor, self.head(self.norm(text).flatten(0, 1)))


class VisionEncoder(nn.Module):
    """Patches of a grey-level image, each encoded by a small residual MLP."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.dropout = model.dropout
        self.patch = nn.Linear(_PATCH_SIDE * _PATCH_SIDE, model.dim, bias=False)
        self.norm = nn.RMSNorm(model.dim)
        self.mix = nn.Linear(model.dim, model.dim, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps batch, side, side to batch, patches, width."""
        rows = IMAGE_SIDE // _PATCH_SIDE
        cut = images.view(-1, rows, _PATCH_SIDE, rows, _PATCH_SIDE).transpose(2, 3)
        hidden = self.patch(cut.reshape(-1, _PATCHES, _PATCH_SIDE * _PATCH_SIDE))
        mixed = functional.gelu(self.mix(self.norm(hidden)))
        return cast(Tensor, hidden + functional.dropout(mixed, self.dropout, self.training))


class Adapter(nn.Module):
    """Maps the vision encoder's output to the transformer's width."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.up = nn.Linear(model.dim, model.dim, bias=False)
        self.down = nn.Linear(model.dim, model.dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Keeps the shape."""
        return cast(Tensor, self.down(functional.gelu(self.up(hidden))))


class LanguageModel(nn.Module):
    """`tiny_transformer`, or a stage of it."""

    def __init__(self, model: Model, data: Data, part: ModelPart) -> None:
        super().__init__()
        self.transformer = Transformer(model, data, part)

    def forward(self, given: Tensor) -> Tensor:
        """Takes tokens or hidden states, returns hidden states or logits."""
        return cast(Tensor, self.transformer(given))


class VisionLanguageModel(nn.Module):
    """`tiny_vlm`, or its first stage; later stages see no image and are a `LanguageModel`."""

    def __init__(self, model: Model, data: Data, part: ModelPart) -> None:
        super().__init__()
        self.vision_encoder = VisionEncoder(model)
        self.adapter = Adapter(model)
        self.transformer = Transformer(model, data, part)

    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Takes text and the images that belong to it."""
        return cast(Tensor, self.transformer(tokens, self.adapter(self.vision_encoder(images))))


def build_model(
    model: Model, data: Data, part: ModelPart, *, seed: int, device: torch.device, rank: int = 0
) -> nn.Module:
    """Builds a part of the model with its first weights. Draws nothing from the global generators.

    `rank` is this rank's number among those that hold the part; rank-local parameters depend on it.
    """
    built = _outline(model, data, part)
    built.to_empty(device=device)
    for name, param in built.named_parameters():
        _set_first_value(name, param, seed)
    VARIANTS[model.variant].begin(built, Origin(seed=seed, rank=rank))
    return built


def _outline(model: Model, data: Data, part: ModelPart) -> nn.Module:
    sees_images = model.preset == "tiny_vlm" and part.first
    with torch.device("meta"):
        made = (VisionLanguageModel if sees_images else LanguageModel)(model, data, part)
        VARIANTS[model.variant].change(made, model)
    return made


def cut_out(held: nn.Module, model: Model, data: Data, part: ModelPart) -> nn.Module:
    """Returns a part of what a rank holds, as a module of its own with the same modules inside."""
    piece = _outline(model, data, part)
    for name, child in held.named_children():
        if name != "transformer" and hasattr(piece, name):
            setattr(piece, name, child)
    mine, theirs = piece.get_submodule("transformer"), held.get_submodule("transformer")
    for name, _ in list(mine.named_children()):
        if name != "blocks":
            setattr(mine, name, theirs.get_submodule(name))
    blocks = mine.get_submodule("blocks")
    for name in [name for name, _ in blocks.named_children()]:
        blocks.register_module(name, theirs.get_submodule(f"blocks.{name}"))
    return piece


@torch.no_grad()
def _set_first_value(name: str, param: Tensor, seed: int) -> None:
    if param.dim() == 1:
        param.fill_(1.0)
    else:
        digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest()
        # Drawn on the CPU, so that a GPU starts from the same weights.
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        param.copy_(torch.randn(param.shape, generator=generator) * _INITIAL_SPREAD)


def text_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross entropy over the text positions, in any precision of the model."""
    return functional.cross_entropy(logits.float(), targets.reshape(-1))

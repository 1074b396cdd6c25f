"""Define the model variants."""

from dataclasses import dataclass

from sam2lite_core.errors import UnknownVariantError

PATCH = 16
"""Encoder stride in pixels; every input side is a multiple of it (paper section 3.1)."""

MIN_WINDOW, MAX_WINDOW = 2, 8
"""Range of the memory window W in frames (paper section 3.4)."""

DEFAULT_POLICY = "learned"
"""Retention policy of new trackers; see the model card for its comparison with the others."""


@dataclass(frozen=True)
class Variant:
    """One size of the student.

    Attributes:
        name: tiny, small or base.
        stem: channels at strides 2, 4 and 8 of the encoder's convolutions.
        trunk: the one of `model.trunk.SHAPES` that makes the stem; None for a plain stem.
        width: channels of the encoder's tokens (stride 16).
        depth: number of encoder blocks.
        heads: attention heads of an encoder block.
        mlp_ratio: hidden width of a block's MLP over its width.
        memory_budget: default budget B of the memory bank in tokens (paper section 4.1).
        max_objects: objects that the graphs hold at once; an export may choose another number.
        object_queries: those of the decoder's `queries` that objects use; the others are the learned background. It
            does not follow `max_objects`, so that the weights fit any number of objects.
        parameters_m: the paper's parameter total in millions, for comparison (paper table 1).
    """

    name: str
    stem: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    memory_budget: int
    parameters_m: float
    trunk: str | None = None
    max_objects: int = 16
    key_width: int = 256
    decoder_width: int = 256
    decoder_layers: int = 3
    decoder_ffn: int = 512
    decoder_heads: int = 8
    queries: int = 100
    object_queries: int = 16


VARIANTS = {
    "tiny": Variant("tiny", (16, 24, 40), 192, 1, 6, 2.0, 256, 5.2, trunk="lite0"),
    "small": Variant("small", (16, 24, 40), 384, 4, 8, 3.375, 384, 12.8, trunk="lite1"),
    "base": Variant("base", (64, 128, 256), 640, 7, 10, 3.75, 512, 38.4),
}


def get_variant(name: str) -> Variant:
    """Look a variant up by name.

    Raises:
        UnknownVariantError: with the names that exist.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        raise UnknownVariantError(f"unknown variant {name!r}; choose one of {', '.join(VARIANTS)}") from None

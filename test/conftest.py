"""Fixtures that every test may use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2lite_core.scenes.clip import render_clip

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Research data beside the checkout; it is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"research data is not on this machine: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture
def random_clip(rng: np.random.Generator) -> np.ndarray:
    """(6, 48, 64, 3) uint8 noise."""
    return rng.integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def small_clip():
    """A rendered clip of 6 frames of 96x128 with two objects and their true label maps; not to be changed."""
    clip = render_clip(1, height=96, width=128, frames=6)
    clip.frames.flags.writeable = clip.label_maps.flags.writeable = False
    return clip


@dataclass(frozen=True)
class McapMessage:
    """A message as Foxglove's readers see it; `definition` is what the file says of its type."""

    topic: str
    kind: str
    definition: str
    recorded_ns: int
    message: Any

    @property
    def stamp_ns(self) -> int:
        """The header's stamp."""
        stamp = self.message.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec


def _read_mcap(bag: Path) -> list[McapMessage]:
    from mcap.reader import make_reader
    from mcap.stream_reader import StreamReader
    from mcap_ros2.decoder import DecoderFactory

    (file,) = bag.glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        found = [
            McapMessage(channel.topic, schema.name, schema.data.decode(), message.log_time, decoded)
            for schema, channel, message, decoded in reader.iter_decoded_messages()
        ]
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        counts = {c.topic: summary.statistics.channel_message_counts[c.id] for c in summary.channels.values()}
    assert counts == {topic: sum(m.topic == topic for m in found) for topic in counts}
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    assert {channel.message_encoding for channel in summary.channels.values()} == {"cdr"}
    # The index may be whole where the file before it is not: Foxglove also reads from start to end.
    with file.open("rb") as stream:
        kinds = [type(record).__name__ for record in StreamReader(stream, validate_crcs=True).records]
    assert (kinds[0], kinds[-1], kinds.count("Message")) == ("Header", "Footer", len(found))
    return found


@pytest.fixture
def read_mcap() -> Callable[[Path], list[McapMessage]]:
    """Reads an mcap bag with Foxglove's own readers, which know no message type but what the file itself explains."""
    for needed in ("mcap", "mcap_ros2"):
        pytest.importorskip(needed, reason="needs Foxglove's readers: pip install mcap-ros2-support")
    return _read_mcap


def _miniature(name: str, attention: str = "eager", **changes: Any) -> Any:
    """A model of 8 x 8 patches, three memory attention layers and two heads."""
    import torch
    import transformers

    torch.manual_seed(0)
    side, grid, width = 128, 8, 128
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "image_size": [side, side], "hidden_size": 8,
            "embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1],
            "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        "fpn_hidden_size": width,
    }  # fmt: skip
    common = {
        "image_size": side,
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": width, "image_size": side},
        "mask_decoder_config": {
            "hidden_size": width, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2,
        },
        "memory_attention_hidden_size": width,
        "memory_attention_num_layers": 3,
        "memory_attention_num_attention_heads": 2,
        "memory_attention_rope_feat_sizes": [grid, grid],
        "memory_encoder_hidden_size": width,
        "mask_downsampler_embed_dim": width,
        "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 64,
        **changes,
    }  # fmt: skip
    if name == "sam2":
        config = transformers.Sam2VideoConfig(**common, memory_attention_feed_forward_hidden_size=64)
        kind = transformers.Sam2VideoModel
    else:
        config = transformers.EdgeTamVideoConfig(
            **common, memory_attention_mlp_hidden_size=64, memory_attention_rope_k_sizes=[4, 4],
            perceiver_resampler_num_latents=6, perceiver_resampler_num_latents_2d=16,
        )  # fmt: skip
        kind = transformers.EdgeTamVideoModel
    return kind._from_config(config, attn_implementation=attention).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def miniature() -> Callable[..., Any]:
    """Builds SAM 2 ("sam2") or EdgeTAM ("edgetam") video models of small configuration with random weights.

    They take frames of 128x128 and have a width of 128.
    """
    pytest.importorskip("transformers", reason="needs transformers: pip install 'sam2lite[transformers]'")
    return _miniature

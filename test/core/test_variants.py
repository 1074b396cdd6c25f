"""The variants hold the paper's numbers and can be built as they stand."""

import pytest

from sam2lite_core.errors import UnknownVariantError
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.variants import MAX_WINDOW, MIN_WINDOW, VARIANTS, get_variant


@pytest.mark.parametrize(
    ("name", "budget", "parameters"), [("tiny", 256, 5.2), ("small", 384, 12.8), ("base", 512, 38.4)]
)
def test_the_papers_numbers(name, budget, parameters):
    variant = get_variant(name)
    assert (variant.name, variant.memory_budget, variant.parameters_m) == (name, budget, parameters)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_widths_divide_among_the_heads(variant):
    assert variant.width % variant.heads == 0
    assert variant.decoder_width % variant.decoder_heads == 0
    assert variant.max_objects <= variant.queries


def test_ranges_of_the_controller():
    assert RUNGS == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert (MIN_WINDOW, MAX_WINDOW) == (2, 8)


@pytest.mark.parametrize("name", ["huge", "Tiny", ""])
def test_unknown_variants_name_the_choices(name):
    with pytest.raises(UnknownVariantError, match=f"'{name}'; choose one of tiny, small, base"):
        get_variant(name)

"""Define types of values that several configurations share."""

from typing import Annotated

from pydantic import ConfigDict, Field, PositiveInt

from sam2lite_core.variants import PATCH

STRICT = ConfigDict(extra="forbid")
"""Of every configuration class: a key that does not exist is an error."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share or a probability, 0..1."""

Decay = Annotated[float, Field(ge=0.0, le=0.999999)]
"""Of a moving average."""

Side = Annotated[int, Field(ge=2 * PATCH, multiple_of=PATCH)]
"""Side of a frame, px."""

Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
"""One or more positive integers."""

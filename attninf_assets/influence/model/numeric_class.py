"""The numeric classes that a model can be run in."""

from typing import Literal

NumericClass = Literal["float32", "bfloat16", "float8"]
NUMERIC_CLASSES: tuple[NumericClass, ...] = ("float32", "bfloat16", "float8")

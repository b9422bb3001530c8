"""The numeric classes that a model can be run in: float32, bfloat16 and float8."""

from typing import Literal

NumericClass = Literal["float32", "bfloat16", "float8"]
NUMERIC_CLASSES: tuple[NumericClass, ...] = ("float32", "bfloat16", "float8")

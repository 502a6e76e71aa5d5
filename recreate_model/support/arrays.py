"""The type of a NumPy array, in signatures: its shape and type of number are in the docstrings."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

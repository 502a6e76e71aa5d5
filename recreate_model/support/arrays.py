"""The type of a NumPy array in signatures. Docstrings give its shape and dtype."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

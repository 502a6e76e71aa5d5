"""How a long step reports its progress. `console` shows it; what only reports does not depend on how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Shows how far a long step is."""

    def bar(self, description: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """A bar over `total` items, or a spinner if the number is unknown; the function it gives advances it."""

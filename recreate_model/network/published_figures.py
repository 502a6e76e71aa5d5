"""The published figures of the ML-zoo's INT8 model."""

from __future__ import annotations

from recreate_model.recipe import Model

PUBLISHED_MODEL = Model("1.0", 224)
PUBLISHED_SHA1 = "8de7996dfeadb5ab6f09e3114f3905fd03879eee"
PUBLISHED_SIZE = 4_020_936  # bytes

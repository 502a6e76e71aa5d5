"""The provenance statement: written, read, checked."""

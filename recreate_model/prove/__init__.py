"""Whether a published file is what a checkpoint gives."""

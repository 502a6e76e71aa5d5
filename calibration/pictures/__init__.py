"""Picture sources, and the preprocessing that turns pictures into network inputs."""

"""The same work over processes, here or on a cluster."""

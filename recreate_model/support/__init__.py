"""Files, digests, resources, processes and errors: what every other room stands on."""

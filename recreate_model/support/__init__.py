"""Archives, digests, downloads, processes and errors. Every other package depends on this one."""

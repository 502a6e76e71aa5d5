"""The provenance statement: writing it (`write`), reading it (`read`), checking it against the files (`check`)."""

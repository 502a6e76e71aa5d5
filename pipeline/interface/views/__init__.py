"""What the commands print, one module each: a document for `--json`, and blocks of text and tables for people."""

"""`python -m pipeline`."""

from pipeline.cli import main

# Worker processes import this module again and must not run it.
if __name__ == "__main__":
    main()

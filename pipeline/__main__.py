"""`python -m pipeline`."""

import sys

# Worker processes import this module again and must not run it.
if __name__ == "__main__":
    try:
        from pipeline.interface.cli import main
    except ModuleNotFoundError as error:
        print(
            f"error: expected the project's environment; found a Python without {error.name}; done: nothing was run; "
            "next: make env, then . .venv/bin/activate",
            file=sys.stderr,
        )
        sys.exit(4)
    except KeyboardInterrupt:
        sys.exit(130)  # before there was anything to stop
    main()

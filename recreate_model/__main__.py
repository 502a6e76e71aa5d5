"""`python -m recreate_model`: the command line, as `python -m pipeline` in a checkout."""

# Worker processes import this module again and must not run it.
if __name__ == "__main__":
    from recreate_model.api import command_line

    command_line()

"""``python -m agsr``: the command line."""

from agsr.cli import main

if __name__ == "__main__":
    main()

"""`python -m kintsugi`: the command line."""

from .headless.cli import main

if __name__ == "__main__":
    main()

"""``python -m mageflow`` is the command ``mageflow``."""

from mageflow.cli import main

if __name__ == "__main__":
    main()

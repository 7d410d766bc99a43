"""``python -m functrain``."""

from functrain.cli import main

if __name__ == "__main__":
    main()

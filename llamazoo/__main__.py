"""`python -m llamazoo`: the `llamazoo` command."""

from llamazoo.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()

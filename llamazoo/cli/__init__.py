"""The command line: one file per command, and main.py, which knows their names without importing them."""

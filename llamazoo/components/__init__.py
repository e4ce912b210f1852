"""The built-in parts. Nothing imports them: they arrive through the entry point, like anybody's."""

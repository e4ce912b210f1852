"""All that a component may lean on; built-in parts use this and nothing more."""

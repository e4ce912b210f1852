"""llamazoo schema"""

from llamazoo.cli.arguments import PartsFiles
from llamazoo.cli.printed import print_json
from llamazoo.parts import registry_with
from llamazoo.spec.schema import json_schema

__all__ = ["run"]


def run(parts: PartsFiles = None) -> None:
    """Print the JSON Schema of specs, with every part that is installed, for editors to complete and check them with."""
    print_json(json_schema(registry_with(parts)))

"""The JSON Schema of results.json, which docs/results.schema.json publishes."""

from typing import Any

from llamazoo.ablation.results import Results

__all__ = ["results_schema"]


def results_schema() -> dict[str, Any]:
    """What a results.json must look like, in JSON Schema 2020-12."""
    schema = Results.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "results.json of an ablation"}

"""Check JSON against the schemas of an OpenAPI or AsyncAPI document."""

from typing import Any

from jsonschema import Draft202012Validator


def faults(document: dict[str, Any], schema: dict[str, Any], content: Any) -> list[str]:
    """The errors of `content` by a schema of the document."""
    whole = {**schema, "components": document["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]

"""JSON Schemas of our definitions, for the documents of the services and the stream."""

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

import msgspec

_COMPONENTS = "#/components/schemas/"


def schemas_of(kinds: Sequence[Any]) -> tuple[dict[Any, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The schemas by kind, and those they refer to, by name: a document's `components/schemas`.

    Our classes that are no Structs have a method `json_schema`.
    """
    own: dict[str, dict[str, Any]] = {}

    def refer(kind: Any) -> dict[str, Any]:
        own[kind.__name__] = kind.json_schema()
        return {"$ref": _COMPONENTS + kind.__name__}

    schemas, structs = msgspec.json.schema_components(
        kinds, schema_hook=refer, ref_template=_COMPONENTS + "{name}"
    )
    by_kind = dict(zip(kinds, schemas, strict=True))
    named = sorted((structs | own).items())
    return by_kind, {
        name: schema | {"description": cleandoc(schema["description"])}  # docstrings are indented
        for name, schema in named
    }

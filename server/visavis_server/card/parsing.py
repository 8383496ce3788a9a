"""Parses documents, and publishes their schema."""

from typing import Any

from pydantic import ValidationError

from visavis_server.card.document import ModelDocument
from visavis_server.errors import ModelFileError

METADATA_KEY = "visavis"
SCHEMA_VERSION = 1
SCHEMA_ID = "visavis.v1.model.schema.json"

_MAX_ERRORS = 3


def parse_document(
    text: str | bytes, where: str, advice: str = "export it again with this version of visavis"
) -> ModelDocument:
    """Return the document in a model file's metadata.

    where, advice: the file and what to do, for errors. Raises ModelFileError if the document does
    not follow the schema, naming the first places where it does not.
    """
    try:
        return ModelDocument.model_validate_json(text)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}"
            for e in error.errors()[:_MAX_ERRORS]
        )
        raise ModelFileError(
            f"{where}: its document does not follow schema version {SCHEMA_VERSION} ({places}); "
            f"{advice}"
        ) from None


def json_schema() -> dict[str, Any]:
    """Return the published JSON schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **ModelDocument.model_json_schema(mode="serialization"),
    }

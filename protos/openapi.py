"""Prints an OpenAPI document of the contract's paths on the HTTP listener, made of vision.proto.

`make generate` writes it to clients/web/openapi.json, which the listener serves.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2 as pb
from reference import comments_of, contract

_Type = pb.FieldDescriptorProto.Type
_SCALARS: Final[Mapping[Any, Mapping[str, Any]]] = {
    _Type.TYPE_BOOL: {"type": "boolean"},
    _Type.TYPE_INT32: {"type": "integer", "format": "int32"},
    # Protobuf's JSON, as JavaScript has no such numbers.
    _Type.TYPE_INT64: {"type": "string", "format": "int64"},
    _Type.TYPE_FLOAT: {"type": "number", "format": "float"},
    _Type.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _Type.TYPE_STRING: {"type": "string"},
    _Type.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_ERROR: Final = {
    "description": "What was wrong, and what to do about it.",
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "The gRPC status, such as invalid_argument."},
        "message": {"type": "string", "description": "A sentence for people."},
        "details": {
            "type": "array",
            "description": "google.rpc details: the field, the request's id, the retry delay.",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "value": {"type": "string", "contentEncoding": "base64"},
                },
            },
        },
    },
    "required": ["code", "message"],
}
_IMAGE: Final = ".visavis.v1.Image"


class OpenApi:
    """Writes about one file, which must come with its comments; it nests no types but maps."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {name: " ".join(text.split()) for name, text in comments_of(file).items()}
        self._messages = {f".{file.package}.{m.name}": m for m in file.message_type}

    def document(self) -> dict[str, Any]:
        """Return the document."""
        (service,) = self._file.service
        return {
            "openapi": "3.1.0",
            "info": {
                "title": self._file.package,
                "version": self._file.package.rpartition(".")[2],
                "summary": self._comments[service.name],
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            # Relative to this document, so that it is right below a path prefix too.
            "servers": [{"url": "."}],
            "security": [{}, {"token": []}],
            "paths": {
                f"/{self._file.package}.{service.name}/{method.name}": {
                    "post": self._operation(f"{service.name}.{method.name}", method)
                }
                for method in service.method
            },
            "components": {
                "securitySchemes": {
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "If the server has tokens: one from `visavis token NAME`.",
                    }
                },
                "schemas": {
                    **{message.name: self._message(message) for message in self._file.message_type},
                    **{enum.name: self._enum(enum) for enum in self._file.enum_type},
                    "Error": _ERROR,
                },
            },
        }

    def _operation(self, name: str, method: pb.MethodDescriptorProto) -> dict[str, Any]:
        """Return the operation of a method."""
        if method.server_streaming:
            # OpenAPI can't describe Connect's frames.
            framed = {"type": "string", "format": "binary"}
            asked = answered = {"application/connect+json": {"schema": framed}}
        else:
            asked = {"application/json": {"schema": _reference(method.input_type)}}
            answered = {"application/json": {"schema": _reference(method.output_type)}}
            message = self._messages[method.input_type]
            if any(field.type_name == _IMAGE for field in message.field):
                asked["multipart/form-data"] = {"schema": self._message(message, form=True)}
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        return {
            "operationId": method.name,
            "summary": self._comments[name],
            "requestBody": {"required": True, "content": asked},
            "responses": {
                "200": {"description": "The response.", "content": answered},
                "default": {"description": "An error.", "content": error},
            },
        }

    def _message(self, message: pb.DescriptorProto, form: bool = False) -> dict[str, Any]:
        """Return the schema of a message; form: as the fields of a form."""
        maps = {nested.name: nested for nested in message.nested_type}
        properties = {
            field.json_name: {
                **self._field(field, maps, form),
                "description": self._comments[f"{message.name}.{field.name}"],
            }
            for field in message.field
        }
        return {
            "type": "object",
            "description": self._comments[message.name],
            "properties": properties,
            "additionalProperties": False,
        }

    def _field(
        self, field: pb.FieldDescriptorProto, maps: Mapping[str, pb.DescriptorProto], form: bool
    ) -> dict[str, Any]:
        if entry := maps.get(field.type_name.rpartition(".")[2]):
            _, value = entry.field
            return {"type": "object", "additionalProperties": self._field(value, {}, form)}
        if form and field.type_name == _IMAGE:
            one: dict[str, Any] = {"type": "string", "contentMediaType": "image/*"}
        elif field.type_name:
            one = _reference(field.type_name)
        else:
            one = dict(_SCALARS[field.type])
        if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
            return {"type": "array", "items": one}
        return one

    def _enum(self, enum: pb.EnumDescriptorProto) -> dict[str, Any]:
        return {
            "type": "string",
            "description": self._comments[enum.name],
            "enum": [value.name for value in enum.value],
        }


def _reference(type_name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{type_name.rpartition('.')[2]}"}


def main() -> None:
    """Print the document of the contract as it is now."""
    print(json.dumps(OpenApi(contract()).document(), indent=1))


if __name__ == "__main__":
    main()

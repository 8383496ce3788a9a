"""Prints the contract with its REST paths: a FileDescriptorSet with google.api.http annotations.

`make generate` writes it to protos/visavis/v1/vision.http.binpb, from vision.http.yaml.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, json_format
from google.rpc import error_details_pb2
from reference import contract

RULES = Path(__file__).with_name("visavis") / "v1" / "vision.http.yaml"
ANNOTATIONS = annotations_pb2.DESCRIPTOR


def annotated() -> descriptor_pb2.FileDescriptorSet:
    """Return the contract with annotations, behind the files that it imports.

    Those of errors' details are added: a transcoder needs them to write errors in JSON.
    """
    file = contract(comments=False)
    methods = {
        f"{file.package}.{service.name}.{method.name}": method
        for service in file.service
        for method in service.method
    }
    for rule in yaml.safe_load(RULES.read_text("utf-8"))["http"]["rules"]:
        given = {key: value for key, value in rule.items() if key != "selector"}
        options = methods.pop(rule["selector"]).options
        options.Extensions[annotations_pb2.http].CopyFrom(
            json_format.ParseDict(given, http_pb2.HttpRule())
        )
    if methods:
        raise SystemExit(f"{RULES.name} has no rule for {', '.join(methods)}")
    file.dependency.append(ANNOTATIONS.name)
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    _add(ANNOTATIONS, files)
    _add(error_details_pb2.DESCRIPTOR, files)
    return descriptor_pb2.FileDescriptorSet(file=[*files.values(), file])


def _add(file: Any, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    """Add a file behind those that it imports."""
    for imported in file.dependencies:
        _add(imported, files)
    files[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)


if __name__ == "__main__":
    sys.stdout.buffer.write(annotated().SerializeToString(deterministic=True))

"""HTTP from its OpenAPI document, gRPC from its .proto file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from wording import kind, meaning, table

from timbrel.library.bundle import Bundle
from timbrel.serving import openapi

ROOT = Path(__file__).parents[2]


def http() -> str:
    document = openapi.document(Bundle.open(ROOT / "bundle"))
    parts = [
        "# HTTP",
        "A running service says the same at `/docs` and, as OpenAPI 3.1, at `/docs.json`; limits that depend on the "
        "bundle are here those of the bundle in this repository. Every error has the envelope "
        "[ErrorAnswer](#erroranswer); [its codes](errors.md) are stable.",
    ]
    parts.append(table(("status", "meaning"), statuses(document)))
    for path, operations in document["paths"].items():
        parts += [operation(method, path, each) for method, each in operations.items()]
    parts.append("# What is sent and answered")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append("\n\n".join([f"## {name}", *described(schema), fields_of(schema)]))
    return "\n\n".join(parts)


def operation(method: str, path: str, about: Mapping[str, Any]) -> str:
    parts = [f"## {method.upper()} {path}", about["summary"], *described(about)]
    if about.get("parameters"):
        rows = [
            (f"`{each['name']}`", each["in"], kind(each["schema"]), meaning(each["schema"] | each))
            for each in about["parameters"]
        ]
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    for media, content in about.get("requestBody", {}).get("content", {}).items():
        parts.append(f"Body, `{media}`: " + (kind(content["schema"]) if "$ref" in content["schema"] else ""))
        if "$ref" not in content["schema"]:
            parts.append(fields_of(content["schema"]))
    [(_, good), *bad] = about["responses"].items()
    media = ", ".join(answer(*each) for each in good["content"].items())
    said = [
        f"Answer: {media}.",
        good["description"] if good["description"] not in ("The answer.", "Yes.") else "",
    ]
    if bad:
        said.append(f"Errors: {', '.join(status for status, _ in bad)}.")
    parts.append(" ".join(filter(None, said)))
    return "\n\n".join(parts)


def statuses(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The errors of all operations, each once."""
    said = {
        status: about["description"]
        for operations in document["paths"].values()
        for each in operations.values()
        for status, about in each["responses"].items()
        if status != "200"
    }
    yield from sorted(said.items())


def described(about: Mapping[str, Any]) -> list[str]:
    return [about["description"]] if about.get("description") else []


def answer(media: str, content: Mapping[str, Any]) -> str:
    return kind(content["schema"]) if "$ref" in content["schema"] else f"`{media}`"


def fields_of(schema: Mapping[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        (
            f"`{name}`" + (" (required)" if name in needed and "default" not in each else ""),
            kind(each),
            meaning(each),
        )
        for name, each in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "meaning"), rows) if rows else kind(schema)


def grpc() -> str:
    source = proto()
    comments = {tuple(each.path): each for each in source.source_code_info.location}

    def said(*path: int) -> str:
        found = comments.get(path)
        return " ".join(found.leading_comments.split()) if found else ""

    head = next(
        each
        for each in source.source_code_info.location
        if list(each.path) == [FileDescriptorProto.SYNTAX_FIELD_NUMBER]
    )
    preamble = "\n".join(line.removeprefix(" ") for line in head.leading_comments.rstrip().splitlines())
    parts = [
        "# gRPC",
        "[`src/timbrel/v1/timbrel.proto`](../../src/timbrel/v1/timbrel.proto) is the interface; the service has "
        "reflection and health.",
        f"```text\n{preamble}\n```",
    ]
    service, message, enum = (
        FileDescriptorProto.SERVICE_FIELD_NUMBER,
        FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER,
        FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER,
    )
    for i, each in enumerate(source.service):
        rows = [
            (
                f"`{method.name}`",
                streamed(method.input_type, stream=method.client_streaming),
                streamed(method.output_type, stream=method.server_streaming),
                said(service, i, 2, j),
            )
            for j, method in enumerate(each.method)
        ]
        parts += [f"## {source.package}.{each.name}", table(("call", "takes", "gives", "meaning"), rows)]
    for i, each in enumerate(source.message_type):
        rows = [
            (f"`{field.name}`", field_kind(field), str(field.number), said(message, i, 2, j))
            for j, field in enumerate(each.field)
        ]
        about = [said(message, i)] if said(message, i) else []
        parts += [
            f"## {each.name}",
            *about,
            table(("field", "type", "number", "meaning"), rows) if rows else "No fields.",
        ]
    for i, each in enumerate(source.enum_type):
        rows = [
            (f"`{value.name}`", str(value.number), said(enum, i, 2, j)) for j, value in enumerate(each.value)
        ]
        parts += [f"## {each.name}", table(("value", "number", "meaning"), rows)]
    return "\n\n".join(parts)


def proto() -> FileDescriptorProto:
    """The interface as protoc reads it, comments and all."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors"
        source = ROOT / "src"
        arguments = ["--include_source_info", f"--descriptor_set_out={target}", "timbrel/v1/timbrel.proto"]
        if protoc.main(["protoc", f"-I{source}", *arguments]):
            raise SystemExit("protoc cannot read src/timbrel/v1/timbrel.proto")
        return FileDescriptorSet.FromString(target.read_bytes()).file[0]


def streamed(name: str, *, stream: bool) -> str:
    return ("stream of " if stream else "") + linked(name)


def linked(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})"


def field_kind(field: FieldDescriptorProto) -> str:
    if field.type_name:
        name = linked(field.type_name)
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name

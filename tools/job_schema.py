# SPDX-License-Identifier: Apache-2.0
"""A JSON Schema of job.yaml, for editors that complete and check as one types.

It says what can be said key by key: names, types, words, ranges, what is
required, what excludes what. Rules over several keys stay with `ftctl check`.
"""
import itertools
import json
import re

from job_keys import Rule, enum_words

# Whatever stands there, the reader takes as text.
TEXT = {"type": ["string", "number", "boolean"]}
SCALARS = {
    "string": TEXT,
    "int32": {"type": "integer"},
    "int64": {"type": "integer"},
    "double": {"type": "number"},
    "bool": {"type": "boolean"},
}
# Messages of types.proto and of Google, as the reader takes them.
KNOWN = {
    "google.protobuf.Duration": {"type": "string", "pattern": "^[0-9]+[smhd]$"},
    "IntRange": {
        "anyOf": [
            {"type": "integer"},
            {
                "type": "object",
                "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
                "additionalProperties": False,
            },
        ]
    },
}


class Schema:
    def __init__(self, keys):
        self.keys = keys

    def message(self, message, path):
        fields = self.keys.fields(message)
        properties, required = {}, []
        for field in fields:
            key = f"{path}.{field.name}" if path else field.name
            properties[field.name] = self.field(field, message, key)
            if self.is_required(field, key):
                required.append(field.name)
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        if excluded := self.excluded(fields):
            schema["allOf"] = excluded
        if words := self.bare_words(fields):
            return {"anyOf": [{"enum": words}, schema]}
        return schema

    @staticmethod
    def excluded(fields):
        """Of the members of a oneof no two may stand together."""
        pairs = [
            [a.name, b.name]
            for a, b in itertools.combinations(fields, 2)
            if a.oneof and a.oneof == b.oneof
        ]
        return [{"not": {"required": pair}} for pair in pairs]

    def bare_words(self, fields):
        """The members that may be named without options, where there is one oneof."""
        if len({f.oneof for f in fields if f.oneof}) != 1:
            return []
        return [f.name for f in fields if f.oneof and f.type in self.keys.messages]

    def is_required(self, field, key):
        if field.oneof or re.search(r"only with `", field.comment):
            return False
        said = re.search(r"\bRequired\.", field.comment)
        return bool(said) or self.keys.rules.get(key, Rule()).required

    def field(self, field, owner, key):
        value = self.value(field, owner, key + ("[]" if field.repeated else ""))
        if field.repeated:
            value = {"anyOf": [{"type": "array", "items": value}, value]}
        if not self.is_required(field, key):
            value = {"anyOf": [*value.get("anyOf", [value]), {"type": "null"}]}
        said = field.comment or self.keys.comments.get(field.type, "")
        return {"description": said, **value} if said else value

    def value(self, field, owner, key):
        type_ = field.type
        if type_ in KNOWN:
            return KNOWN[type_]
        if type_ in self.keys.enums:
            return {"enum": enum_words(type_, self.keys.enums[type_])}
        if type_.startswith("map<"):
            return {"type": "object", "additionalProperties": TEXT}
        if type_ in self.keys.messages:
            return self.message(type_, key)
        schema = dict(SCALARS[type_])
        if limits := self.keys.rules.get(key, Rule()).low_high:
            schema["minimum"], schema["maximum"] = limits
        if f"{owner}.{field.name}" in self.keys.zero_is_unset:
            schema["exclusiveMinimum"] = 0
        if field.name in self.keys.may_be_auto:
            return {"anyOf": [schema, {"enum": ["auto"]}]}
        return schema


def schema_text(keys):
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ft job",
        "$comment": "Written by tools/gen_docs; ftctl check FILE names every mistake.",
        **Schema(keys).message("JobSpec", ""),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"

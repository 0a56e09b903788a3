# SPDX-License-Identifier: Apache-2.0
"""What the sources say of the keys of job.yaml, for the generators of docs/.

Names, types and meanings are those of proto/ft/v1/job_spec.proto, defaults
those of jobspec/defaults.cc, ranges and what is refused for now those of
jobspec/validate.cc, fields that users never write and zeros that mean "not
given" those of jobspec/from_yaml.cc.
"""
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclasses.dataclass
class Field:
    name: str
    type: str
    comment: str
    repeated: bool = False
    oneof: str = ""
    oneof_comment: str = ""


@dataclasses.dataclass
class Rule:
    """What jobspec/validate.cc says of one key."""

    low_high: tuple = ()
    refused: list = dataclasses.field(default_factory=list)
    required: bool = False
    said: list = dataclasses.field(default_factory=list)


# --- proto -----------------------------------------------------------------


def read_proto(text):
    """Messages and enums by name; a comment belongs to what follows it."""
    messages, enums, comments = {}, {}, {}
    comment, stack = [], []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("//"):
            comment.append(line[2:].strip())
            continue
        said, comment = " ".join(comment), []
        if begin := re.match(r"(message|enum|oneof) (\w+) \{(\})?", line):
            kind, name, is_empty = begin.groups()
            if kind == "oneof":
                stack.append((kind, name, said))
                continue
            (messages if kind == "message" else enums)[name] = []
            comments[name] = said
            if not is_empty:
                stack.append((kind, name, said))
        elif line == "}":
            stack.pop()
        elif stack and stack[-1][0] == "enum":
            if value := re.match(r"(\w+) = (\d+);", line):
                enums[stack[-1][1]].append(value.group(1))
        elif found := re.match(
            r"(optional |repeated )?(map<string, string>|[\w.]+) (\w+) = \d+;", line
        ):
            label, type_, name = found.groups()
            oneof = stack[-1] if stack[-1][0] == "oneof" else ("", "", "")
            owner = stack[-2] if oneof[0] else stack[-1]
            messages[owner[1]].append(
                Field(name, type_, said, label == "repeated ", oneof[1], oneof[2])
            )
        elif stack and line and not line.startswith("reserved"):
            sys.exit(f"job_spec.proto: cannot read: {line}")
    return messages, enums, comments


def enum_words(name, values):
    """"ON_NAN_STOP" of OnNan -> "stop", as jobspec/from_yaml.cc does it."""
    prefix = re.sub(r"(?<=.)([A-Z])", r"_\1", name).upper() + "_"
    return [value[len(prefix) :].lower() for value in values[1:]]


# --- C++ -------------------------------------------------------------------


def calls(text, name):
    """The arguments of every call of `name`, as source text."""
    for found in re.finditer(rf"\b{name}(?:<\w+>)?\(", text):
        depth, in_text, argument, arguments = 1, False, "", []
        at = found.end()
        while depth:
            char = text[at]
            if char == '"' and text[at - 1] != "\\":
                in_text = not in_text
            if not in_text:
                depth += char in "([{"
                depth -= char in ")]}"
                if depth == 1 and char == ",":
                    arguments.append(argument.strip())
                    argument, at = "", at + 1
                    continue
            if depth:
                argument += char
            at += 1
        yield [*arguments, argument.strip()]


def literal(argument):
    """Neighbouring string literals as one text, or None."""
    if not re.fullmatch(r'("(?:[^"\\]|\\.)*"\s*)+', argument):
        return None
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', argument))


def number(argument):
    """'1 << 20', "1'000'000", 'int64_t{1} << 40' -> int."""
    argument = re.sub(r"int64_t\{(\d+)\}", r"\1", argument.replace("'", ""))
    if not re.fullmatch(r"[\d <]+", argument):
        sys.exit(f"validate.cc: no number: {argument}")
    base, _, shift = argument.partition("<<")
    return int(base) << int(shift or 0)


def key_of(argument):
    """"batch.micro", or path + ".format" of a dataset; None: no constant."""
    if (key := literal(argument)) is not None:
        return key
    if found := re.fullmatch(r'path \+ "(\.\w+)"', argument):
        return "data.train[]" + found.group(1)
    return None


def read_rules(text):
    rules = {}

    def rule(argument):
        key = key_of(argument)
        return None if key is None else rules.setdefault(key, Rule())

    body = text[text.index("void Validator::Job()") :]
    for value, low, high, field in calls(body, "InRange"):
        rule(field).low_high = (number(low), number(high))
    for condition, field, _ in calls(body, "Require"):
        # What is required only where another key is missing is no rule of the
        # key alone: "ranks" without gpus().
        getters = re.findall(r"\.(\w+)\(\)\.", condition)
        if (known := rule(field)) is not None:
            known.required = not getters or key_of(field).split(".")[-1] in getters
    for condition, field, instead in calls(body, "NotYet"):
        starts = re.findall(r'StartsWith\([^"]*"([^"]+)"\)', condition)
        rule(field).refused.append((starts, literal(instead)))
    for _, field, _, instead in calls(body, "WordNotYet"):
        rule(field).refused.append(([], literal(instead)))
    for field, what in calls(body, "Wrong"):
        if found := re.search(r"is not supported yet; ([^\"]+)\"", what):
            rule(field).refused.append(([], found.group(1)))
        text_of_all = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', what))
        if found := re.search(r"has over ([\d,]+) entries", text_of_all):
            rule(field).said.append(f"At most {found.group(1)} entries.")
        if found := re.search(r"is longer than ([\d,]+ bytes)", text_of_all):
            rule(field).said.append(f"At most {found.group(1)}.")
        if found := re.search(r"is unknown; write (.+)", text_of_all):
            words = re.split(r", | or ", found.group(1))
            rule(field).said.append(f"Known: {', '.join(f'`{word}`' for word in words)}.")
        if re.match(r'"is missing;|spec_\.schema', what) and (known := rule(field)):
            known.required = True
    return rules


def read_defaults(text, messages, enums):
    """(message, field) -> default, where defaults.cc sets a constant."""
    defaults = {}
    for function in re.split(r"\n(?=void )", text):
        types = dict(
            (name, type_) for type_, name in re.findall(r"v1::(\w+)& (\w+)\b", function)
        )
        for path, field, value in re.findall(
            r"(\w+(?:(?:\.|->)mutable_\w+\(\))*)(?:\.|->)(?:set|add)_(\w+)\(([^;]*)\);",
            function,
        ):
            base, *steps = re.split(r"\.|->", path)
            type_ = types.get(base)
            for step in steps:
                name = step[len("mutable_") : -2].rstrip("_")
                type_ = next(f.type for f in messages[type_] if f.name == name)
            field = field.rstrip("_")
            if type_ is None or not any(f.name == field for f in messages.get(type_, [])):
                if type_ in messages:
                    sys.exit(f"defaults.cc: {type_} has no {field}")
                continue
            if (said := constant(value, enums)) is not None:
                defaults[type_, field] = said
    return defaults


def constant(value, enums):
    if (text := literal(value)) is not None:
        return f"`{text}`"
    if re.fullmatch(r"-?[\d.]+(e-?\d+)?|true|false", value):
        return f"`{value}`"
    if found := re.fullmatch(r"v1::(\w+)", value):
        for name, values in enums.items():
            if found.group(1) in values:
                return f"`{enum_words(name, values)[values.index(found.group(1)) - 1]}`"
    return None


class JobKeys:
    """All of it, read from the sources under `root`."""

    def __init__(self, root=ROOT):
        proto = (root / "proto/ft/v1/job_spec.proto").read_text()
        self.messages, self.enums, self.comments = read_proto(proto)
        self.rules = read_rules((root / "jobspec/validate.cc").read_text())
        self.defaults = read_defaults(
            (root / "jobspec/defaults.cc").read_text(), self.messages, self.enums
        )
        reader = (root / "jobspec/from_yaml.cc").read_text()
        self.internal = self.fields_named(reader, r"\nbool IsInternalField\(")
        self.zero_is_unset = self.fields_named(reader, r"\nbool IsZeroUnset\(")
        self.may_be_auto = set(
            re.findall(r'node\.scalar == "auto" && field\.name\(\) == "(\w+)"', reader)
        )

    @staticmethod
    def fields_named(source, function):
        """"Dataset.sha256" of "ft.v1.Dataset.sha256" in a function's body."""
        body = re.search(function + r".*?\n}\n", source, re.DOTALL).group()
        return set(re.findall(r'"ft\.v1\.(\w+\.\w+)"', body))

    def fields(self, message):
        """Those that a user may write."""
        return [f for f in self.messages[message] if f"{message}.{f.name}" not in self.internal]

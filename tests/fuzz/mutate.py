"""Damage to values, texts and files: each function takes a `random.Random`, returns a copy."""

import copy
import json
import random

# What people and programs write where something else was meant.
ODD_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    10**6,
    10**18,
    -(10**9),
    0.5,
    -0.5,
    1e-300,
    1e300,
    "",
    " ",
    "0",
    "nan",
    "1,5",
    "None",
    "\u2028",
    "\x00",
    "a" * 2000,
    "../../x",
    "<|image_pad|>",
    "Ünïcødé \U0001f600",
    [],
    [[]],
    [None],
    [0, 0, 0, 0],
    [10, 10, 5, 5],
    [1, 2, 3],
    [-5, -5, -1, -1],
    {},
    {"": None},
    {"size": [1, 1], "counts": "a"},
]


def places(value, path=()):
    "The paths of all nodes of a JSON value, the root included."
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from places(inner, (*path, k))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def _replace(rng: random.Random, node):
    return copy.deepcopy(rng.choice(ODD_VALUES))


def _nudge(rng: random.Random, node):
    "A number a little or much different; a text with a character more, less or other."
    if isinstance(node, bool) or node is None:
        return not node
    if isinstance(node, (int, float)):
        return rng.choice([node + 1, node - 1, -node, node * 1000, node + 0.5, str(node), [node]])
    if isinstance(node, str):
        k = rng.randrange(len(node) + 1)
        return rng.choice([node[:k], node[:k] + "\n" + node[k:], node * 3, node.upper(), [node]])
    if isinstance(node, list):
        return rng.choice(
            [node[:-1], node[::-1], node + node, node + [None], dict(enumerate(node))]
        )
    return rng.choice([list(node), {k: v for k, v in list(node.items())[1:]}, [node], str(node)])


def json_value(rng: random.Random, value):
    "One to three nodes of a JSON value removed, replaced, renamed, swapped or nudged."
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        paths = list(places(value))
        path = rng.choice(paths)
        if not path:
            if rng.random() < 0.1:
                return _replace(rng, value)
            continue
        parent, last = at(value, path[:-1]), path[-1]
        how = rng.choice(["replace", "nudge", "delete", "rename", "swap"])
        if how == "replace":
            parent[last] = _replace(rng, parent[last])
        elif how == "nudge":
            parent[last] = _nudge(rng, parent[last])
        elif how == "delete":
            del parent[last]
        elif how == "rename" and isinstance(parent, dict):
            parent[rng.choice([str(last) + " ", str(last).upper(), "", "x" * 300])] = parent.pop(
                last
            )
        else:
            other = rng.choice(paths)
            parent[last] = copy.deepcopy(at(value, other)) if _still(value, other) else None
    return value


def _still(value, path):
    try:
        at(value, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def raw(rng: random.Random, data: bytes) -> bytes:
    "Bytes cut, flipped, doubled, inserted or zeroed."
    if not data:
        return rng.choice([b"\x00", b"x", b"\xff\xfe"])
    how = rng.choice(["cut", "flip", "flip", "insert", "double", "zero", "head", "empty"])
    k = rng.randrange(len(data))
    n = rng.choice([1, 2, 8, 64, 1024])
    if how == "cut":
        return data[:k]
    if how == "flip":
        out = bytearray(data)
        for _ in range(n):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    if how == "insert":
        return data[:k] + rng.randbytes(n) + data[k:]
    if how == "double":
        return data[:k] + data[k : k + n] + data[k:]
    if how == "zero":
        return data[:k] + bytes(len(data[k : k + n])) + data[k + n :]
    if how == "head":
        return rng.randbytes(min(n, len(data))) + data[n:]
    return b""


def text(rng: random.Random, data: bytes) -> bytes:
    "Lines removed, doubled, swapped or changed; other encodings; now and then raw damage."
    how = rng.choice(["line", "double", "swap", "word", "encoding", "raw", "raw"])
    lines = data.decode("utf-8", "replace").split("\n")
    k = rng.randrange(len(lines))
    if how == "line":
        del lines[k]
    elif how == "double":
        lines.insert(k, lines[k])
    elif how == "swap":
        j = rng.randrange(len(lines))
        lines[k], lines[j] = lines[j], lines[k]
    elif how == "word":
        words = lines[k].split(" ")
        words[rng.randrange(len(words))] = str(rng.choice(ODD_VALUES))
        lines[k] = " ".join(words)
    elif how == "encoding":
        return "\n".join(lines).encode(
            rng.choice(["utf-16", "utf-8-sig", "utf-32", "cp037"]), "replace"
        )
    else:
        return raw(rng, data)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def json_file(rng: random.Random, data: bytes) -> bytes:
    "A JSON file: mostly a damaged value that is well written, else damaged text."
    if rng.random() < 0.2:
        return text(rng, data)
    return json.dumps(json_value(rng, json.loads(data))).encode()


def jsonl_file(rng: random.Random, data: bytes) -> bytes:
    "A JSON lines file: one line damaged, or the text."
    if rng.random() < 0.2:
        return text(rng, data)
    lines = [line for line in data.decode().split("\n") if line.strip()]
    k = rng.randrange(len(lines))
    lines[k] = json.dumps(json_value(rng, json.loads(lines[k])))
    return "\n".join(lines).encode()

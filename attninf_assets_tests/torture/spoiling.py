"""Content that was whole a moment ago: bytes flipped and cut, values anywhere in a tree exchanged for hostile ones."""

import copy
import json
import random
import struct
from typing import Any

__all__ = ["HOSTILE_TEXTS", "JUNK", "ascii_json", "spoiled_bytes", "spoiled_safetensors", "spoiled_tree"]

HOSTILE_TEXTS: tuple[str, ...] = (
    "", " ", "x", "\x1b[2J\x1b[31mred", "\u202egnp.exe", "a\nERROR: forged", "\r", "\ufeff", "\u2028", "\x7f", "\x85",
    "\U000e0041", "\ud800", "../../etc/passwd", "/dev/null", "{}", "[", "%s%n", "${HOME}", "<b>", "```", "NaN",
    "٣", "0x10", "1e400", "x" * 5_000, "\x1b" * 3_000, "🂡" * 900, "a.b", "[key]", "=", "~nobody-of-that-name/x",
)  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**19, -(10**30), 10**400,
    [], [[]], {}, {"a": [1]}, [None], {"": {}}, ["full_attention"] * 9, [0] * 3_000, *HOSTILE_TEXTS,
)  # fmt: skip
_DEEP = 300  # levels of one value; deeper ones are written as text, nothing else can make them


def spoiled_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bits flipped, pieces cut, doubled, zeroed or exchanged, most of them near the beginning or the end."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        if not data:
            break
        reach = min(len(data), draw.choice([16, 64, 400, len(data), len(data)]))
        at = draw.randrange(reach)
        at = at if draw.random() < 0.6 else len(data) - 1 - at
        length = min(len(data) - at, draw.choice([1, 2, 4, 8, 64, 1024]))
        how = draw.choice(["flip", "flip", "flip", "cut", "out", "twice", "zeros", "ones", "random", "number"])
        if how == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del data[at:]
        elif how == "out":
            del data[at : at + length]
        elif how == "twice":
            data[at:at] = data[at : at + length]
        else:
            filling = {
                "zeros": bytes(length),
                "ones": b"\xff" * length,
                "random": draw.randbytes(length),
                "number": struct.pack(draw.choice("<>") + "q", draw.choice([-1, 2**31, 2**62, -(2**63)]))[:length],
            }[how]
            data[at : at + len(filling)] = filling
    return bytes(data)


def spoiled_tree(tree: Any, draw: random.Random, *, junk: tuple[Any, ...] = JUNK) -> tuple[Any, tuple[str | int, ...]]:
    """A copy in which one value, anywhere, is another, gone, doubled or nested; and where that is."""
    tree = json.loads(ascii_json(tree)) if draw.random() < 0.95 else tree
    at, parent, path = tree, None, []
    while isinstance(at, dict | list) and at and (parent is None or draw.random() < 0.75):
        parent = at
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        at = at[key]
        path.append(key)
    if parent is None:
        return copy.deepcopy(draw.choice(junk)), ()
    how = draw.choice(["junk"] * 6 + ["gone", "key", "deep", "other", "twice"])
    if how == "junk":
        parent[key] = copy.deepcopy(draw.choice(junk))
    elif how == "gone":
        del parent[key]
    elif how == "key" and isinstance(parent, dict):
        parent[draw.choice(HOSTILE_TEXTS)] = parent.pop(key)
    elif how == "deep":
        for _ in range(draw.choice([3, _DEEP])):
            at = [at] if draw.random() < 0.5 else {"a": at}
        parent[key] = at
    elif how == "twice" and isinstance(parent, list):
        parent.insert(key, at)
    else:
        parent[key] = copy.deepcopy(draw.choice(list(parent.values()) if isinstance(parent, dict) else parent))
    return tree, tuple(path)


def ascii_json(tree: Any) -> str:
    """JSON with escapes for whatever is not ASCII, lone surrogates among it."""
    return json.dumps(tree)


def spoiled_safetensors(content: bytes, draw: random.Random) -> bytes:
    """A value of the header is another, and the length before it fits, or not."""
    (length,) = struct.unpack("<Q", content[:8])
    tree, _ = spoiled_tree(json.loads(content[8 : 8 + length]), draw)
    header = ascii_json(tree).encode()
    header += b" " * (-len(header) % 8)
    claimed = (
        len(header) if draw.random() < 0.9 else draw.choice([0, 1, len(header) - 1, len(header) + 1, 2**40, 2**63])
    )
    return struct.pack("<Q", claimed) + header + content[8 + length :]

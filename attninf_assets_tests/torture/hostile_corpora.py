"""Corpus files that nobody should have written, and settings."""

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.printable import printable
from attninf_assets.corpus.written_yaml import LARGEST_FILE
from attninf_assets.orchestration.connections.settings import Settings, read_settings, resources_from
from attninf_assets_tests.torture.refusals import Met, faults_of_message
from attninf_assets_tests.torture.spoiling import HOSTILE_TEXTS, spoiled_bytes, spoiled_tree

__all__ = ["feed_corpus", "feed_settings"]

_SECRET = "hunter2hunter2"
_GLOBS = (
    "*.jsonl", "**/*.jsonl", "**/**/**/*.jsonl", "[", "[a-", "{a,b}", "", "/", "//", "~", "~/",
    "~nobody-of-that-name/x",
    "s3://", "s3:///x", "s3://bucket", "s3://bucket/*/x", "s3://*/x", "s3://b/../x", "hf://", "hf://datasets/*/x",
    "hf://datasets/a/b/*.parquet", "gs://b/x", "file:///etc/*", f"s3://key:{_SECRET}@bucket/x", f"s3://b/x?token={_SECRET}",
    "a\0b", "a\nb", "x" * 6_000 + "/*", "*" * 3_000, "./././*.jsonl", "../*.jsonl", "?" * 300, "a/../../*.jsonl",
)  # fmt: skip
_TOKENS = (
    "&a ", "*a", "<<: *a", "!!python/object:os.system ", "!!int x", "!!bool x", "!!timestamp x",
    "!!binary x", "!!float x",
    "!!set {a}", "!!omap [a]", "!!null x", "!x ", "%YAML 9.9\n", "---\n", "...\n", "|\n", ">\n", "? ", "- ", ": ", "#",
    "\t", "'", '"', "[", "{", "}", "]", ",", "@", "`", "\x00", "\x1b", "\x85", "\u2028", "\ufeff", "0000-00-00", "=",
    "9999-99-99 99:99:99", "0o9", "0b", "0x", "1_", "190:20:30", "1" * 5_000, ".inf", "~", '"\\x1b[2J"', '"\\ud800"',
    '"\\U0001F600"', '"\\uFFFF"', "\r", "\n", "  ", "domains:\n", "text_column: ", "files: ",
)  # fmt: skip
_WITHOUT_VALUE = re.compile(r"missing|unknown key; |written twice, in lines |an address [^ ]*://… with credentials")


def feed_corpus(directory: Path, draw: random.Random) -> Met:
    """Write a corpus file and load it; of a valid one, list the shards that lie in the directory."""
    folder = directory / "corpus"
    (folder / "below").mkdir(parents=True)
    for name in ("a.jsonl", "below/b.jsonl"):
        (folder / name).write_text('{"text": "x"}\n')
    file = folder / "corpus.yaml"
    content, tree = _corpus(draw)
    file.write_bytes(content)
    try:
        config = load_corpus_config(file)
    except ValueError as error:
        return "refused", faults_of_corpus_refusal(str(error), path=str(file), tree=tree)
    if all(glob.root.startswith(str(folder)) for source in config.domains.values() for glob in source.files):
        try:
            Corpus(config).shards()
        except (ValueError, OSError) as error:
            return "its globs are refused", [] if any(f"domains.{d}" in str(error) for d in config.domains) else [
                f"no domain is named: {error}"
            ]
    return "accepted", []


def faults_of_corpus_refusal(message: str, *, path: str, tree: Any = None) -> list[str]:
    """What is wrong with the refusal of a corpus file, whose content is `tree` where that is known."""
    faults = [f"{fault}: {message[:600]!r}" for fault in faults_of_message(message, place=path)]
    if _SECRET in message:
        faults.append(f"a secret is shown: {message[:600]!r}")
    head, *problems = message.removeprefix(f"{path}: the corpus file ").split("\n  ")
    if head == "is not valid:":
        for problem in problems:
            faults += _faults_of_problem(problem, tree)
    elif head.startswith("is not valid YAML: "):
        if not re.search(r"\bline \d+|\bposition \d+", message):  # position: of a character that no YAML may hold
            faults.append(f"names no line: {message[:600]!r}")
    elif not re.match(r"is larger than|cannot be read: ", head):
        faults.append(f"names no field: {message[:600]!r}")
    return faults


def _faults_of_problem(problem: str, tree: Any) -> list[str]:
    field, _, rest = problem.partition(": ")
    if not rest and not problem.startswith("and "):
        return [f"names no field: {problem!r}"]
    if _WITHOUT_VALUE.match(rest) or not rest:
        return []
    if ": " not in rest:
        return [f"shows no value: {problem!r}"]
    value = _at(tree, field)
    shown = printable(repr(value))[:40]
    if value is None or isinstance(value, dict | list) or "://" in shown or (isinstance(value, int) and value > 10**99):
        return []
    key = printable(repr(field.rpartition(".")[2]))[:40]
    if rest.startswith(key):  # it is the key that is wrong
        return []
    return [] if shown.strip("'") in problem else [f"shows not the value, {shown}: {problem!r}"]


def _at(tree: Any, field: str) -> Any:
    """The value of that field; None where it cannot be told."""
    for part in field.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _corpus(draw: random.Random) -> tuple[bytes, Any]:
    """A corpus file, and what it says where that is what was spoiled."""
    tree: Any = {"domains": {f"d{n}": _domain(draw) for n in range(draw.choice([1, 1, 2, 4]))}}
    how = draw.choice(["tree"] * 4 + ["tokens"] * 4 + ["bytes"] * 2 + ["many"])
    if how == "many":
        return _many(draw), None
    if how == "tree":
        for _ in range(draw.choice([1, 1, 2, 5])):
            tree, _ = spoiled_tree(tree, draw)
    try:
        content = yaml.safe_dump(tree, allow_unicode=draw.random() < 0.5, default_flow_style=draw.choice([True, False]))
    except (yaml.YAMLError, ValueError, RecursionError):  # a number of too many digits, for one
        content = repr(tree)
    if how == "tokens":
        for _ in range(draw.choice([1, 1, 2, 4])):
            at = draw.randrange(len(content) + 1)
            content = content[:at] + draw.choice(_TOKENS) + content[at + draw.choice([0, 0, 1, 5]) :]
    data = content.encode("utf-8", "surrogatepass")
    if how == "bytes":
        return spoiled_bytes(data, draw), None
    try:
        return data, yaml.safe_load(content) if how == "tree" else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return data, None


def _domain(draw: random.Random) -> dict[str, Any]:
    domain: dict[str, Any] = {
        "files": draw.choice(_GLOBS) if draw.random() < 0.15 else "*.jsonl",
        "format": draw.choice(["jsonl"] * 8 + ["parquet", "json", "csv", "jsonl.gz"]),
    }
    for column, names in (("text_column", ["text", "body"]), ("id_column", ["id", "key"])):
        if draw.random() < 0.4:
            domain[column] = draw.choice([*names * 8, *HOSTILE_TEXTS])
    return domain


def _many(draw: random.Random) -> bytes:
    """Much of something."""
    n = draw.choice([30, 30, 300, 1_000, 20_000 if draw.random() < 0.3 else 3_000])
    text = draw.choice(
        [
            "[" * n, "{a: " * n, "- " * n, "a:\n" * n, "domains: {" + "a: {files: x, format: y}, " * (n // 10) + "}",
            "a: &a [x]\nb: [" + "*a, " * n + "]", "? " * n, "&a " * n, "!x " * n, "'" + "x" * n, "a: " + "1" * n,
            "a: 1" + "_" * n, "domains:\n" + "".join(f"  d{i}: {{files: 1, format: 2}}\n" for i in range(n // 20)),
            "l0: &l0 [x, x]\n" + "".join(f"l{i + 1}: &l{i + 1} [*l{i}, *l{i}]\n" for i in range(n // 100)),
            "domains:\n" + "".join(f"  d{i}: &d{i}\n    <<: *d{i - 1}\n" for i in range(1, n // 100)),
            "#" * n, "\n" * n, "---\n" * n, "x" * (LARGEST_FILE + 1), "%TAG ! x\n" * n, '"' + "\\x1b" * n + '": 1',
            "1:" * n + "1", "a: 0." + "0" * n, "=: " * n, "<<: " * n,
        ]
    )  # fmt: skip
    return text.encode()


_SETTINGS = tuple(f"ATTNINF_{name.upper()}" for name in Settings.model_fields)
_VALUES = (
    "data", "s3://bucket/prefix", "unlimited", "at_once", "nightly", "0", "4", "1e9", "-1", "nan", "inf",
    "1e400", "4.0",
    " 4 ", "true", "None", "9" * 5_000, "0x10", "1_0", "sample", "org/name@main", "org/name", "https://example.org/hook",
    "http://", "ftp://x", "s3://", "s3:///", "s3://b/../c", "file:/x", "gs://b", "/dev/zero", "/dev/stdin",
    "/proc/self/mem",
    "/", ".", "..", "a" * 300, "/".join(["d" * 200] * 40), "*", "[x]", "a|b", "a%20b", "\\\\host\\share",
    f"s3://key:{_SECRET}@bucket", f"https://user:{_SECRET}@example.org", f"s3://bucket/x?token={_SECRET}",
    f"https://example.org/?sig={_SECRET}", f"file://{_SECRET}@x",
    *(text.replace("\0", "") for text in HOSTILE_TEXTS if text != "\ud800"), "\udcff", "a\udc80b",
)  # fmt: skip


def feed_settings(directory: Path, draw: random.Random) -> Met:
    """Set some of the settings, read all of them, and make the resources."""
    values = {name: draw.choice(_VALUES) for name in draw.sample(_SETTINGS, draw.choice([1, 1, 2, 4]))}
    corpus = directory / "corpus.yaml"
    if draw.random() < 0.2:
        corpus.write_bytes(_corpus(draw)[0])
        values["ATTNINF_CORPUS"] = str(corpus)
    if draw.random() < 0.1:
        values[f"ATTNINF_{draw.choice(['ROOTS', 'BUGDET', 'X' * 900, 'ESC' + chr(27), 'É', chr(0x202E)])}"] = "x"
    if draw.random() < 0.05:
        values[draw.choice(["attninf_root", "Attninf_Root", "attninf_nothing"])] = draw.choice(_VALUES)
    with _environment(values):
        try:
            resources_from(read_settings())
        except ValueError as error:
            file = values.get("ATTNINF_CORPUS", "no file")
            if str(error).startswith(f"{file}: "):
                return "its corpus file is refused", faults_of_corpus_refusal(str(error), path=file)
            return "refused", _faults_of_setting(str(error), values)
    return "accepted", []


def _faults_of_setting(message: str, values: dict[str, str]) -> list[str]:
    named = [
        name
        for name in values
        if re.search(rf"(^|; |unknown setting ){re.escape(printable(name)[:300])}(?![A-Z])", message)
    ]
    if not named:
        return [f"names no setting: {message[:600]!r}"]
    faults = [f"{fault}: {message[:600]!r}" for fault in faults_of_message(f"settings: {message}", place="settings")]
    if _SECRET in message:
        faults.append(f"a secret is shown: {message[:600]!r}")
    for name in named:
        value = values[name]
        secret = name == "ATTNINF_ALERT_WEBHOOK" or "://" in value or name not in _SETTINGS
        if not secret and f"{name}={repr(value)[:40]}".rstrip("'\"") not in message:
            faults.append(f"{name} is named without its value: {message[:600]!r}")
    return faults


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

"""The command `attninf` from its arguments to its exit code, on real files and a model that really retrieves."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.influence.selector import Selector
from attninf_assets.selector.library import score_texts
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from attninf_assets_tests.support.source_files import write_rows
from benchmarks.rigs.made_up_text import sentences, tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

ROWS: list[dict[str, object]] = [
    {"key": f"k{number}", "body": f"{text} {sentences()[number // 2]}"} for number, text in enumerate(sentences())
]


def attninf(*arguments: str | int | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(result: Result) -> str:
    """The one line that bad input is answered with."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("planted")
    planted_model().save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    path = tmp_path / "heads.json"
    path.write_text(json.dumps([[PLANTED.layer, PLANTED.index]]))
    return path


COLUMNS = ["--text-column", "body", "--id-column", "key"]


@pytest.mark.parametrize("format", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_scores_are_those_of_the_library_whatever_the_format(
    model: Path, heads: Path, tmp_path: Path, format: str
) -> None:
    source, out, saved = tmp_path / f"in.{format}", tmp_path / "out.parquet", tmp_path / "selector.json"
    write_rows(source, ROWS, format=format)
    result = attninf(
        "score", source, "--selector", model, "--out", out, "--heads", heads, "--save-heads", saved, *COLUMNS
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    selector = Selector.from_json(saved.read_text())
    wanted = score_texts(model, selector, [str(r["body"]) for r in ROWS], doc_ids=[str(r["key"]) for r in ROWS])
    assert pl.read_parquet(out).rows() == [
        (s.doc_id, s.n_tokens, s.loss_base, s.loss_reference, s.score) for s in wanted
    ]


def test_heads_are_detected_on_the_texts_saved_and_used_again(model: Path, tmp_path: Path) -> None:
    source, saved = tmp_path / "in.jsonl", tmp_path / "selector.json"
    write_rows(source, ROWS, format="jsonl")
    first, again = tmp_path / "first.jsonl", tmp_path / "again.jsonl"
    detected = attninf(
        "score", source, "--selector", model, "--out", first, "--save-heads", saved, "--probes", 6,
        "--probe-tokens", 900, "--max-tokens", 32, "--mask", "zero", "--seed", 1, *COLUMNS,
    )  # fmt: skip
    assert detected.exit_code == 0, detected.output
    assert f"retrieval heads: {PLANTED}" in detected.stderr
    selector = Selector.from_json(saved.read_text())
    assert (selector.heads, selector.max_tokens, selector.mask) == ((PLANTED,), 32, "zero")
    known = attninf("score", source, "--selector", model, "--out", again, "--heads", saved, *COLUMNS)
    assert known.exit_code == 0, known.output
    assert again.read_text() == first.read_text()
    assert len(first.read_text().splitlines()) == len(ROWS)


def test_refused_rows_are_named_and_counted_and_the_others_scored(model: Path, heads: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        b'{"id": 1, "text": "One good text."}',
        b'{"id": 2, "text": ""}',
        b"\xff\xfe",
        b'{"id": 1, "text": "The id again."}',
        b'{"id": 3, "text": ["a", "list"]}',
        b'{"id": 4, "text": "The other good text."}',
    ]
    source.write_bytes(b"\n".join(lines) + b"\n")
    result = attninf("score", source, "--selector", model, "--out", out, "--heads", heads, "--id-column", "id")
    assert result.exit_code == 3, result.output
    assert [json.loads(line)["doc_id"] for line in out.read_text().splitlines()] == ["1", "4"]
    told = result.stderr.splitlines()
    assert told[:4] == [
        f"{source}: row 1 refused: text is empty",
        f"{source}: row 2 refused: line is not valid UTF-8",
        f"{source}: row 3 refused: doc_id '1' is a duplicate of row 0",
        f"{source}: row 4 refused: text is a list, not a string",
    ]
    assert told[-2:] == [f"2 documents scored: {out}", "4 rows refused"]


def test_a_file_in_the_way_is_replaced_only_by_force(model: Path, heads: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_rows(source, ROWS[:3], format="jsonl")
    out.write_text("dear to someone")
    command: list[str | int | Path] = ["score", source, "--selector", model, "--out", out, "--heads", heads, *COLUMNS]
    assert complaint(attninf(*command)) == f"attninf score: {out}: exists; replace it with --force"
    assert out.read_text() == "dear to someone"
    assert attninf(*command, "--force").exit_code == 0
    assert len(out.read_text().splitlines()) == 3


def test_the_files_that_are_written_are_no_others_that_are_named(model: Path, heads: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_rows(source, ROWS[:3], format="jsonl")
    before = source.read_bytes()
    cases: list[tuple[str, list[str | Path]]] = [
        (f"{source}: is also IN", ["--out", source]),
        (f"{source}: is also IN", ["--out", out, "--save-heads", source]),
        (f"{out}: is also OUT", ["--out", out, "--save-heads", out]),
    ]
    for wanted, files in cases:
        said = complaint(attninf("score", source, "--selector", model, "--heads", heads, *files, *COLUMNS, "--force"))
        assert said == f"attninf score: {wanted}"
    assert source.read_bytes() == before
    assert not out.exists()


def test_heads_are_saved_before_anything_is_scored(
    model: Path, heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, saved, out = tmp_path / "in.jsonl", tmp_path / "selector.json", tmp_path / "out.jsonl"
    write_rows(source, ROWS[:3], format="jsonl")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attninf_assets.selector.library.score_texts", interrupted)
    result = attninf(
        "score", source, "--selector", model, "--out", out, "--heads", heads, "--save-heads", saved, *COLUMNS
    )
    assert result.exit_code == 130
    assert Selector.from_json(saved.read_text()).heads == (PLANTED,)
    assert not out.exists()


def test_a_store_that_does_not_answer_ends_with_one_line(model: Path, heads: Path, tmp_path: Path) -> None:
    source = "s3://no-such-bucket/in.jsonl"
    with pytest.MonkeyPatch.context() as away:
        away.setattr("attninf_assets.scores.file_scores.read_shard", _not_there)
        result = attninf("score", source, "--selector", model, "--out", tmp_path / "out.jsonl", "--heads", heads)
    assert complaint(result) == "attninf score: When reading information for key: no network"


def _not_there(*_: object) -> Iterator[object]:
    raise OSError("When reading information for key: no network")


@pytest.mark.parametrize(
    ("content", "options", "wanted"),
    [
        (b"", [], "in.jsonl: the file holds no rows"),
        (b"\x00\x01garbage\n", [], "in.jsonl: none of the 1 lines is a JSON object"),
        (b'{"body": "x"}\n', [], "in.jsonl: text column 'text' is in none of the 1 rows; columns there: body"),
        (b'{"text": ""}\n', [], "in.jsonl: none of its 1 rows can be scored"),
        (b'{"text": "x"}\n', ["--id-column", "text"], "id column 'text' is the text column"),
        (b'{"text": "x"}\n', ["--selector", "/absent"], "selector '/absent' is neither a directory"),
        (b'{"text": "x"}\n', ["--heads", "/absent.json"], "/absent.json: cannot be read: No such file"),
        (b'{"text": "x"}\n', ["--seed", "3"], "--seed 3: "),
        (b'{"text": "x"}\n', ["--max-tokens", "0"], "max_tokens must be at least 1, is 0"),
        (b'{"text": "x"}\n', ["--save-heads", "/absent/heads.json"], "there is no folder /absent"),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(
    model: Path, heads: Path, tmp_path: Path, content: bytes, options: list[str], wanted: str
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_bytes(content)
    result = attninf("score", source, "--selector", model, "--out", out, "--heads", heads, *options)
    assert result.exit_code == 2, result.output
    *refused, line = result.stderr.splitlines()
    assert wanted in line
    assert line.startswith("attninf score: ")
    assert all("refused" in other for other in refused)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "s3://AKIA:5ecret/x@bucket/in.jsonl", "--selector", "m", "--out", "o.parquet"],
        ["score", "https://host/in.jsonl?token=5ecret", "--selector", "m", "--out", "o.parquet"],
        ["score", "in.jsonl", "--selector", "hf://me:5ecret@org/name", "--out", "o.parquet"],
        ["backfill", "--all", "--url", "http://me:5ecret@127.0.0.1:3000"],
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(arguments: list[str]) -> None:
    result = attninf(*arguments)
    assert result.exit_code == 2
    assert "credentials" in complaint(result)
    assert "5ecret" not in result.output + result.stderr


def test_names_from_outside_cannot_forge_a_line(model: Path, heads: Path, tmp_path: Path) -> None:
    source = tmp_path / "in\nattninf score: all is well\x1b[2J.jsonl"
    source.write_bytes(b'{"text": ""}\n{"text": "some words"}\n')
    result = attninf("score", source, "--selector", model, "--out", tmp_path / "o.parquet", "--heads", heads)
    assert result.exit_code == 3
    assert "attninf score: all is well" not in result.stderr.splitlines()
    assert "\x1b" not in result.stderr


def test_a_selectors_file_settles_what_it_holds(model: Path, tmp_path: Path) -> None:
    source, saved = tmp_path / "in.jsonl", tmp_path / "selector.json"
    write_rows(source, ROWS[:3], format="jsonl")
    saved.write_text(Selector("m", "t", (PLANTED,), "uniform", 64, "bos", "float32").to_json())
    command: list[str | int | Path] = [
        "score",
        source,
        "--selector",
        model,
        "--out",
        tmp_path / "out.jsonl",
        "--heads",
        saved,
        *COLUMNS,
    ]
    assert complaint(attninf(*command, "--mask", "zero")).endswith(
        f"--mask zero: {saved} has settled that; leave it out"
    )
    assert "the selector's heads are those of model m, but" in attninf(*command).stderr


def test_an_option_of_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    result = attninf("score", "in.jsonl", "--selector", "m", "--out", "o.jsonl", "--mask", "median")
    assert result.exit_code == 2
    assert "Invalid value for '--mask'" in result.stderr
    assert "Traceback" not in result.output


class _NotDagster(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (404, b"<html>no such page</html>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def another_server() -> Iterator[str]:
    """The address of a server that is none of Dagster's."""
    server = HTTPServer(("127.0.0.1", 0), _NotDagster)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_backfill_without_a_server_to_ask_ends_with_one_line(another_server: str) -> None:
    for url, wanted in [
        ("http://127.0.0.1:9", "http://127.0.0.1:9: no server answers there; start it with `make ui`"),
        ("localhost:3000", "'localhost:3000' is not the address of a server: give one like http://127.0.0.1:3000"),
        (another_server, f"{another_server}: is no Dagster webserver: /graphql answered with status 404 and no data"),
    ]:
        assert complaint(attninf("backfill", "--all", "--url", url)) == f"attninf backfill: {wanted}"


@pytest.mark.parametrize(
    "answer", ["[]", "{}", '{"data": null}', '{"data": {}}', '{"errors": []}', '{"errors": ["x"]}']
)
def test_a_server_that_answers_json_of_its_own_is_none_of_dagsters(
    another_server: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_NotDagster, "answer", (200, answer.encode()))
    assert complaint(attninf("backfill", "--all", "--url", another_server)) == (
        f"attninf backfill: {another_server}: is no Dagster webserver: /graphql answered with status 200 and no data"
    )


@pytest.mark.parametrize("arguments", [[], ["--all", "--missing"], ["web.a", "--stale"]])
def test_a_backfill_needs_to_be_told_of_what_in_one_way(arguments: list[str]) -> None:
    assert complaint(attninf("backfill", *arguments)) == (
        "attninf backfill: give partition keys, or one of --missing, --stale and --all"
    )


def test_help_comes_without_torch_or_dagster_and_names_every_verb() -> None:
    program = """
import sys
from attninf_assets.cli import app
try:
    app(["--help"])
finally:
    print(sorted({"torch", "transformers", "dagster", "pyarrow", "requests"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert {"score", "backfill"} <= set(done.stdout.split())


def test_asking_a_server_needs_no_dagster_here() -> None:
    program = """
import sys
import attninf_assets.orchestration.runs.backfills
print(sorted({"torch", "dagster", "dagster_graphql"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_command_is_this_one() -> None:
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["attninf"].partition(":")
    assert getattr(import_module(module), name) is app

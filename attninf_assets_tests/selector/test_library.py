"""The method without Dagster and without a lake: the same heads, the same losses, the same fingerprint as with them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import attninf_assets
from attninf_assets import Selector, detect_selector, score_texts
from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.indexing import index_shard
from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.scoring import DocumentScore
from attninf_assets.scores.update import update_partition_scores
from attninf_assets.selector import building, library
from attninf_assets.selector.building import HeadSettings, build_selector, pin_selector_model, probes_for_model
from attninf_assets.selector.library import selector_of
from attninf_assets.selector.pinning import digest_model
from attninf_assets.selector.probe_plan import evidence_for
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.pins import digests_of
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from benchmarks.rigs.made_up_text import sentences, tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

README = Path(__file__).parents[2] / "README.md"
TEXTS = [f"{one} {two}" for one in sentences()[:40] for two in sentences()[40:42]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model as a Hugging Face directory; read-only."""
    directory = tmp_path_factory.mktemp("planted")
    planted_model().save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def selector(planted: Path) -> Selector:
    """The planted model's selector, as the library finds it."""
    return detect_selector(planted, sentences(), n_probes=6, probe_tokens=900, device=CPU)


def test_importing_the_package_loads_neither_torch_nor_dagster_and_its_names_load_no_dagster_and_no_tables() -> None:
    program = """
import sys, attninf_assets
early = {"torch", "transformers", "pyarrow", "dagster", "numpy"} & sys.modules.keys()
from attninf_assets import *
late = {"dagster", "deltalake", "duckdb", "polars"} & sys.modules.keys()
print(sorted(early), sorted(late), detect_selector.__module__, "score_texts" in dir(attninf_assets))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] [] attninf_assets.selector.library True"


def test_a_name_that_the_package_does_not_have_is_refused_as_always() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'detect'"):
        attninf_assets.detect  # noqa: B018


def test_the_example_of_the_readme_runs_as_it_stands(
    planted: Path, selector: Selector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.read_text().split("## A library in ten lines")[1].split("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    shutil.copytree(planted, "models/SmolLM2-135M-Instruct")
    Path("sentences.txt").write_text("\n".join(sentences()))
    printed = StringIO()
    with redirect_stdout(printed):
        exec(program, {})
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert [row[0] for row in rows] == ["0", "1"]
    for _, n_tokens, *numbers in rows:
        base, reference, score = map(float, numbers)
        assert int(n_tokens) > 0
        assert score == pytest.approx((reference - base) / base)
    found = Selector.from_json(Path("selector.json").read_text())
    assert (found.heads, found.fingerprint) == ((PLANTED,), selector.fingerprint)


def test_the_library_finds_the_selector_and_the_losses_that_the_assets_find(
    planted: Path, selector: Selector, tmp_path: Path
) -> None:
    lake = Lake(Root.at(tmp_path / "root"))
    pinned = pin_selector_model(lake.root, str(planted))
    directory = Path(lake.root.uri) / pinned.directory
    probes = probes_for_model(directory, sentences(), n_probes=6, probe_tokens=900, seed=0)
    current = build_selector(
        lake.root,
        pinned.digests,
        probes,
        HeadSettings(0.05, "uniform", 4096, "float32"),
        directory=directory,
        evidence=evidence_for(6),
        device=CPU,
    )
    assert current.selector == selector
    assert current.selector.fingerprint == selector.fingerprint

    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"id": f"t{n:03}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    shard = Shard("web", "texts", str(source), "jsonl", "text", "id")
    lake.replace("documents", index_shard(shard).documents, where={"domain": "web", "shard": "texts"})
    stored = update_partition_scores(
        lake,
        shard,
        current.selector,
        load=lambda: load_engine(
            directory, numeric_class="float32", max_tokens=current.selector.max_tokens, device=CPU
        ),
        storage_options={},
    ).table
    wanted = pl.DataFrame(pl.from_arrow(stored)).sort("doc_id")
    found = list(score_texts(planted, selector, TEXTS, doc_ids=wanted["doc_id"], device=CPU))
    assert [s.doc_id for s in found] == wanted["doc_id"].to_list()
    assert [s.n_tokens for s in found] == wanted["n_tokens"].to_list()
    assert [s.loss_base for s in found] == wanted["loss_base"].to_list()
    assert [s.loss_reference for s in found] == wanted["loss_reference"].to_list()
    assert [s.score for s in found] == wanted["score"].to_list()


def test_scores_of_a_stream_come_in_its_order_whatever_the_lengths(planted: Path, selector: Selector) -> None:
    texts = [" ".join(TEXTS[: 1 + n % 7]) for n in range(90)]
    alone = {text: next(score_texts(planted, selector, [text])) for text in texts[:7]}
    streamed = list(score_texts(planted, selector, (text for text in texts)))
    assert [s.doc_id for s in streamed] == [str(n) for n in range(90)]
    for text, score in zip(texts, streamed, strict=True):
        assert (score.n_tokens, score.score) == (alone[text].n_tokens, pytest.approx(alone[text].score, abs=1e-4))


def test_progress_over_texts_ends_with_all_of_them(planted: Path, selector: Selector) -> None:
    reports: list[str] = []
    list(score_texts(planted, selector, TEXTS, on_progress=lambda report: reports.append(str(report))))
    assert reports[-1].startswith(f"{len(TEXTS):,} documents, ")
    assert " tokens (100%), " in reports[-1]
    with pytest.raises(ValueError, match="n_bytes: needed"):
        score_texts(planted, selector, iter(TEXTS), on_progress=print)


def test_a_model_that_is_not_the_selectors_is_refused_with_both_digests(
    tiny_directory: Path, planted: Path, selector: Selector
) -> None:
    other = digests_of(tiny_directory).model
    with pytest.raises(ValueError, match=rf"those of model {selector.model_digest}, but .* is model {other}"):
        score_texts(tiny_directory, selector, TEXTS)


def test_a_model_whose_weights_changed_in_place_is_another_model(
    planted: Path, selector: Selector, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(planted, copy)
    assert len(list(score_texts(copy, selector, TEXTS[:2]))) == 2
    weights = load_file(copy / "model.safetensors")
    changed = {"lm_head.weight": weights["lm_head.weight"] + 1}
    save_file(weights | changed, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="those of model"):
        score_texts(copy, selector, TEXTS[:2])


def test_heads_found_in_noise_are_refused(planted: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    shutil.copytree(planted, noise)
    weights = load_file(noise / "model.safetensors")
    torch.manual_seed(0)
    save_file(
        {name: torch.randn_like(weight) for name, weight in weights.items()},
        noise / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match="the base model retrieves on 0 of 16 probes"):
        detect_selector(noise, sentences())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"head_fraction": 0.0}, "head_fraction must be above 0 and at most 1, is 0.0"),
        ({"mask": "median"}, "mask must be one of uniform, zero, is 'median'"),
        ({"numeric_class": "int8"}, "numeric_class must be one of float32, bfloat16, float8, is 'int8'"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, is 0"),
        ({"n_probes": 0}, "n_probes must be at least 1, is 0"),
        ({"probe_tokens": 50}, "^50 tokens have no room"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_before_any_work(
    planted: Path, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        detect_selector(planted, sentences(), **options)  # type: ignore[arg-type]


def test_sentences_that_cannot_make_a_probe_are_refused_with_their_number(planted: Path) -> None:
    with pytest.raises(ValueError, match="only 0 of 2 sentences qualify"):
        detect_selector(planted, ["Short.", "No."])
    with pytest.raises(ValueError, match="one string, where a list of them is needed"):
        detect_selector(planted, "A single string is no list of sentences.")
    with pytest.raises(ValueError, match=r"sentences\[1\] is NoneType, not a string"):
        detect_selector(planted, ["A sentence.", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("texts", "doc_ids", "complaint"),
    [
        ("a text", None, "texts: one string, where several are needed"),
        (["a", ""], None, r"texts\[1\] is empty"),
        (["a", None], None, r"texts\[1\] is NoneType, not a string"),
        (["a", "\ud800"], None, r"texts\[1\] is not valid UTF-8"),
        (["a", "b"], "12", "doc_ids: one string, where several are needed"),
        (["a", "b"], ["1"], "doc_ids: only 1, fewer than texts"),
        (["a", "b"], ["1", "2", "3"], "doc_ids: more than the 2 texts"),
        ([], ["1"], "doc_ids: more than the 0 texts"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused_by_their_number(
    planted: Path, selector: Selector, texts: list[str], doc_ids: list[str] | str | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(score_texts(planted, selector, texts, doc_ids=doc_ids))


def test_no_texts_have_no_scores(planted: Path, selector: Selector) -> None:
    assert list(score_texts(planted, selector, [])) == []


def test_heads_known_from_elsewhere_make_the_selector_that_detection_makes(planted: Path, selector: Selector) -> None:
    assert selector_of(planted, [PLANTED], device=CPU) == selector
    with pytest.raises(ValueError, match="the model has no head L2H0; it has 2 layers of 4 heads"):
        selector_of(planted, [PLANTED, Head(2, 0)])


def test_a_selector_made_for_other_code_or_with_heads_that_are_not_there_is_refused(
    planted: Path, selector: Selector
) -> None:
    fields = json.loads(selector.to_json())
    with pytest.raises(ValueError, match="of scoring version 0, this code of"):
        score_texts(planted, Selector.from_json(json.dumps(fields | {"scoring_version": 0})), TEXTS)
    with pytest.raises(ValueError, match="the model has no head L0H9"):
        score_texts(planted, Selector.from_json(json.dumps(fields | {"heads": [[0, 9]]})), TEXTS)
    with pytest.raises(ValueError, match=r"selector: a str, not a Selector; Selector\.from_json reads one"):
        score_texts(planted, selector.to_json(), TEXTS)  # type: ignore[arg-type]


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for converted models, and a library that remembers none."""
    monkeypatch.setattr(library, "CONVERTED", tmp_path / "converted")
    library._pinned_once.cache_clear()
    yield tmp_path / "converted"
    library._pinned_once.cache_clear()


@pytest.mark.sample
def test_a_gguf_file_is_converted_once_for_all_processes(
    sample_directory: Path, conversions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gguf,) = (sample_directory.parent / "model").glob("*.gguf")
    first = selector_of(gguf, [Head(18, 6)], device=CPU)
    assert first.model_digest == digest_model(sample_directory).model
    assert len(list(conversions.glob("selectors/*/config.json"))) == 1
    library._pinned_once.cache_clear()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(building, "pin_model", never)
    assert selector_of(gguf, [Head(18, 6)], device=CPU) == first


def test_a_damaged_conversion_is_made_again(tmp_path: Path, conversions: Path) -> None:
    gguf = tiny_gguf(tmp_path / "tiny.gguf")
    first = selector_of(gguf, [Head(1, 2)], device=CPU)
    (weights,) = conversions.glob("**/model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    library._pinned_once.cache_clear()
    assert selector_of(gguf, [Head(1, 2)], device=CPU) == first
    assert weights.read_bytes() == whole


def test_a_gguf_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path, selector: Selector) -> None:
    with pytest.raises(ValueError, match=r"absent\.gguf': no such GGUF file"):
        score_texts(tmp_path / "absent.gguf", selector, TEXTS)


def test_the_score_is_null_where_there_is_no_loss_to_speak_of() -> None:
    assert DocumentScore("a", 3, 1e-5, 1.0).score is None

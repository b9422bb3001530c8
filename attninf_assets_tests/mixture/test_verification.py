"""What lies in training_corpus, compared with its manifest: leftovers, damage, reuse."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.mixture import training_corpus, verification
from attninf_assets.mixture.corpus_files import remove_leftovers
from attninf_assets.mixture.manifest import MANIFEST, CorpusFile, Manifest, MixSettings, Share
from attninf_assets.mixture.training_corpus import MixedDocument
from attninf_assets.mixture.verification import Findings, reusable_manifest, verify_training_corpus
from attninf_assets.store.json_records import unsealed
from attninf_assets.store.root import Root
from attninf_assets_tests.support.processes import FORKED

SETTINGS = MixSettings(seed=1, corpus_weight=1.0, selected_weight=1.0, rows_per_file=5)
DOCUMENTS = [MixedDocument(f"{i}", "web", f"Text {i}.", 3, i % 3 == 0) for i in range(12)]
NOTHING = Findings([], [])


def _write(root: Root, *, seed: int = SETTINGS.seed) -> Manifest:
    choice = asdict(SETTINGS) | {"seed": seed}
    return training_corpus.write_training_corpus(DOCUMENTS, root, n_bytes=100, provenance={"of": 0.1}, **choice)


def _reusable(root: Root, *, thorough: bool = False) -> Manifest | None:
    return reusable_manifest(root, SETTINGS, {"of": 0.1}, thorough=thorough)


def _killed_before_its_clean_up(root: Root) -> None:
    training_corpus.remove_leftovers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    _write(root)


@pytest.fixture
def root_with_leftovers(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root on which a run was killed between its manifest and its clean-up."""
    root = Root.at(tmp_path_factory.mktemp("killed"))
    _write(root, seed=2)
    process = FORKED.Process(target=_killed_before_its_clean_up, args=(root,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    return root


def test_what_a_killed_run_left_is_told_from_damage_and_removed_though_nothing_is_written(
    root_with_leftovers: Root,
) -> None:
    root = root_with_leftovers
    root.open_output("training_corpus/_staging-empty/x").close()
    root.delete("training_corpus/_staging-empty/x")
    found = verify_training_corpus(root)
    assert found.faults == []
    assert len(found.leftovers) == 4 + 1  # of the mix before, and a staging directory without files
    manifest = _reusable(root, thorough=True)
    assert manifest is not None
    remove_leftovers(root, manifest)
    assert verify_training_corpus(root) == NOTHING
    assert root.list("training_corpus") == [MANIFEST, *sorted(file.path for file in manifest.files)]


def test_an_undisturbed_corpus_is_reused_for_the_same_settings_and_provenance_alone(root: Root) -> None:
    assert _reusable(root) is None
    manifest = _write(root)
    for thorough in (False, True):
        assert _reusable(root, thorough=thorough) == manifest
        assert reusable_manifest(root, SETTINGS, {"of": 0.2}, thorough=thorough) is None
        other = MixSettings(**asdict(SETTINGS) | {"rows_per_file": 6})
        assert reusable_manifest(root, other, {"of": 0.1}, thorough=thorough) is None


def test_a_file_of_another_size_is_never_reused_and_one_of_other_bytes_not_where_it_is_read(root: Root) -> None:
    manifest = _write(root)
    file = manifest.files[1]
    content = root.read_bytes(file.path)
    flipped = content[:20] + bytes([content[20] ^ 1]) + content[21:]
    for damaged, seen_at_once in [(content[:-1], True), (content + b"x", True), (flipped, False)]:
        root.write_bytes(file.path, damaged)
        assert (_reusable(root) is None) == seen_at_once
        assert _reusable(root, thorough=True) is None
        assert _write(root) == manifest
        assert root.read_bytes(file.path) == content
        assert _reusable(root, thorough=True) == manifest
    root.delete(file.path)
    assert _reusable(root) is None


def test_counts_that_are_not_those_of_the_files_are_not_reused_where_they_are_read(root: Root) -> None:
    _write(root)
    stored = json.loads(unsealed(root.read_bytes(MANIFEST)))
    stored["files"][0]["rows"] += 1
    root.write_bytes(MANIFEST, json.dumps(stored).encode())
    assert _reusable(root, thorough=True) is None


def _changed(**fields: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(unsealed(content)) | fields).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-20],
        lambda content: b"\xff\x00",
        lambda content: b"[]",
        lambda content: b"{}",
        lambda content: b"null",
        _changed(files=[{"path": "training_corpus/a.parquet"}]),
        _changed(files=None),
        _changed(seed="1"),
        _changed(rows_per_file=True),
        _changed(provenance=[]),
        _changed(unknown=1),
    ],
)
def test_a_damaged_manifest_is_one_fault_that_names_it_and_is_replaced(
    tmp_path_factory: pytest.TempPathFactory, damage: Callable[[bytes], bytes]
) -> None:
    root = Root.at(tmp_path_factory.mktemp("damaged"))
    manifest = _write(root)
    root.write_bytes(MANIFEST, damage(root.read_bytes(MANIFEST)))
    named = f"{root.uri}/{MANIFEST}: damaged, materialize training_corpus again: "
    with pytest.raises(ValueError, match=named):
        Manifest.read(root)
    (fault,) = verify_training_corpus(root).faults
    assert fault.startswith(named)
    for thorough in (False, True):
        assert _reusable(root, thorough=thorough) is None
    assert _write(root) == manifest == Manifest.read(root)
    assert verify_training_corpus(root) == NOTHING


_PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text()
_COUNTS = st.integers(0, 2**62)


@given(
    manifest=st.builds(
        Manifest,
        files=st.lists(st.builds(CorpusFile, st.text(), _COUNTS, _COUNTS, st.text()), max_size=3).map(tuple),
        shares=st.lists(st.builds(Share, st.text(), st.text(), *[_COUNTS] * 4), max_size=3).map(tuple),
        corpus_weight=st.floats(0, 1e9),
        selected_weight=st.floats(0, 1e9),
        seed=st.integers(),
        rows_per_file=_COUNTS,
        provenance=st.dictionaries(st.text(), st.lists(_PLAIN) | st.dictionaries(st.text(), _PLAIN), max_size=3),
    )
)
def test_a_manifest_comes_back_as_it_was_written_every_bit_of_its_numbers(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    root = Root.at(tmp_path_factory.mktemp("manifest"))
    manifest.write(root)
    assert Manifest.read(root) == manifest


def test_a_corpus_that_is_replaced_while_it_is_verified_is_verified_as_it_became(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root.at(tmp_path_factory.mktemp("replaced"))
    _write(root)
    listed = verification.CorpusFiles.listed
    meanwhile: Iterator[Callable[[], object]] = iter([partial(_write, root, seed=3)])

    def listed_while_another_writes(root: Root) -> verification.CorpusFiles:
        found = listed(root)
        next(meanwhile, lambda: None)()
        return found

    monkeypatch.setattr(verification.CorpusFiles, "listed", listed_while_another_writes)
    assert verify_training_corpus(root).faults == []

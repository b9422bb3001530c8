import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.verification import remembered, verified_model
from attninf_assets.influence.verification.remembered import SelfCheckRecord, Verdict, surroundings
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support.tiny_models import SUPPORTED, UNSHARED, tiny_model

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")
OF: dict[str, str | int] = {
    "model": "abc",
    "device": "cpu here",
    "window": 64,
    "numeric_class": "float32",
    "start_token": 1,
}
VERDICT = Verdict(share_trunk=True, kernel="document_by_document", fused=False, onednn=True)
PACKED = pack([Window(0, list(range(5, 29))), Window(1, [9, 8, 7])], start_token=1)
STREAMS = [BASE, frozenset({Head(1, 1), Head(2, 0)}), frozenset({Head(1, 1)})]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with each comparison with a model's own forward pass."""
    made: list[str] = []
    own = verified_model.check_architecture

    def counted(model: Any, *args: Any, **how: Any) -> Any:
        made.append(model.config.model_type)
        return own(model, *args, **how)

    monkeypatch.setattr(verified_model, "check_architecture", counted)
    return made


def check(model: Any, record: SelfCheckRecord) -> StreamedModel:
    return verified(model, start_token=1, max_tokens=64, record=record)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_remembered_check_is_not_repeated_and_leaves_a_model_that_computes_the_same_bits(
    name: str, bits: int, tmp_path: Path, checks: list[str]
) -> None:
    record = SelfCheckRecord(tmp_path, of=OF)
    models = (tiny_model(name) if bits == 32 else to_sixteen_bit(tiny_model(name)) for _ in range(2))
    first, again = (check(model, record) for model in models)
    assert len(checks) == 1
    assert again.share_trunk == (name not in UNSHARED)
    assert torch.equal(first.losses_SR(PACKED, STREAMS), again.losses_SR(PACKED, STREAMS))
    modules = [[type(module).__name__ for module in model.model.modules()] for model in (first, again)]
    assert modules[0] == modules[1]


def test_a_model_that_is_refused_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'bloom' bypasses"):
        check(tiny_model("bloom"), SelfCheckRecord(tmp_path, of=OF))
    assert not list(tmp_path.iterdir())


def test_a_check_that_was_rough_for_want_of_memory_is_made_again(
    tmp_path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = verified_model.check_architecture

    def too_much(model: Any, packed: Any, *, exact: bool) -> Any:
        if exact:
            raise torch.OutOfMemoryError("no room")
        return own(model, packed, exact=exact)

    monkeypatch.setattr(verified_model, "check_architecture", too_much)
    for _ in range(2):
        check(to_sixteen_bit(tiny_model("llama")), SelfCheckRecord(tmp_path, of=OF))
    assert len(checks) == 2
    assert not list(tmp_path.iterdir())


def test_what_a_check_found_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that no check here comes to is applied as it stands: it is the record that decides."""
    record = SelfCheckRecord(tmp_path, of=OF)
    record.write(Verdict(share_trunk=False, kernel="document_by_document", fused=False, onednn=False))
    ready = check(tiny_model("llama"), record)
    assert not ready.share_trunk
    assert ready.tiles is None


@pytest.mark.parametrize("field", OF)
def test_another_model_device_window_class_or_start_token_has_a_record_of_its_own(field: str, tmp_path: Path) -> None:
    SelfCheckRecord(tmp_path, of=OF).write(VERDICT)
    assert SelfCheckRecord(tmp_path, of=OF).read() == VERDICT
    assert SelfCheckRecord(tmp_path, of=OF | {field: "another"}).read() is None


@pytest.mark.parametrize("what", ["torch", "torch_build", "cpu", "transformers", "code"])
def test_another_library_processor_or_code_has_a_record_of_its_own(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SelfCheckRecord(tmp_path, of=OF)
    before.write(VERDICT)
    others = surroundings() | {what: "another"}
    monkeypatch.setattr(remembered, "surroundings", lambda: others)
    after = SelfCheckRecord(tmp_path, of=OF)
    assert after.read() is None
    after.file.write_bytes(before.file.read_bytes())  # under the name that would be looked for
    assert after.read() is None


def test_the_code_that_a_verdict_hangs_on_is_every_file_of_influence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "kernels.py").write_text("a = 1\n")
    monkeypatch.setattr(remembered, "_INFLUENCE", tmp_path)
    digests = [remembered._digest_of_code()]
    (tmp_path / "model" / "kernels.py").write_text("a = 2\n")
    digests.append(remembered._digest_of_code())
    (tmp_path / "model" / "kernels.py").rename(tmp_path / "model" / "attention.py")
    digests.append(remembered._digest_of_code())
    assert len(set(digests)) == 3


@given(data=st.data())
def test_a_record_of_which_a_byte_is_another_is_believed_only_if_it_says_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    record = SelfCheckRecord(tmp_path_factory.getbasetemp() / "self_checks_of_a_byte", of=OF)
    record.write(VERDICT)
    written = bytearray(record.file.read_bytes())
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] = data.draw(st.integers(0, 255))
    record.file.write_bytes(written)
    assert record.read() in (None, VERDICT)
    record.file.write_bytes(written[:place])
    assert record.read() is None


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": {}},
        {"verdict": {"share_trunk": True, "kernel": "document_by_document", "fused": False, "onednn": False}},
        {"verdict": {"share_trunk": 1, "kernel": "document_by_document", "fused": False, "onednn": True}},
        {"verdict": {"share_trunk": True, "kernel": None, "fused": False, "onednn": True}},
        {"sha256": ""},
        {"of": {}},
    ],
)
def test_a_record_that_was_changed_is_not_believed_and_says_so(
    change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, checks: list[str]
) -> None:
    record = SelfCheckRecord(tmp_path, of=OF)
    record.write(VERDICT)
    record.file.write_text(json.dumps(json.loads(record.file.read_text()) | change))
    check(tiny_model("llama"), record)
    assert len(checks) == 1
    assert f"{record.file}: not believed, so the self-check is repeated" in caplog.text
    assert record.read() is not None, "what was found anew stands there now"


def test_a_kernel_that_this_device_does_not_have_is_not_believed(tmp_path: Path, checks: list[str]) -> None:
    record = SelfCheckRecord(tmp_path, of=OF)
    record.write(Verdict(share_trunk=True, kernel="variable_length", fused=False, onednn=False))
    check(tiny_model("llama"), record)
    assert len(checks) == 1


def test_a_record_that_cannot_be_written_or_read_costs_a_check_and_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, checks: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    check(tiny_model("llama"), SelfCheckRecord(tmp_path / "file", of=OF))
    assert "cannot be written, so the self-check is repeated next time" in caplog.text
    assert len(checks) == 1


def test_an_engine_remembers_its_self_check_by_the_models_digest_and_not_without_one(
    tiny_directory: Path, tmp_path: Path, checks: list[str]
) -> None:
    def load(digest: str | None) -> None:
        load_engine.cache_clear()
        load_engine(
            tiny_directory,
            numeric_class="float32",
            max_tokens=64,
            device=CPU,
            memory=tmp_path,
            model_digest=digest,
        )

    load("a")
    load("a")
    assert len(checks) == 1
    load("b")
    assert len(checks) == 2
    load(None)
    load(None)
    assert len(checks) == 4
    assert len(list((tmp_path / "self_checks").iterdir())) == 2
    load_engine.cache_clear()

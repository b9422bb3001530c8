"""How texts begin is read from where they landed, or the reason why not is said."""

import json
from pathlib import Path

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.selection.comparison import Moved
from attninf_assets.selection.documents_to_read import beginnings
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.source_files import landed

TEXTS = ["One line.\nAnother \x1b[31m`one`", "b" * 500, "Third."]


def _moved(doc_id: str, shard: str = "a") -> Moved:
    return Moved("web", shard, doc_id, 1.0, 1, 1, 1)


def test_the_texts_asked_for_begin_as_they_do_with_what_acts_escaped_and_no_others_are_there(tmp_path: Path) -> None:
    source, lake = tmp_path / "a.jsonl", Lake(Root.at(tmp_path / "root"))
    source.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    shard = Shard("web", "a", str(source), "jsonl", "text", "id")
    index_and_store(lake, landed(shard))

    def find(key: str) -> Shard:
        if key != "web.a":
            raise ValueError(f"{key}: gone\nfor good")
        return shard

    found = beginnings(lake, [_moved("d1"), _moved("d0"), _moved("d9"), _moved("d0", "b")], find)
    assert found["web", "d1"] == f"{'b' * 160}… (300 characters)"
    assert found["web", "d9"] == "[documents has it no more]"
    assert found.keys() == {("web", "d0"), ("web", "d1"), ("web", "d9")}
    assert beginnings(lake, [_moved("d0")], find) == {("web", "d0"): r"One line.\nAnother \x1b[31m`one`"}

    source.write_text(source.read_text().replace("One", "Two"))
    changed = beginnings(lake, [_moved("d0")], find)["web", "d0"]
    assert changed == "[the text is another than was indexed: its sha256 differs]"

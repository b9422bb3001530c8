"""What a running webserver shows of assets, checks and runs, asked over GraphQL as its pages ask."""

import json
from typing import Any

from benchmarks.rigs.live import Live

_ENTRIES = """metadataEntries { label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intRepr }
    ... on FloatMetadataEntry { floatValue } ... on MarkdownMetadataEntry { mdStr }
    ... on TableMetadataEntry { table { records } } }"""
_ASSET = "query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {"


def shown(live: Live, asset: str) -> dict[str, Any]:
    """The metadata of an unpartitioned asset's last materialization."""
    query = f"{_ASSET} assetMaterializations(limit: 1) {{ {_ENTRIES} }} }} }} }}"
    (made,) = live.ask(query, path=[asset])["assetNodeOrError"]["assetMaterializations"]
    return _values(made["metadataEntries"])


def shown_by_partition(live: Live, asset: str) -> dict[str, dict[str, Any]]:
    """The metadata of the last materialization of every partition that has one."""
    query = f"{_ASSET} latestMaterializationByPartition {{ partition {_ENTRIES} }} }} }} }}"
    made = live.ask(query, path=[asset])["assetNodeOrError"]["latestMaterializationByPartition"]
    return {one["partition"]: _values(one["metadataEntries"]) for one in made if one is not None}


def checked(live: Live, asset: str) -> dict[str, bool]:
    """Which checks of the asset's last materialization passed, of those that were made."""
    query = f"""{_ASSET} assetChecksOrError {{ ... on AssetChecks {{ checks {{ name
        executionForLatestMaterialization {{ evaluation {{ success }} }} }} }} }} }} }} }}"""
    checks = live.ask(query, path=[asset])["assetNodeOrError"]["assetChecksOrError"]["checks"]
    made = {check["name"]: check["executionForLatestMaterialization"] for check in checks}
    return {name: run["evaluation"]["success"] for name, run in made.items() if run and run["evaluation"]}


def log_of(live: Live, run_id: str) -> str:
    """The messages of a run's log, a line each."""
    query = """query($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
        ... on MessageEvent { message } } } } }"""
    return "\n".join(event["message"] for event in live.ask(query, run=run_id)["logsForRun"]["events"])


def _values(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """By label: numbers, texts, and the rows of tables."""
    return {entry["label"]: _value(entry) for entry in entries}


def _value(entry: dict[str, Any]) -> Any:
    if "intRepr" in entry:
        return int(entry["intRepr"])
    if "table" in entry:
        return [json.loads(record) for record in entry["table"]["records"]]
    return entry.get("text", entry.get("mdStr", entry.get("floatValue")))

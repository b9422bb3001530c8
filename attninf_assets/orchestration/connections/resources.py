"""What the assets connect to: storage, the corpus, the selector's source.

The environment is named here and nowhere else.
"""

import os
from pathlib import Path

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field

from attninf_assets.corpus.config import CorpusConfig, load_corpus_config
from attninf_assets.corpus.discovery import discover_shards, find_landed_shard, landed_shards
from attninf_assets.corpus.documents import LandedShard, Shard
from attninf_assets.orchestration.connections.s3_credentials import connection_to
from attninf_assets.sample.corpus import gather_sample_corpus
from attninf_assets.sample.model import fetch_sample_model
from attninf_assets.scores.cost import Estimate, read_approval
from attninf_assets.selector.probe_plan import PAPER as PAPER_PLAN
from attninf_assets.selector.probe_plan import SAMPLE as SAMPLE_PLAN
from attninf_assets.selector.probe_plan import ProbePlan
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

SAMPLE = "sample"


class LakeResource(dg.ConfigurableResource):
    """Where everything is stored: one root, a local path or `s3://bucket/prefix`."""

    root: str = Field(description="Local path or s3://bucket/prefix (ATTNINF_ROOT).")
    s3: dg.ResourceDependency[S3Resource]

    def check(self) -> None:
        """Raises `ValueError` naming ATTNINF_ROOT where the root is neither kind; looks for no credentials."""
        self._root_with(NO_OPTIONS)

    def tables(self) -> Lake:
        """The tables under the root. Raises `ValueError` naming ATTNINF_ROOT where the root is neither kind."""
        return Lake(self.storage_root())

    def storage_root(self) -> Root:
        return self._root_with(self.storage_options() if self.root.startswith("s3://") else NO_OPTIONS)

    def _root_with(self, storage_options: StorageOptions) -> Root:
        try:
            return Root.at(self.root, storage_options)
        except ValueError as error:
            raise ValueError(f"ATTNINF_ROOT={self.root!r}: {error}") from error

    def storage_options(self) -> StorageOptions:
        """What gives the connection settings for `s3://` paths, through the S3 resource's own chain.

        It is asked whenever something is opened, and temporary credentials are renewed before they expire: for all at
        once, so that what was opened with them may stay open.
        """
        return connection_to(self.s3, os.environ)

    def model_cache(self) -> Path:
        """Where pinned models of an S3 root are kept locally once downloaded."""
        return Path(os.path.expanduser("~/.cache/attninf_assets"))

    def budget_memory(self) -> Path:
        """Where this machine remembers how many tokens its devices hold at once, model by model."""
        return self.model_cache() / "token_budgets"


class CorpusResource(dg.ConfigurableResource):
    """The corpus file: which domains there are and where their shards lie."""

    file: str = Field(description="Path of the corpus YAML, or 'sample' for the sample corpus (ATTNINF_CORPUS).")
    sample_dir: str = Field(description="Where the sample corpus is gathered.")
    lake: dg.ResourceDependency[LakeResource]

    def config(self) -> CorpusConfig:
        """The corpus file, validated whole; the sample corpus is gathered first where it is asked for."""
        path = gather_sample_corpus(Path(self.sample_dir) / "corpus") if self.file == SAMPLE else self.file
        return load_corpus_config(path, storage_options=self._options(str(path)))

    def shards(self) -> list[Shard]:
        """Every shard the corpus file's globs match now."""
        return discover_shards(self.config(), storage_options=self.source_options())

    def shard(self, key: str) -> Shard:
        """The shard with this partition key. Raises `ValueError` where its file is gone."""
        return self.landed_shard(key).shard

    def landed_shards(self) -> list[LandedShard]:
        """`shards`, each with its file's size and time."""
        return landed_shards(self.config(), storage_options=self.source_options())

    def landed_shard(self, key: str) -> LandedShard:
        """`shard`, with its file's size and time."""
        return find_landed_shard(self.config(), key, storage_options=self.source_options())

    def source_options(self) -> StorageOptions:
        """Storage options for the sources: resolved only where some domain lies on S3."""
        return self._options(*(source.root for source in self.config().domains))

    def _options(self, *locations: str) -> StorageOptions:
        return self.lake.storage_options() if any(x.startswith("s3://") for x in locations) else NO_OPTIONS


class SelectorResource(dg.ConfigurableResource):
    """Where the selector's model comes from."""

    source: str = Field(
        description="A Hugging Face directory, a .gguf file, org/name@revision, or 'sample' (ATTNINF_SELECTOR)."
    )
    sample_dir: str = Field(description="Where the sample model is fetched to.")

    @property
    def is_sample(self) -> bool:
        """Whether this is the small sample model, whose probes are fewer and shorter by default."""
        return self.source == SAMPLE

    @property
    def plan(self) -> ProbePlan:
        """How many probes and how much evidence where a run does not say."""
        return SAMPLE_PLAN if self.is_sample else PAPER_PLAN

    def resolved(self) -> str:
        """The source as a path or hub id; the sample model is fetched first where it is asked for."""
        return str(fetch_sample_model(Path(self.sample_dir) / "model")) if self.is_sample else self.source


class CostResource(dg.ConfigurableResource):
    """What device time costs, and what a rescoring may cost without being confirmed."""

    price_per_device_hour: float = Field(description="Money for an hour of one device (ATTNINF_DEVICE_HOUR_PRICE).")
    spending_limit: float | None = Field(description="Money; None where there is no limit (ATTNINF_BUDGET).")

    def refusal(self, estimate: Estimate) -> str | None:
        """Why the estimate needs to be confirmed, None where it is within the spending limit."""
        if self.spending_limit is None:
            return None
        if estimate.money is None:
            return "what scoring costs was never measured here: give tokens_per_second and bytes_per_token"
        if estimate.money <= self.spending_limit:
            return None
        would_cost = f"scoring {estimate.documents:,} documents would cost {estimate.money:,.2f}"
        return f"{would_cost}, above the spending limit of {self.spending_limit:,.2f}"

    def require_approval(self, root: Root, selector_fingerprint: str) -> None:
        """Raises `ValueError` where there is a spending limit and the selector's last preview was not approved."""
        if self.spending_limit is None:
            return
        approval = read_approval(root, selector_fingerprint)
        if approval is None:
            raise ValueError("ATTNINF_BUDGET is set: materialize rescoring_preview for the selector in use first")
        if not approval.approved:
            raise ValueError(
                f"{self.refusal(approval.estimate) or 'the rescoring was not approved'}; "
                "materialize rescoring_preview with confirm: true to go ahead"
            )

"""The Dagster resources: storage, the corpus, the source of the selector's model, and the cost of device time."""

import os
from pathlib import Path

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.orchestration.connections.s3_credentials import connection_to
from attninf_assets.sample.corpus import gather_sample_corpus
from attninf_assets.sample.model import fetch_sample_model
from attninf_assets.scores.cost import Estimate, read_approval
from attninf_assets.selection.selections_file import Selections, read_selections
from attninf_assets.selector.probe_plan import PlanName, plan_for
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, options_now
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

SAMPLE = "sample"


class LakeResource(dg.ConfigurableResource):
    """The storage root, a local path or `s3://bucket/prefix`, under which everything is stored."""

    root: str = Field(description="Local path or s3://bucket/prefix (ATTNINF_ROOT).")
    s3: dg.ResourceDependency[S3Resource]

    def tables(self) -> Lake:
        """The tables under the root."""
        return Lake(self.storage_root())

    def storage_root(self) -> Root:
        """The root itself. Raises `ValueError` for an address that is neither a local path nor s3://."""
        return Root.at(self.root, self.storage_options() if self.root.startswith("s3://") else NO_OPTIONS)

    def storage_options(self) -> StorageOptions:
        """A function that returns the connection settings for `s3://` paths, through the S3 resource's own chain.

        It is called whenever something is opened, and temporary credentials are renewed before they expire: for all at
        once, so that what was opened with them may stay open.
        """
        return connection_to(self.s3, os.environ)

    def model_cache(self) -> Path:
        """The local directory into which the pinned models of an S3 root are downloaded."""
        return Path(os.path.expanduser("~/.cache/attninf_assets"))

    def engine_memory(self) -> Path:
        """The local directory that remembers, model by model, how many tokens this machine's devices hold at once and
        which self-checks passed."""
        return self.model_cache()


class CorpusResource(dg.ConfigurableResource):
    """The corpus file, which says what domains there are and where their shards lie.

    Dagster makes a new resource of this one for every run and every tick of a sensor, so each sees the file as it is.
    """

    file: str = Field(description="Path of the corpus YAML, or 'sample' for the sample corpus (ATTNINF_CORPUS).")
    sample_dir: str = Field(description="Where the sample corpus is gathered.")
    lake: dg.ResourceDependency[LakeResource]
    _opened: Corpus | None = PrivateAttr(default=None)

    def open(self) -> Corpus:
        """The corpus, its file read and validated whole the first time this is asked for.

        The sample corpus is gathered first where it is meant. Storage options are resolved only for what lies on S3.
        """
        if self._opened is None:
            path = str(gather_sample_corpus(Path(self.sample_dir) / "corpus") if self.file == SAMPLE else self.file)
            config = load_corpus_config(path, storage_options=self._options(path))
            roots = [glob.root for source in config.domains.values() for glob in source.files]
            self._opened = Corpus(config, storage_options=lambda: options_now(self._options(*roots)))
        return self._opened

    def _options(self, *locations: str) -> StorageOptions:
        return self.lake.storage_options() if any(x.startswith("s3://") for x in locations) else NO_OPTIONS


class SelectionsResource(dg.ConfigurableResource):
    """The selections file, which says what selections there are; without one there is the paper's, `paper`."""

    file: str | None = Field(
        description="Path of the selections YAML; None for the paper's alone (ATTNINF_SELECTIONS)."
    )
    lake: dg.ResourceDependency[LakeResource]

    def read(self) -> Selections:
        """The selections as the file defines them now. Raises `ValueError` as `read_selections` does."""
        on_s3 = self.file is not None and self.file.startswith("s3://")
        return read_selections(self.file, storage_options=self.lake.storage_options() if on_s3 else NO_OPTIONS)


class SelectorResource(dg.ConfigurableResource):
    """The source of the selector's model: a directory, a GGUF file, a revision on the hub, or the sample model."""

    source: str = Field(
        description="A Hugging Face directory, a .gguf file, org/name@revision, or 'sample' (ATTNINF_SELECTOR)."
    )
    sample_dir: str = Field(description="Where the sample model is fetched to.")

    @property
    def is_sample(self) -> bool:
        """Whether this is the small sample model, whose probes are fewer and shorter by default."""
        return self.source == SAMPLE

    def default_plan(self, device: str) -> PlanName:
        """The sizes of head detection where none were asked for: small for the sample, else by the type of device."""
        return "small" if self.is_sample else plan_for(device)

    def resolved(self) -> str:
        """The source as a path or hub id; the sample model is fetched first where it is asked for."""
        return str(fetch_sample_model(Path(self.sample_dir) / "model")) if self.is_sample else self.source


class CostResource(dg.ConfigurableResource):
    """The price of device time, and the most that a rescoring may cost without being confirmed."""

    price_per_device_hour: float = Field(description="Money for an hour of one device (ATTNINF_DEVICE_HOUR_PRICE).")
    spending_limit: float | None = Field(description="Money; None where there is no limit (ATTNINF_BUDGET).")

    def refusal(self, estimate: Estimate) -> str | None:
        """The reason why the estimate needs to be confirmed; None where it is within the spending limit."""
        if self.spending_limit is None:
            return None
        if estimate.money is None:
            return "what scoring costs was never measured here: give tokens_per_second and bytes_per_token"
        if estimate.money <= self.spending_limit:
            return None
        would_cost = f"scoring {estimate.documents:,} documents would cost {estimate.money:,.2f}"
        return f"{would_cost}, above the spending limit of {self.spending_limit:,.2f}"

    def require_approval(self, root: Root, selector_fingerprint: str) -> None:
        """Raise `ValueError` where there is a spending limit and the selector's last preview was not approved."""
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

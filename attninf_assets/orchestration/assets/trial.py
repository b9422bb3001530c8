"""The trial of a new selector, as a step of `retrieval_heads`: remembered, or made on the corpus's files."""

import importlib.metadata
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import dagster as dg

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.printable import printable
from attninf_assets.corpus.samples import sample_texts
from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.scores.trial import Trial, read_trial, try_selector
from attninf_assets.store.root import Root
from attninf_assets.store.uris import redacted

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine

_SHARDS, _DOCUMENTS = 4, 16  # read of each domain, of each shard


def tried(
    log: dg.DagsterLogManager,
    root: Root,
    selector: Selector,
    corpus: CorpusResource,
    *,
    load: Callable[[], "Engine"],
    device: str,
) -> Trial | None:
    """The selector's trial, made unless it was made on this device by this torch for every domain of the corpus.

    None, which is logged with the reason, where the corpus cannot be read: a selector is no worse for it.
    """
    torch_version = importlib.metadata.version("torch")
    known = read_trial(root, selector.fingerprint)

    def pass_over(shard: Shard, error: ValueError) -> None:
        log.warning(f"{shard.key} is left out of the trial: {printable(redacted(error))}")

    try:
        sources = corpus.open()
        shards = sources.shards()
        domains = {shard.domain for shard in shards}
        if known is not None and known.holds_for(device=device, torch_version=torch_version, domains=domains):
            return known
        texts = sample_texts(
            shards,
            seed=0,
            shards_per_domain=_SHARDS,
            documents_per_shard=_DOCUMENTS,
            storage_options=sources.storage_options,
            pass_over=pass_over,
        )
    except (ValueError, OSError) as error:
        log.warning(f"how fast the selector scores is not known yet: {printable(redacted(error))}")
        return None
    by_domain = {domain: list(chain.from_iterable(of_shards)) for domain, of_shards in texts.items()}
    trial = try_selector(load(), selector, by_domain, device=device, torch_version=torch_version)
    if trial is None:
        log.warning("how fast the selector scores is not known yet: the corpus's files have no documents to try it on")
        return None
    trial.publish(root)
    log.info(f"trial: {trial}")
    return trial

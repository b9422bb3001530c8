"""Everything under the root that is ours, compared with what was written."""

from attninf_assets.mixture.verification import damaged_corpus_files
from attninf_assets.scores.cost import damaged_previews
from attninf_assets.scores.staging import damaged_chunks
from attninf_assets.selector.scrub import damaged_selector_files
from attninf_assets.store.damage import Damage
from attninf_assets.store.scrub import scrub
from attninf_assets.store.tables import Lake

__all__ = ["find_damage"]


def find_damage(lake: Lake, *, thorough: bool) -> list[Damage]:
    """Whatever is damaged of tables, pinned models, records, staged scores and training corpus.

    Every file is read once, but for those of the training corpus, whose sizes are compared: they are read where it is
    to be `thorough`. What is sound of the tables is recorded, see `scrub`. Raises OSError where the storage does not
    answer.
    """
    root = lake.root
    return [
        *scrub(lake),
        *damaged_selector_files(root),
        *damaged_chunks(root),
        *damaged_previews(root),
        *damaged_corpus_files(root, thorough=thorough),
    ]

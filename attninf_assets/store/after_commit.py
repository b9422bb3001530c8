"""What follows a commit, before anybody may rely on it: it is pushed to the disk, copied, and its files are hashed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from attninf_assets.store.durability import make_durable
from attninf_assets.store.log_copies import copy_commits
from attninf_assets.store.root import Root

__all__ = ["settle"]


def settle(root: Root, name: str, table_id: str, versions: Sequence[int]) -> None:
    """Return when those commits of a table would outlive a power cut, and what they added is recorded.

    Both read the same files, one to wait for the disk and the other to hash, so they are done at the same time. Raises
    as `Commit.read` does.
    """
    if not root.is_local:
        return
    with ThreadPoolExecutor(1) as pool:
        durable = pool.submit(make_durable, root, name, versions)
        copy_commits(root, name, table_id, versions)
        durable.result()

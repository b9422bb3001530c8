"""Where something is done to be killed: a root, what its processes have beside it, and the material they work on."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow.fs as pafs

from attninf_assets.influence.runtime import devices
from attninf_assets.orchestration.connections.resources import (
    CorpusResource,
    CostResource,
    LakeResource,
    SelectionsResource,
    SelectorResource,
)
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

__all__ = ["Resources", "Scene"]


@dataclass(frozen=True)
class Resources:
    """The project's own resources over a scene."""

    lake: LakeResource
    corpus: CorpusResource
    selector: SelectorResource
    cost: CostResource
    selections: SelectionsResource


@dataclass(frozen=True)
class Scene:
    """A root and the processes that work on it."""

    root: Root
    place: Path  # what they have beside the root
    material: Path  # sources and models, see `material.py`; nobody changes them

    @property
    def lake(self) -> Lake:
        return Lake(self.root)

    @property
    def temporary(self) -> Path:
        """Their TMPDIR."""
        return self.place / "temporary"

    @property
    def log(self) -> Path:
        """What they said."""
        return self.place / "log"

    def files(self) -> list[str]:
        """Every file under the root."""
        filesystem, base = self.root.filesystem()
        found = filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
        return [info.path.removeprefix(f"{base}/") for info in found if info.type == pafs.FileType.File]

    def copied(self, name: str) -> "Scene":
        """The same again, in the state it is in now."""
        place = self.place.with_name(name)
        place.mkdir()
        shutil.copytree(self.temporary, place / "temporary")
        shutil.copytree(self.place / "home", place / "home")
        if self.root.is_local:
            root = Root.at(place / "root")
            if Path(self.root.uri).exists():
                shutil.copytree(self.root.uri, root.uri)
        else:
            root = Root.at(f"{self.root.uri.rpartition('/')[0]}/{name}", self.root.storage_options)
            filesystem, path = self.root.filesystem()
            pafs.copy_files(path, root.filesystem()[1], source_filesystem=filesystem, destination_filesystem=filesystem)
        return Scene(root, place, self.material)

    def stripped(self, *needed: str) -> None:
        """Take away what is under the root but for these tables, files and directories."""
        of_tables = [f"{top}/{name}" for name in needed for top in ("tables", "checksums")]
        for path in self.files():
            kept = (f"{name}{end}" for name in [*needed, *of_tables, "maintenance"] for end in ("/", ".json"))
            if path not in needed and not path.startswith(tuple(kept)):
                self.root.delete(path)

    def removed(self) -> None:
        """Take away all but the material."""
        if not self.root.is_local:
            filesystem, path = self.root.filesystem()
            filesystem.delete_dir_contents(path, missing_dir_ok=True)
        shutil.rmtree(self.place)

    def entered(self) -> None:
        """Make this process one of the scene's, for good."""
        for directory in (self.temporary, self.place / "home", self.place / "dagster"):
            directory.mkdir(parents=True, exist_ok=True)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {
            "ATTNINF_ROOT": self.root.uri,
            "ATTNINF_CORPUS": str(self.material / "corpus.yaml"),
            "ATTNINF_SELECTIONS": str(self.material / "selections.yaml"),
            "ATTNINF_SELECTOR": str(self.material / "model"),
            "HOME": str(self.place / "home"),
            "TMPDIR": str(self.temporary),
        }
        if not self.root.is_local:
            options = self.root.storage_options
            names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            os.environ |= {name: options[name] for name in names} | {"AWS_DEFAULT_REGION": options["AWS_REGION"]}
        tempfile.tempdir = None
        devices.LOCKS = self.place / "devices"

    def resources(self) -> Resources:
        """The resources as the environment of an `entered` process says."""
        found = resources_from(read_settings())
        lake, corpus, selector, cost, selections = (
            found[name] for name in ("lake", "corpus", "selector", "cost", "selections")
        )
        assert isinstance(lake, LakeResource)
        assert isinstance(corpus, CorpusResource)
        assert isinstance(selector, SelectorResource)
        assert isinstance(cost, CostResource)
        assert isinstance(selections, SelectionsResource)
        return Resources(lake, corpus, selector, cost, selections)

    def instance(self) -> dg.DagsterInstance:
        """A Dagster instance whose own temporary files lie apart from ours."""
        ours, tempfile.tempdir = tempfile.tempdir, str(self.place / "dagster")
        try:
            return dg.DagsterInstance.ephemeral()
        finally:
            tempfile.tempdir = ours

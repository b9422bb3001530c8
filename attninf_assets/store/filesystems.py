"""Where files lie: a local disk, S3 or the Hugging Face hub, all spoken to through `pyarrow.fs`."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs

from attninf_assets.store.local_glob import local_files, matches
from attninf_assets.store.uris import redacted, require_no_secret

__all__ = [
    "NO_OPTIONS",
    "FoundFile",
    "StorageOptions",
    "files_at",
    "filesystem_for",
    "found_files",
    "join",
    "matches",
    "options_now",
    "split_glob",
    "standing_files",
]

# A connection's settings and secrets, or what gives the current ones, where credentials are renewed from time to time.
StorageOptions = Mapping[str, str] | Callable[[], Mapping[str, str]]

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
_RETRIES = "9"  # of a request while S3 is busy or away, with growing pauses between, 13 seconds in all
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, order=True)
class FoundFile:
    """A file below a folder, the same whether it was listed or looked up by its path."""

    path: str  # relative to the folder
    n_bytes: int
    modified_ns: int  # since 1970, on S3 in whole seconds; 0 where the storage does not say


def options_now(storage_options: StorageOptions) -> Mapping[str, str]:
    """The storage options to use now; what gives them is asked anew, so that credentials are fresh."""
    return storage_options() if callable(storage_options) else storage_options


def filesystem_for(uri: str, storage_options: StorageOptions = NO_OPTIONS) -> tuple[pa.fs.FileSystem, str]:
    """The filesystem that holds `uri`, and the path of `uri` on it.

    `uri` is a local path, `s3://bucket/key` or `hf://datasets/org/name/file`. For S3, the filesystem is one for the
    options as they are now, so ask for it when something is to be opened. `storage_options` may hold
    AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ALLOW_HTTP; what
    is absent is left to the cloud's own chain (environment, profile, instance role). `max_retries` bounds the
    retries of a request. Other keys are the table store's.

    Raises ValueError for another scheme, for credentials in `uri`, and for an http endpoint without AWS_ALLOW_HTTP.
    """
    require_no_secret(uri)
    scheme, separator, path = uri.partition("://")
    if not separator:
        return pa.fs.LocalFileSystem(), os.path.abspath(uri)
    if scheme == "s3":
        return _s3(tuple(sorted((options_now(storage_options) or _of_environment()).items()))), path
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(HfFileSystem())), path
    raise ValueError(f"{uri}: scheme {scheme!r} is not supported; give a local path, s3://… or hf://…")


def _of_environment() -> Mapping[str, str]:
    """What the environment says of the endpoint, for which Arrow has no eyes; the rest it finds by itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return NO_OPTIONS
    return {"AWS_ENDPOINT_URL": endpoint} | ({"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {})


@lru_cache(maxsize=8)  # one keeps its connections
def _s3(items: tuple[tuple[str, str], ...]) -> pa.fs.FileSystem:
    options = dict(items)
    arguments: dict[str, str] = {}
    if endpoint := options.get("AWS_ENDPOINT_URL"):
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(f"AWS_ENDPOINT_URL: {redacted(endpoint)!r} is not an http:// or https:// address")
        if parts.scheme == "http" and options.get("AWS_ALLOW_HTTP", "").lower() not in {"true", "1"}:
            raise ValueError(f"AWS_ENDPOINT_URL: {redacted(endpoint)!r} is plain http, which needs AWS_ALLOW_HTTP=true")
        arguments |= {"scheme": parts.scheme, "endpoint_override": parts.netloc + parts.path.rstrip("/")}
    for option, argument in (
        ("AWS_ACCESS_KEY_ID", "access_key"),
        ("AWS_SECRET_ACCESS_KEY", "secret_key"),
        ("AWS_SESSION_TOKEN", "session_token"),
        ("AWS_REGION", "region"),
    ):
        if value := options.get(option):
            arguments[argument] = value
    # Not the standard strategy: it draws on a quota that Arrow never fills up again, and after a hundred retries in the
    # life of a process it makes none. What this one calls attempts are retries.
    patience = pa.fs.AwsDefaultS3RetryStrategy(max_attempts=int(options.get("max_retries", _RETRIES)))
    return pa.fs.S3FileSystem(**arguments, retry_strategy=patience)


def join(root: str, path: str) -> str:
    """`path` below the folder `root`, a local path or a URI."""
    return f"{root.rstrip('/')}/{path}"


def split_glob(pattern: str) -> tuple[str, str]:
    """Cut a glob into its fixed prefix (a folder, no wildcard in it) and the rest, which is never empty.

    >>> split_glob("s3://bucket/web/2024-*/**/*.parquet")
    ('s3://bucket/web', '2024-*/**/*.parquet')
    """
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts) - 1)
    prefix = "/".join(parts[:fixed])
    return prefix or ("/" if pattern.startswith("/") else ""), "/".join(parts[fixed:])


def found_files(root: str, pattern: str, *, storage_options: StorageOptions = NO_OPTIONS) -> list[FoundFile]:
    """The files below the folder `root` whose path relative to it matches `pattern`, sorted by that path.

    `*`, `?` and `[…]` stay within one name; `**` as a whole name crosses any number of folders, none included; at the
    end it is every file below. As in a shell, a wildcard does not match a name's leading dot. A folder that does not
    exist holds no files. On a local disk links are followed, and a folder that several ways lead to alike counts once.
    """
    if "://" not in root:
        found_here = local_files(os.path.abspath(root), pattern)
        return sorted(FoundFile(path, status.st_size, status.st_mtime_ns) for path, status in found_here)
    filesystem, folder = filesystem_for(root, storage_options)
    selector = pa.fs.FileSelector(folder, recursive="/" in pattern or "**" in pattern, allow_not_found=True)
    found = _files_among(filesystem.get_file_info(selector), root, folder)
    return sorted(file for file in found if matches(file.path, pattern))


def standing_files(root: str, paths: Sequence[str], *, storage_options: StorageOptions = NO_OPTIONS) -> list[FoundFile]:
    """Those of the files `paths` below the folder `root` that are there, looked up one by one: nothing is listed."""
    filesystem, folder = filesystem_for(root, storage_options)
    return _files_among(filesystem.get_file_info([join(folder, path) for path in paths]), root, folder)


def files_at(uris: Sequence[str], *, storage_options: StorageOptions = NO_OPTIONS) -> dict[str, FoundFile]:
    """Those of the files that are there, each by its URI, looked up one by one; paths are as on the storage."""
    found: dict[str, FoundFile] = {}
    for scheme in {uri.partition("://")[0] if "://" in uri else "" for uri in uris}:
        of_scheme = [uri for uri in uris if (uri.partition("://")[0] if "://" in uri else "") == scheme]
        located = {filesystem_for(uri, storage_options)[1]: uri for uri in of_scheme}
        filesystem, _ = filesystem_for(of_scheme[0], storage_options)
        there = _files_among(filesystem.get_file_info(list(located)), of_scheme[0])
        found |= {located[file.path]: file for file in there}
    return found


def _files_among(infos: Iterable[pa.fs.FileInfo], root: str, folder: str | None = None) -> list[FoundFile]:
    """Of what Arrow says, the files. Some S3 servers list times to the millisecond; of one object all say seconds."""
    unit = 1_000_000_000 if root.startswith("s3://") else 1
    prefix = "" if folder is None else folder.rstrip("/") + "/"
    return [
        FoundFile(info.path.removeprefix(prefix), info.size or 0, (info.mtime_ns or 0) // unit * unit)
        for info in infos
        if info.type == pa.fs.FileType.File
    ]

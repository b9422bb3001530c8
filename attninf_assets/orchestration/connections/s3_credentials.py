"""Connection settings of S3 that renew their credentials, shared by all that uses the same ones in this process."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import boto3.session
from dagster_aws.s3 import S3Resource

__all__ = ["connection_to"]

_MOST = 8  # connections that are kept
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}

_Current = Callable[[], Mapping[str, str]]
_lock = threading.Lock()
_kept: dict[object, _Current] = {}


def connection_to(s3: S3Resource, environment: Mapping[str, str]) -> _Current:
    """A function that returns the connection settings as they are now, credentials renewed where that is due.

    Resource and environment decide the chain of credentials; equal ones share one function. Where the chain gave no
    credentials, or the settings or the files that hold them have changed since, the chain is gone through anew.
    """
    settings = tuple((name, getattr(s3, name)) for name in type(s3).model_fields)
    variables = tuple(sorted(item for item in environment.items() if item[0].startswith("AWS_")))
    files = tuple(_state(environment.get(name, usual)) for name, usual in _FILES.items())
    key = (settings, variables, files)
    with _lock:
        current = _kept.get(key)
        if current is None:
            current, has_credentials = _connect(s3)
            if has_credentials:
                if len(_kept) == _MOST:
                    del _kept[next(iter(_kept))]
                _kept[key] = current
    return current


def _state(file: str) -> tuple[str, int, int] | None:
    path = Path(os.path.expanduser(file))
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_mtime_ns, stat.st_ino


def _connect(s3: S3Resource) -> tuple[_Current, bool]:
    session = boto3.session.Session(
        profile_name=s3.profile_name,
        aws_access_key_id=s3.aws_access_key_id,
        aws_secret_access_key=s3.aws_secret_access_key,
        aws_session_token=s3.aws_session_token,
        region_name=s3.region_name,
    )
    credentials = session.get_credentials()
    client = s3.get_client()
    connection = {"AWS_REGION": client.meta.region_name, "AWS_ENDPOINT_URL": client.meta.endpoint_url}
    if client.meta.endpoint_url.startswith("http://"):
        connection["AWS_ALLOW_HTTP"] = "true"

    def current() -> Mapping[str, str]:
        options = dict(connection)
        if credentials is not None:
            frozen = credentials.get_frozen_credentials()
            options |= {
                "AWS_ACCESS_KEY_ID": frozen.access_key,
                "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
                "AWS_SESSION_TOKEN": frozen.token,
            }
        return {name: value for name, value in options.items() if value}

    return current, credentials is not None

"""Whether an S3 store honours conditional writes, on which it rests that no two commits take the same version.

Asked once for each root and endpoint, before the first write to a table, and remembered under the root.
"""

import json
from typing import Any
from urllib.parse import urlsplit

from attninf_assets.store.root import Root

__all__ = ["MARKER", "require_conditional_writes"]

MARKER = "maintenance/conditional_writes.json"  # names the endpoint that was found to honour them
_ASKED = b"{}"
_HONOURED = {409, 412}  # the answers to a write on the condition that nothing is there, where something is
_NOT_HONOURED = {200, 501}

_known: set[tuple[str, str]] = set()


def require_conditional_writes(root: Root) -> None:
    """Return if the root is local, or its store refuses to write over an object when told `If-None-Match: *`.

    Raises ValueError naming root and endpoint where it does not refuse, and OSError where it cannot be asked.
    """
    if root.is_local:
        return
    endpoint = root.storage_options.get("AWS_ENDPOINT_URL", "")
    if (root.uri, endpoint) in _known:
        return
    found = json.dumps({"endpoint": endpoint}).encode()
    if _remembered(root) != found:
        if not _are_honoured(root):
            raise ValueError(
                f"{root.uri}: the store at {endpoint or 'AWS'} does not honour conditional writes (If-None-Match: *): "
                "runs would overwrite each other's commits unnoticed. Use a store that honours them, or a local path"
            )
        root.write_bytes(MARKER, found)
    _known.add((root.uri, endpoint))


def _remembered(root: Root) -> bytes | None:
    try:
        return root.read_bytes(MARKER)
    except FileNotFoundError:
        return None


def _are_honoured(root: Root) -> bool:
    """Whether the second of two writes is refused, each on the condition that the marker is not there.

    By boto3: neither Arrow nor delta-rs can be asked to write an object on that condition.
    """
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    options = root.storage_options
    session = boto3.session.Session(
        aws_access_key_id=options.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=options.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=options.get("AWS_SESSION_TOKEN"),
        region_name=options.get("AWS_REGION"),
    )
    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",  # by default it sends checksums that not every store knows
        retries={"total_max_attempts": 1 + int(options.get("max_retries", "6")), "mode": "standard"},
    )
    place = urlsplit(root.uri)
    key = f"{place.path}/{MARKER}".lstrip("/")
    try:
        client = session.client(
            "s3",
            endpoint_url=options.get("AWS_ENDPOINT_URL"),
            region_name=session.region_name or "us-east-1",
            config=config,
        )
        for _ in range(2):
            status = _status(client, Bucket=place.netloc, Key=key, Body=_ASKED, IfNoneMatch="*")
    except BotoCoreError as error:
        raise OSError(f"{root.uri}: no conditional write could be tried: {error}") from error
    if status not in _HONOURED | _NOT_HONOURED:
        raise OSError(f"{root.uri}: no conditional write could be tried (HTTP status {status})")
    return status in _HONOURED


def _status(client: Any, **write: Any) -> int:
    from botocore.exceptions import ClientError

    try:
        answer = client.put_object(**write)
    except ClientError as error:
        answer = error.response
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])

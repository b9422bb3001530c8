"""Secrets that people write into URIs: refused where a URI is taken, left out where one is shown."""

import re

__all__ = ["SecretInUriError", "redacted", "require_no_secret"]

_URI = re.compile(r"([A-Za-z][\w+.-]*)://([^\s'\"<>`]*[^\s'\"<>`:,;.)])")  # and not the sentence's marks after it
_HOST = re.compile(r"(\[[^\]]*\]|[^:@\[\]]*)(:\d*)?")  # and a port
_SECRET_QUERY = re.compile(
    r"[?&](?:[\w.-]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|auth)[\w.-]*|sig|key|pwd)=",
    re.IGNORECASE,
)
_VALUES_OF_QUERY = re.compile(r"([?&][\w.-]+=)[^&#]*")


class SecretInUriError(ValueError):
    """A URI with credentials in it. Says what is wrong, and nothing of the URI but its scheme."""


def require_no_secret(location: str) -> None:
    """Raise `SecretInUriError` for a URI with a name or password before its host, or with a token, key or signature in
    its query. Local paths pass."""
    scheme, is_uri, rest = location.partition("://")
    if not is_uri:
        return
    if not _names_only_a_host(scheme, _authority(rest)):
        where = "before its host"
    elif _SECRET_QUERY.search(rest):
        where = "in its query"
    else:
        return
    raise SecretInUriError(
        f"an address {scheme.strip()}://… with credentials {where}, which would end in logs and databases; leave them "
        "out, and give them in the environment or a profile (it is not shown here)"
    )


def redacted(text: object) -> str:
    """A text to show, such as a library's error, in which URIs have neither user nor password nor values of a query."""
    return _URI.sub(_redacted, str(text))


def _redacted(uri: re.Match[str]) -> str:
    scheme, rest = uri.groups()
    if not _names_only_a_host(scheme, _authority(rest)):
        rest = "***" + rest[rest.rindex("@") :] if "@" in rest else "***"  # secrets of AWS may hold slashes
    return f"{scheme}://" + _VALUES_OF_QUERY.sub(r"\1***", rest)


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _names_only_a_host(scheme: str, authority: str) -> bool:
    """Only http has ports here: a colon in a bucket's place ends a name, and a password follows."""
    if scheme.strip().lower() in ("http", "https"):
        return _HOST.fullmatch(authority) is not None
    return not {":", "@"} & set(authority)

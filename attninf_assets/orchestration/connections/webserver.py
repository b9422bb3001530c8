"""A client of a running Dagster webserver, over GraphQL.

It needs nothing of Dagster: `requests`, which Dagster itself depends on, posts JSON.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from attninf_assets.store.uris import require_no_secret

_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_ANSWER = 300.0  # the server goes through every partition for some of the questions


class WebserverError(RuntimeError):
    """A server that cannot be reached, is none of Dagster's, or could not answer; the message names its address."""


@dataclass(frozen=True)
class Webserver:
    """The webserver at an address such as http://127.0.0.1:3000."""

    url: str

    def __post_init__(self) -> None:
        require_no_secret(self.url)
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{self.url!r} is not the address of a server: give one like http://127.0.0.1:3000")
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """The `data` of the server's answer to a GraphQL document. Raises `WebserverError`."""
        try:
            response = requests.post(
                f"{self.url}/graphql",
                json={"query": document, "variables": variables},
                timeout=(_SECONDS_TO_CONNECT, _SECONDS_TO_ANSWER),
            )
        except requests.ConnectionError as error:
            raise WebserverError(f"{self.url}: no server answers there; start it with `make ui`") from error
        except requests.RequestException as error:
            raise WebserverError(f"{self.url}: {error}") from error
        try:
            answer = response.json()
        except ValueError as error:
            raise WebserverError(self._not_dagster(response)) from error
        match answer:
            case {"errors": [{"message": message}, *_]}:
                raise WebserverError(f"{self.url}: the server refused the question: {message}")
            case {"data": {} as data} if data:
                return data
        raise WebserverError(self._not_dagster(response))

    def _not_dagster(self, response: requests.Response) -> str:
        return f"{self.url}: is no Dagster webserver: /graphql answered with status {response.status_code} and no data"

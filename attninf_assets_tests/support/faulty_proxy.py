"""A proxy in front of an S3 server that answers 503, 409 or 412, or drops connections, when it is told to."""

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["FaultyProxy", "faulty_proxy"]

# Too busy; another conditional write under way; one that has won; the connection closed before the server hears of it;
# closed after the server has done as asked.
Fault = Literal["503", "409", "412", "unheard", "unanswered"]

_EXPIRED = b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>'
_ANSWERS = {
    "503": b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>',
    "409": b'<?xml version="1.0"?><Error><Code>ConditionalRequestConflict</Code><Message>Try again.</Message></Error>',
    "412": b'<?xml version="1.0"?><Error><Code>PreconditionFailed</Code><Message>It is there.</Message></Error>',
}


@dataclass
class FaultyProxy:
    """`fault` sees each request's method, path and number, and says what goes wrong with it."""

    options: Mapping[str, str]  # storage options that lead through the proxy
    fault: Callable[[str, str, int], Fault | None] = lambda method, path, number: None
    rewritten: Callable[[bytes], bytes] = lambda content: content  # the server's answers, on their way
    expired: set[str] = field(default_factory=set)  # access keys that are refused
    requests: list[tuple[str, str, Fault | None]] = field(default_factory=list)

    def faults(self) -> int:
        return sum(fault is not None for _, _, fault in self.requests)


@contextmanager
def faulty_proxy(options: Mapping[str, str]) -> Iterator[FaultyProxy]:
    """A proxy on a free loopback port in front of the server that `options` lead to."""
    server = urlsplit(options["AWS_ENDPOINT_URL"])
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self._body()
            with lock:
                fault = proxy.fault(self.command, self.path, len(proxy.requests))
                proxy.requests.append((self.command, self.path, fault))
            if any(f"Credential={key}/" in self.headers.get("Authorization", "") for key in proxy.expired):
                self._answer(403, [("Content-Type", "application/xml")], _EXPIRED)
                return
            if fault in _ANSWERS:
                self._answer(int(fault), [("Content-Type", "application/xml")], _ANSWERS[fault])
                return
            self.close_connection = fault is not None
            if fault == "unheard":
                return
            upstream = http.client.HTTPConnection(server.hostname or "", server.port, timeout=30)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)  # the host as it was: it is signed
            upstream.endheaders(body)
            response = upstream.getresponse()
            content = proxy.rewritten(response.read())
            headers = response.getheaders()
            upstream.close()
            if fault is None:
                self._answer(response.status, headers, content)

        def _body(self) -> bytes:
            """The body as it comes, chunk sizes included where it comes in chunks."""
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = [self.rfile.readline()]
            while size := int(pieces[-1].split(b";")[0], 16):
                pieces += [self.rfile.read(size + 2), self.rfile.readline()]
            while pieces[-1] != b"\r\n":
                pieces.append(self.rfile.readline())
            return b"".join(pieces)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in headers}.get("content-length", str(len(content)))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        proxy = FaultyProxy({**options, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.server_port}"})
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown()
            thread.join()

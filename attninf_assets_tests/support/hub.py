"""A loopback server that answers what `huggingface_hub` asks when it downloads a snapshot."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "c" * 40


@contextmanager
def hub_of(directory: Path, *, repo: str, revision: str) -> Iterator[tuple[str, list[str]]]:
    """(endpoint, files asked for) of a hub that has one repository, the files of `directory`, at one revision."""
    asked: list[str] = []
    files = sorted(path.name for path in directory.iterdir())

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            name = path.removeprefix(f"/{repo}/resolve/{COMMIT}/")
            if path == f"/api/models/{repo}/revision/{revision}":
                content = json.dumps({"id": repo, "sha": COMMIT}).encode()
            elif path == f"/api/models/{repo}/tree/{COMMIT}":
                sizes = {file: (directory / file).stat().st_size for file in files}
                tree = [{"type": "file", "path": file, "size": sizes[file], "oid": "0" * 40} for file in files]
                content = json.dumps(tree).encode()
            elif name in files:
                content = (directory / name).read_bytes()
                asked.append(name)
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()

"""A headless Chromium, driven over its own debugging protocol: go to a page, wait for what it says, click."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1600,1200",
    "--remote-debugging-port=0",
)
# The first visible element whose text is one of these, and the innermost of its kind.
_FIND = """(texts => { const found = [...document.querySelectorAll('button, a, [role=button], label, div, span')]
  .filter(e => texts.includes(e.innerText?.trim()) && e.getClientRects().length);
  return found.find(e => !found.some(other => other !== e && e.contains(other))); })"""


def find_chromium() -> str | None:
    """Where the browser is installed, if it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._sent = socket, 0
        self.requested: list[str] = []  # addresses, from `watch_requests` on

    def watch_requests(self) -> None:
        """From now on remember every address that the page asks for something."""
        self._call("Network.enable")

    def go(self, url: str) -> None:
        """Open an address; `wait_for_text` tells when it is there."""
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.evaluate("document.body?.innerText ?? ''"))

    def wait_for_text(self, *texts: str) -> None:
        """Wait until the page shows all of these."""
        self.wait_for(f"{json.dumps(texts)}.every(text => document.body?.innerText.includes(text))", str(texts))

    def click(self, *texts: str) -> None:
        """Wait for an element with exactly one of these texts and click in its middle with the mouse."""
        found = f"(() => {{ const e = {_FIND}({json.dumps(texts)}); if (!e || e.closest('[disabled]')) return null;"
        found += " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
        found += " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        before, at = None, self.wait_for(found, f"something to click that says {texts}")
        while at != before:  # dialogs slide in
            time.sleep(0.3)
            before, at = at, self.wait_for(found, f"{texts} to stay")
        x, y = at
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def wait_for(self, expression: str, what: str, *, seconds: float = 90) -> Any:
        """The first true value of a JavaScript expression; fails with what the page says instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.2)
        raise AssertionError(f"waited {seconds:.0f} s for {what}; the page says: {self.text()[:3000]}")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return dict(answer["result"])


@contextlib.contextmanager
def open_page(profile: Path) -> Iterator[Page]:
    """A tab of a fresh browser, which is ended afterwards."""
    chromium = find_chromium()
    assert chromium is not None
    with subprocess.Popen(
        [chromium, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            with connect(_tab(profile), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.kill()


def _tab(profile: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            port = int((profile / "DevToolsActivePort").read_text().split()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as response:
                return str(next(tab["webSocketDebuggerUrl"] for tab in json.load(response) if tab["type"] == "page"))
        time.sleep(0.1)
    raise AssertionError("chromium did not open a page within 60 s")

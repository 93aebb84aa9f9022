"""A real S3 server on loopback: SeaweedFS, a process of the tests."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

WEED = Path(sys.executable).with_name("weed")
BUCKET = "bcw"
KEY, SECRET = "all-may", "the secret of all-may"
READER, READERS_SECRET = "reads-only", "the secret of reads-only"
IDENTITIES = {
    "identities": [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, key, secret, actions in (
            ("all", KEY, SECRET, ["Admin"]),
            ("reader", READER, READERS_SECRET, [f"Read:{BUCKET}", f"List:{BUCKET}"]),
        )
    ]
}
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]
SWITCHED_OFF = ("webdav", "admin.ui", "s3.autoCreateBucket", "master.telemetry")
STARTING = 60  # seconds


@dataclass
class Seaweed:
    """A server that can be killed and started again with what it has stored."""

    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs: the standard variables."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process and its children use the server."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def start(self) -> None:
        """Return when the server is up."""
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps(IDENTITIES))
        options = [f"-{name}={port}" for name, port in self.ports.items()]
        options += [f"-{name}=false" for name in SWITCHED_OFF]
        options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}", f"-bucket={BUCKET}"]
        options += [f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([WEED, "mini", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTING
        endpoint = self.environment["AWS_ENDPOINT_URL"]
        client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET)
        while not _is_up(client):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"SeaweedFS did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server as a crash does."""
        if self.process:  # otherwise it did not even start, which is an error already
            self.process.kill()
            self.process.wait()


def _is_up(client: Any) -> bool:
    """Say whether something can be stored and read."""
    try:
        client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
        client.get_object(Bucket=BUCKET, Key="probe")["Body"].read()
    except (BotoCoreError, ClientError):
        return False
    return True


@contextmanager
def run_server(folder: Path) -> Iterator[Seaweed]:
    """Run a server that stores in `folder`, on ports that are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        ports = {name: listener.getsockname()[1] for name, listener in zip(PORTS, sockets, strict=True)}
    folder.mkdir()
    server = Seaweed(folder, ports)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)

"""A real S3 server on loopback: SeaweedFS, a process of the tests."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from bcw_assets_tests import servers

WEED = Path(sys.executable).with_name("weed")
BUCKET = "bcw"
KEY, SECRET = "all-may", "the secret of all-may"
READER, READERS_SECRET = "reads-only", "the secret of reads-only"
ACTIONS = {(KEY, SECRET): ["Admin"], (READER, READERS_SECRET): [f"Read:{BUCKET}", f"List:{BUCKET}"]}
IDENTITIES = [
    {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
    for (key, secret), actions in ACTIONS.items()
]
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]
SWITCHED_OFF = ("webdav", "admin.ui", "s3.autoCreateBucket", "master.telemetry")


@dataclass
class Seaweed:
    """A server that can be killed and started again with what it has stored."""

    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(PORTS, servers.find_ports(len(PORTS)), strict=True)))
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs: the standard variables."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process and its children use the server."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def start(self) -> None:
        """Return when something can be stored."""
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps({"identities": IDENTITIES}))
        options = {**self.ports, **dict.fromkeys(SWITCHED_OFF, "false"), "ip": "127.0.0.1", "ip.bind": "127.0.0.1"}
        options |= {"dir": self.folder, "bucket": BUCKET, "s3.config": identities}
        options |= {"s3.port.iceberg": 0, "s3.port.lance": 0}
        command = [str(WEED), "mini", *(f"-{name}={value}" for name, value in options.items())]
        client = boto3.client("s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET)

        def store() -> None:
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
            client.get_object(Bucket=BUCKET, Key="probe")["Body"].read()

        self.running.enter_context(servers.run_server(self.folder / "log", command, servers.clean(), store))

    def kill(self) -> None:
        """End the server as a crash does."""
        self.running.close()


@contextmanager
def run_server(folder: Path) -> Iterator[Seaweed]:
    """Run a server that stores in `folder`, on ports that are free."""
    folder.mkdir()
    server = Seaweed(folder)
    with server.running:
        server.start()
        yield server
    shutil.rmtree(folder)

"""An S3 server on the loopback interface (moto), behind a proxy that fails and counts requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Fault = Callable[[str, str], "int | float | str | None"]
"""From method and path: an HTTP status, seconds to wait, ``cut`` to end in the middle, or None."""


@dataclass
class ObjectStore:
    """What passes the proxy."""

    port: int
    bucket: str = "photos"
    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda *_: None

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}")

    def put(self, key: str, content: bytes) -> None:
        self.client().put_object(Bucket=self.bucket, Key=key, Body=content)

    def contents(self, prefix: str = "") -> dict[str, bytes]:
        client = self.client()
        listed = client.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return {
            item["Key"]: client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
            for item in listed
        }

    def uploads(self) -> list[Any]:
        """Multipart uploads that are neither complete nor aborted."""
        found = self.client().list_multipart_uploads(Bucket=self.bucket)
        return list(found.get("Uploads", []))


def _handler(store: Callable[[], ObjectStore], behind: int) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass(self) -> None:
            body = self._body()
            store().requests.append((self.command, self.path))
            fault = store().fault(self.command, self.path)
            if isinstance(fault, float):
                time.sleep(fault)
            elif isinstance(fault, int):
                return self._answer(fault, {}, b"")
            server = HTTPConnection("127.0.0.1", behind)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
            server.close()
            self._answer(answer.status, dict(answer.getheaders()), content, cut=fault == "cut")
            return None

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", str(len(content)))
            self.send_header(
                "Content-Length", length if self.command == "HEAD" else str(len(content))
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

    return Proxy


@pytest.fixture(scope="session")
def _s3_port() -> Iterator[int]:
    pytest.importorskip("moto", reason="moto is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def object_store(_s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An empty bucket, with the variables by which AWS's libraries find its server."""
    import boto3

    from agsr.store import filesystems

    stores: list[ObjectStore] = []
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: stores[0], _s3_port))
    proxy.daemon_threads = True
    stores.append(ObjectStore(proxy.server_address[1]))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{stores[0].port}"),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "very-secret-key"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ):
        monkeypatch.setenv(name, value)
    direct = boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{_s3_port}")
    bucket = direct.Bucket(stores[0].bucket)
    bucket.create()
    yield stores[0]
    filesystems.forget_all()
    bucket.objects.all().delete()
    bucket.delete()
    proxy.shutdown()
    proxy.server_close()

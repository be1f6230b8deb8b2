from __future__ import annotations

import pytest

from agsr.engines.open import check_request
from agsr.engines.triton.address import Address
from agsr.errors import BackendRequestError


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, r"needs the address of a server: --url grpc"),
        ("127.0.0.1:8001", "not a Triton server's; expected one like"),
        ("ftp://host", "not a Triton server's"),
        ("grpc://host:x", "not an address"),
        ("grpc://host/path", "gRPC has no path"),
        ("http://me:secret@host", "has a user"),
        ("grpc://host?timeout=0", "timeout is '0'; expected seconds above 0"),
        ("grpc://host?timeout=inf", "expected seconds above 0"),
        ("grpc://host?retries=-1", "expected a number from 0 to 100"),
        ("grpc://host?requests=many", "expected a number from 1 to 64"),
        ("grpc://host?shm=no", "expected auto, on or off"),
        ("grpc://host?shm=on&shm=off", "expected once each of"),
        ("grpc://host?speed=9", "'speed'; expected once each of: timeout"),
    ],
)
def test_addresses_are_checked_before_anything_is_opened(url: str | None, reason: str) -> None:
    with pytest.raises(BackendRequestError, match=reason):
        check_request("triton", "psnr", url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host",
        "https://me:secret@host:port",
        "https://me:sec/secret@host",
        "ftp://me:secret@host",
        "me:secret@host:8001",
        "grpc://me:secret@host/path",
        "https://host?speed=9&key=secret@host",
    ],
)
def test_messages_omit_passwords(url: str) -> None:
    with pytest.raises(BackendRequestError) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)
    assert "host" in str(caught.value)


def test_an_address_belongs_to_triton_alone() -> None:
    with pytest.raises(BackendRequestError, match="--url does not belong to the backend 'ort'"):
        check_request("ort", "psnr", url="grpc://host")
    with pytest.raises(BackendRequestError, match=r"--device does not .*'triton'"):
        check_request("auto", "psnr", url="grpc://host", device="cuda:1")


def test_addresses_have_the_usual_ports_and_may_have_settings() -> None:
    address = Address.parse("http://[::1]/proxy/?timeout=1.5&retries=0&requests=9&shm=off")
    assert str(address) == "http://[::1]:8000/proxy"
    assert (address.timeout, address.retries, address.requests) == (1.5, 0, 9)
    assert (address.shared_memory, address.is_local, address.is_secure) == ("off", True, False)
    assert str(Address.parse("grpcs://Host")) == "grpcs://host:8001"

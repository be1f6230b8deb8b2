"""The server in front of another one, which computes."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import serving
from stubs import Repeat

from agsr.backend import Batch
from agsr.engines.triton.client import ServerAwayError
from agsr.pretrained import shipped_names
from agsr.serve.settings import ServeSettings

REMOTE = {"backend": "triton", "url": "grpc://10.0.0.7:8001"}


def test_only_named_models_of_a_remote_server_are_offered() -> None:
    assert set(ServeSettings(weights="gan").names) == set(shipped_names())
    remote = ServeSettings(weights="gan", running=REMOTE)
    assert remote.names == {"gan": "gan"}
    assert (remote.declared_scale("gan"), ServeSettings().declared_scale("gan")) == (None, 4)
    offered = ServeSettings(weights="gan", offered=("other",), running={"url": REMOTE["url"]})
    assert set(offered.names) == {"gan", "other"}


def test_a_remote_server_that_is_away_is_a_bad_gateway_without_its_address(
    tmp_path: Path, small_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Repeat()

    def away(_: Batch) -> Batch:
        raise ServerAwayError(f"{REMOTE['url']}: no Triton server answers")

    with serving(tmp_path / "spool", network) as client:
        monkeypatch.setattr(network, "_run", away)
        answer = client.post("/v1/upscale", content=(small_files / "a.png").read_bytes())
    assert answer.status_code == 502
    assert answer.json()["code"] == "server_unreachable"
    assert "10.0.0.7" not in answer.text

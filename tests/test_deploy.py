"""Files of `deploy/`: images, a systemd unit, a Kubernetes manifest; each by its checker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

from agsr.serve.settings import ServeSettings

DEPLOY = ROOT / "deploy"
IMAGES = sorted(DEPLOY.glob("*.Dockerfile"))


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint is installed on Linux")
def test_images_pass_the_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    command = [linter if linter.exists() else "hadolint", *IMAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_images_run_as_nobody_and_report_health(image: Path) -> None:
    text = image.read_text()
    last = text.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+)$", last, re.MULTILINE)
    assert int(user) > 0
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert f"127.0.0.1:{ServeSettings.port}/readyz" in last
    assert f"EXPOSE {ServeSettings.port}\n" in last
    extras = re.search(r"'/src\[([\w,]+)\]'", text)
    assert extras
    declared = (ROOT / "pyproject.toml").read_text()
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), extra


def test_the_context_of_images_has_what_the_installation_reads() -> None:
    sent = (ROOT / ".dockerignore").read_text().split()
    declared = (ROOT / "pyproject.toml").read_text()
    folders = re.search(r"\[tool.setuptools.package-dir\]\n(.*?)\n\n", declared, re.DOTALL)
    assert folders
    for name in re.findall(r'= "(\w+)"', folders[1]):
        assert f"!{name}" in sent
    assert {"!constraints.txt", "!pyproject.toml", "!README.md", "!LICENSE"} <= set(sent)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_passes_the_check_of_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "agsr.service"
    text = (DEPLOY / "agsr.service").read_text()
    unit.write_text(text.replace("/opt/agsr/bin/agsr", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_manifest_fits_the_schema_of_kubernetes() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["Deployment", "Service"]
    version = kubernetes_validate.latest_version()
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[0]["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[0], version, strict=True)

"""Stand-ins for torchvision's compiled operators, where its build doesn't fit torch's.

On PyPI, torchvision's wheel for Linux is made for torch with CUDA. With a build of torch for CPUs
it fails at import: "operator torchvision::nms does not exist". The networks of other projects use
none of its operators, so a declaration of each suffices. Import this module before spandrel; it
does nothing until torchvision is imported.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATOR = re.compile(r'register_fake\("torchvision::(\w+)"\)')
_libraries: list[Any] = []


class _Finder(MetaPathFinder):
    """Declares the missing operators just before torchvision is imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        del path, target
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare(PathFinder.find_spec(fullname))
        return None


def _declare(spec: ModuleSpec | None) -> None:
    import torch

    if spec is None or spec.origin is None:
        return
    source = Path(spec.origin).with_name("_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)  # its operators live as long as it does
    for name in dict.fromkeys(_OPERATOR.findall(source)):
        library.define(f"{name}(Tensor x) -> Tensor")


def _fits() -> bool:
    """Return True if torch is built with CUDA, as torchvision's wheel is."""
    spec = importlib.util.find_spec("torch")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(any(Path(folder, "lib").glob("*torch_cuda*")) for folder in folders)


if "torchvision" not in sys.modules and not _fits():
    sys.meta_path.insert(0, _Finder())

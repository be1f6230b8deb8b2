"""Colour spaces without an ICC profile: code points, chromaticities, gamma, curves.

PNG, AVIF, HEIC, TIFF, BMP and TGA have such fields; `agsr.image.metadata` carries them as a
`Colour`. A format with the same kind of field stores them unchanged; for others an ICC profile is
generated here (ICC.1:2022). Such profiles can't represent HDR (PQ and HLG).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

_D65: Final = (0.3127, 0.3290)
_C: Final = (0.310, 0.316)
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_PRIMARIES: Final[dict[int, Chromaticities]] = {
    1: (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    4: (*_C, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
    5: (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Chromaticities by ITU-T H.273 colour primaries."""

_SRGB_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE: Final = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: Final[dict[int, tuple[float, ...]]] = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO_CURVE),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,), 13: _SRGB_CURVE},
}
"""Parameters of ICC's parametric curve to linear light, by H.273 transfer characteristics."""

_HDR: Final = {16: "PQ", 18: "HLG"}
_UNSPECIFIED, _SRGB_TRANSFER, _BT709 = 2, 13, 1
_SRGB_GAMMA: Final = 1 / 2.2
_SAME: Final = 2e-3
"""Tolerance for equal chromaticities and gammas, which are rounded."""


@dataclass(frozen=True)
class Colour:
    """Colour space of RGB or grey values; fields that a file lacks are None.

    >>> Colour(codes=(1, 13)).standard, Colour(codes=(9, 16)).hdr
    (True, 'PQ')
    """

    codes: tuple[int, int] | None = None
    """Colour primaries and transfer characteristics by ITU-T H.273, as in PNG's ``cICP``."""
    narrow: bool = False
    """Limited range: black is 16/255 and white 235/255, as in video."""
    chromaticities: Chromaticities | None = None
    gamma: float | None = None
    """Exponent from light to values, like 0.45455; 1 is linear."""
    intent: int | None = None
    """Rendering intent of PNG's ``sRGB`` chunk, which declares sRGB."""
    curves: tuple[bytes, ...] = ()
    """For grey or for red, green and blue: 16-bit big-endian tables from values to light."""
    levels: tuple[tuple[str, bytes], ...] = ()
    """HDR light levels: PNG chunks ``mDCV`` and ``cLLI``."""

    @property
    def hdr(self) -> str | None:
        """``"PQ"`` or ``"HLG"``; None otherwise."""
        return _HDR.get(self.codes[1]) if self.codes else None

    @property
    def standard(self) -> bool:
        """Whether it is sRGB, the default for untagged pictures."""
        if self.narrow:
            return False
        if self.codes is not None:
            known = (_BT709, _UNSPECIFIED), (_SRGB_TRANSFER, _UNSPECIFIED)
            return self.codes[0] in known[0] and self.codes[1] in known[1]
        if self.intent is not None:
            return True
        usual = self.chromaticities is None or _near(self.chromaticities, _PRIMARIES[_BT709])
        plain = self.gamma is None or abs(self.gamma - _SRGB_GAMMA) < _SAME
        return usual and plain and not self.curves

    @property
    def code_points(self) -> tuple[int, int] | None:
        """`codes`, or the code points equivalent to the other fields; None if there are none."""
        if self.codes is not None or self.curves:
            return self.codes
        if self.standard:
            return (_BT709, _SRGB_TRANSFER)
        white = self.chromaticities or _PRIMARIES[_BT709]
        primaries = next((code for code, at in _PRIMARIES.items() if _near(white, at)), None)
        transfer = _transfer(self.gamma)
        return None if primaries is None or transfer is None else (primaries, transfer)

    def profile(self, channels: int) -> bytes | None:
        """Return an equivalent ICC profile for grey (1) or RGB (3); None if impossible."""
        curves = self._icc_curves(channels)
        chromaticities = self._all_chromaticities()
        if curves is None or chromaticities is None or self.narrow:
            return None
        return _profile(chromaticities, curves, channels)

    def _all_chromaticities(self) -> Chromaticities | None:
        if self.codes is None:
            return self.chromaticities or _PRIMARIES[_BT709]
        code = _BT709 if self.codes[0] == _UNSPECIFIED else self.codes[0]
        return _PRIMARIES.get(code)

    def _icc_curves(self, channels: int) -> list[bytes] | None:
        if self.curves:
            tables = self.curves if len(self.curves) == channels else self.curves[:1] * channels
            return [b"curv" + struct.pack(">II", 0, len(t) // 2) + t for t in tables]
        if self.codes is not None:
            code = _SRGB_TRANSFER if self.codes[1] == _UNSPECIFIED else self.codes[1]
            parameters = _CURVES.get(code)
        elif self.gamma is None or abs(self.gamma - _SRGB_GAMMA) < _SAME:
            parameters = _SRGB_CURVE
        else:
            parameters = (1 / self.gamma,)
        return None if parameters is None else [_parametric(parameters)] * channels


def usable_chromaticities(values: tuple[float, ...]) -> Chromaticities | None:
    """Return eight numbers if they are valid chromaticities, else None."""
    if len(values) != 8 or not all(0 <= v <= 1 for v in values) or not values[1]:
        return None
    white, matrix = _matrices(values)
    if abs(np.linalg.det(matrix)) < 1e-6 or not np.isfinite(white).all():
        return None
    return values


def _near(a: Chromaticities, b: Chromaticities) -> bool:
    return all(abs(x - y) < _SAME for x, y in zip(a, b, strict=True))


def _transfer(gamma: float | None) -> int | None:
    if gamma is None or abs(gamma - _SRGB_GAMMA) < _SAME:
        return _SRGB_TRANSFER
    known = {8: 1.0, 5: 1 / 2.8}
    return next((code for code, value in known.items() if abs(gamma - value) < _SAME), None)


def _matrices(values: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return XYZ of white, and a matrix whose columns are xyz of red, green and blue."""
    points = np.array(values, np.float64).reshape(4, 2)
    white = _xyz(*points[0]) / points[0, 1]
    return white, np.stack([_xyz(*point) for point in points[1:]], axis=1)


def _xyz(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x, y, 1 - x - y])


_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _profile(chromaticities: Chromaticities, curves: list[bytes], channels: int) -> bytes:
    white, directions = _matrices(chromaticities)
    ratio = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD
    colourants = adapted @ (directions * np.linalg.solve(directions, white))
    text = partial(_text, "RGB" if channels == 3 else "Grey")
    tags = [(b"desc", text(" of a picture's own description")), (b"cprt", text(", public domain"))]
    tags += [(b"wtpt", _numbers(b"XYZ ", _D50)), (b"chad", _numbers(b"sf32", adapted.ravel()))]
    if channels == 3:
        tags += [
            (b"rgb"[n : n + 1] + b"XYZ", _numbers(b"XYZ ", colourants[:, n])) for n in range(3)
        ]
        tags += [(b"rgb"[n : n + 1] + b"TRC", curves[n]) for n in range(3)]
    else:
        tags.append((b"kTRC", curves[0]))
    return _assembled(tags, b"RGB " if channels == 3 else b"GRAY")


def _assembled(tags: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    """Assemble a display profile, version 4.3."""
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    places = dict[bytes, int]()
    for name, content in tags:
        if content not in places:
            places[content] = place + len(data)
            data += content.ljust(-(-len(content) // 4) * 4, b"\0")
        table += struct.pack(">4sII", name, places[content], len(content))
    head = struct.pack(">II", place + len(data), 0) + bytes.fromhex("04300000")
    head += b"mntr" + space + b"XYZ " + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + _fixed(_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _parametric(parameters: tuple[float, ...]) -> bytes:
    kind = 0 if len(parameters) == 1 else 3
    return b"para" + struct.pack(">IHH", 0, kind, 0) + _fixed(np.array(parameters))


def _text(*parts: str) -> bytes:
    content = "".join(parts).encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(content), 28) + content


def _numbers(kind: bytes, values: NDArray[np.float64]) -> bytes:
    return kind + bytes(4) + _fixed(values)


def _fixed(values: NDArray[np.float64]) -> bytes:
    return np.round(values * 65536).astype(">i4").tobytes()

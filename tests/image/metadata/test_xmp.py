"""XMP packets as untrusted files may have them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from agsr.image.metadata import resolve_metadata, xmp
from agsr.image.metadata.stored import StoredMetadata

TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"


def test_an_attribute_is_edited_and_not_the_quoted_value_of_another() -> None:
    inner = "\" e:PixelXDimension='1' \""
    packet = f"<x xmlns:e='{EXIF}' t={inner} e:PixelXDimension='5' e:SubjectArea = '1 2'/>".encode()
    expected = f"<x xmlns:e='{EXIF}' t={inner} e:PixelXDimension=\"40\" e:SubjectArea = '1 2'/>"
    assert xmp.for_size(packet, (3, 5), (24, 40)) == expected.encode()
    expected = f"<x xmlns:e='{EXIF}' t={inner} e:PixelXDimension='5'/>"
    assert xmp.without_false(packet, turned=False) == (expected.encode(), [])


def test_a_tag_is_searched_once_however_many_attributes_are_edited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = list[int]()

    class Counted:
        def finditer(self, *where: object) -> Iterator[re.Match[bytes]]:
            passes.append(1)
            return found.finditer(*where)  # type: ignore[call-overload, no-any-return]

    found = xmp._ATTRIBUTE
    monkeypatch.setattr(xmp, "_ATTRIBUTE", Counted())
    prefixes = range(50)
    spaces = "".join(f' xmlns:p{n}="http://ns.google.com/photos/dd/{n}"' for n in prefixes)
    false = "".join(f' p{n}:a="1"' for n in prefixes)
    packet = f"<x{spaces}{false}/>".encode()
    assert xmp.without_false(packet, turned=False) == (f"<x{spaces}/>".encode(), ["depth map"])
    assert len(passes) == 1


def test_a_namespace_holds_inside_of_the_element_that_declares_it() -> None:
    size = '<e:PixelXDimension>5</e:PixelXDimension><i e:PixelXDimension="5"/>'
    large = size.replace("5", "40")
    packet = '<x xmlns:e="{0}"><y xmlns:e="other:">{1}</y>{2}<z xmlns:f="{0}">{2}</z></x>'
    given = packet.format(EXIF, size, size).encode()
    assert xmp.for_size(given, None, (24, 40)) == packet.format(EXIF, size, large).encode()
    outside = f'<x><y xmlns:e="{EXIF}"/></x>'.encode()
    assert xmp.for_size(outside, None, (24, 40)) == outside


def test_text_between_children_is_one_text() -> None:
    space = "http://ns.google.com/photos/1.0/camera/"
    packet = f'<x xmlns:c="{space}"><c:MotionPhoto>0<b/>1</c:MotionPhoto></x>'.encode()
    assert xmp.without_false(packet, turned=False) == (
        f'<x xmlns:c="{space}"></x>'.encode(),
        ["video"],
    )


def test_a_packet_of_more_than_4_mb_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fits = b"<x>" + b" " * ((4 << 20) - 7) + b"</x>"
    with caplog.at_level(logging.WARNING):
        assert resolve_metadata(StoredMetadata(xmp=fits), (2, 2), "a.png")[0].xmp == fits
        assert not caplog.records
        larger = fits.replace(b"<x>", b"<x> ")
        assert resolve_metadata(StoredMetadata(xmp=larger), (2, 2), "a.png")[0].xmp is None
    assert caplog.messages == ["a.png: the result lacks its XMP, which is larger than 4 MB"]
    assert xmp.for_size(larger, None, (2, 2)) == larger


@pytest.mark.parametrize(
    "turned",
    [
        '<x xmlns:t="{0}" t:Orientation="{1}"/>',
        '<x xmlns:tiff="{0}" tiff:Orientation = "{1}"/>',
        "<x xmlns:tiff='{0}' tiff:Orientation\n=\n\"{1}\"/>",
        '<x xmlns:t="{0}"><t:Orientation>{1}</t:Orientation></x>',
        '<x xmlns:t="{0}"><t:Orientation >{1}</t:Orientation></x>',
        '<x xmlns="{0}"><Orientation>{1}</Orientation></x>',
    ],
)
def test_orientation_is_found_by_its_namespace(turned: str) -> None:
    metadata, orientation = resolve_metadata(
        StoredMetadata(xmp=turned.format(TIFF, 6).encode()), (3, 2), "a.png"
    )
    assert (orientation, metadata.size) == (6, (3, 2))
    assert metadata.xmp is not None
    assert b'Orientation="1"' in metadata.xmp or b">1</" in metadata.xmp
    assert b"6" not in metadata.xmp
    assert ElementTree.fromstring(metadata.xmp) is not None


def test_a_name_of_another_namespace_is_no_orientation() -> None:
    packet = b'<x xmlns:tiff="other:" tiff:Orientation="6"/>'
    metadata, orientation = resolve_metadata(StoredMetadata(xmp=packet), (3, 2), "a.png")
    assert (orientation, metadata.xmp) == (1, packet)


def test_a_damaged_packet_whose_orientation_is_not_understood_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    packet = f'<x xmlns:t="{TIFF}" t:Orientation="6"><'.encode()
    metadata, _ = resolve_metadata(StoredMetadata(xmp=packet, orientation=6), (3, 2), "a.png")
    assert metadata.xmp is None
    assert caplog.messages == ["a.png: the result lacks its XMP, which is damaged"]
    assert resolve_metadata(StoredMetadata(xmp=packet), (3, 2), "a.png")[0].xmp == packet

"""The tables in ``docs/metadata.md`` are what really happens, and nothing is lost silently."""

from __future__ import annotations

import pytest
from metadata_tables import BEGIN, COLUMNS, DOCUMENT, END, SOURCES, TARGETS, table

from agsr.image.decode import FORMATS as READ
from agsr.image.encode import FORMATS


def _documented() -> str:
    return DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]


@pytest.mark.parametrize("source", SOURCES)
def test_the_table_of_a_source_is_true(source: str) -> None:
    made = table(source)
    assert "SILENT" not in made
    assert f"\n{made}\n" in _documented(), (
        "PYTHONPATH=tests python tests/helpers/metadata_tables.py writes them"
    )


def test_the_tables_name_every_format() -> None:
    assert {*TARGETS} == {form.name for form in FORMATS.values()}
    assert {source.upper() for source in SOURCES} | {"DDS"} == {*READ, "HEIC"}
    assert {column for columns in SOURCES.values() for column in columns} == {*COLUMNS}

"""Files on object stores and servers, with addresses like ``s3://bucket/a.png``, by fsspec.

`agsr.store.locations` has the operations that planning, reading and writing need, for local paths
and addresses alike. fsspec is imported only when an address is used.
"""

from __future__ import annotations

from agsr.store.address import Address, Location, to_location

__all__ = ["Address", "Location", "to_location"]

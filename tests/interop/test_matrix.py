"""docs/interop.md lists the rows of this suite, all of them and no others."""

from __future__ import annotations

from typing import Protocol

import pytest


class Listing(Protocol):
    listed: list[tuple[str, str]]
    collected: list[tuple[str, str]]
    complete: bool


def test_the_page_lists_every_row(listing: Listing, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("write_matrix", default=False):
        pytest.skip("it is being written")
    missing = set(listing.collected) - set(listing.listed)
    assert not missing, "docs/interop.md is out of date (--write-matrix writes it)"
    if listing.complete:
        assert set(listing.listed) == set(listing.collected)


def test_no_two_rows_have_the_same_words(listing: Listing) -> None:
    assert len(set(listing.collected)) == len(listing.collected)

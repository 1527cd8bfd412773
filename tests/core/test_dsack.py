"""What arrives twice is reported by the first SACK block of the next ACK (RFC 2883), in B's words to A and back."""

from __future__ import annotations

import pytest

from support.script import Script
from support.states import established
from utcp.core.config import Config


def receiving(config: Config | None = None, options: str = "sackok") -> Script:
    """A has received 2000 bytes in order and acknowledged them."""
    s = established(config, options=options)
    s.recv(". seq=b ack=a len=1000")
    s.recv(". seq=b+1000 ack=a len=1000")
    s.expect(". seq=a ack=b+2000")
    return s


@pytest.mark.parametrize(
    ("segment", "block"),
    [
        (". seq=b ack=a len=1000", "b:b+1000"),
        (". seq=b ack=a len=2000", "b:b+2000"),
        (". seq=b+500 ack=a len=200", "b+500:b+700"),
    ],
)
def test_old_data(segment: str, block: str) -> None:
    """RFC 2883 4.1."""
    s = receiving()
    s.recv(segment)
    s.expect(f". seq=a ack=b+2000 sack={block}")


def test_once_only() -> None:
    s = receiving()
    s.recv(". seq=b ack=a len=1000")
    s.expect(". seq=a ack=b+2000 sack=b:b+1000")
    s.recv(". seq=b+2000 ack=a len=1000")
    s.recv(". seq=b+3000 ack=a len=1000")
    s.expect(". seq=a ack=b+4000")


def test_the_old_part_of_new_data() -> None:
    s = receiving()
    s.recv(". seq=b+1000 ack=a len=2000")
    s.expect(". seq=a ack=b+3000 sack=b+1000:b+2000")


def test_beyond_a_hole_before_the_block_that_holds_it() -> None:
    """RFC 2883 4.2: the second block is the one that the duplicate belongs to."""
    s = receiving()
    s.recv(". seq=b+3000 ack=a len=2000")
    s.expect(". seq=a ack=b+2000 sack=b+3000:b+5000")
    s.recv(". seq=b+3000 ack=a len=1000")
    s.expect(". seq=a ack=b+2000 sack=b+3000:b+4000,b+3000:b+5000")


def test_a_partial_one_beyond_a_hole() -> None:
    s = receiving()
    s.recv(". seq=b+3000 ack=a len=1000")
    s.expect(". seq=a ack=b+2000 sack=b+3000:b+4000")
    s.recv(". seq=b+3500 ack=a len=1500")
    s.expect(". seq=a ack=b+2000 sack=b+3500:b+4000,b+3000:b+5000")


def test_it_takes_the_place_of_the_last_block() -> None:
    """Three fit beside timestamps, four without."""
    s = receiving()
    for left in (3000, 5000, 7000, 9000):
        s.recv(f". seq=b+{left} ack=a len=1000")
        s.take()
    s.recv(". seq=b ack=a len=1000")
    (ack,) = s.take()
    assert [left - s.seq("b") for left, _ in ack.seg.sack] == [0, 9000, 7000, 5000]


def test_a_train_of_duplicates_is_one_block() -> None:
    s = receiving()
    with s.together():
        s.recv(". seq=b ack=a len=1000")
        s.recv(". seq=b+1000 ack=a len=1000")
    s.expect(". seq=a ack=b+2000 sack=b:b+2000")


def test_a_fin_that_comes_again() -> None:
    s = receiving()
    s.recv("F. seq=b+2000 ack=a")
    s.expect(". seq=a ack=b+2001")
    s.recv("F. seq=b+2000 ack=a")
    s.expect(". seq=a ack=b+2001 sack=b+2000:b+2001")


def test_a_late_original_behind_its_retransmission() -> None:
    """PAWS drops it, and B learns all the same that it was sent twice."""
    s = established(options="sackok ts=9000/0")
    s.recv(". seq=b ack=a len=1000 ts=9200/5000100")
    s.recv(". seq=b+1000 ack=a len=1000 ts=9200/5000100")
    s.take()
    s.recv(". seq=b ack=a len=1000 ts=9100/5000100")
    s.expect(". seq=a ack=b+2000 sack=b:b+1000")


@pytest.mark.parametrize("segment", [". seq=b-1 ack=a", ". seq=b+2000 ack=a"])
def test_not_for_what_has_no_data(segment: str) -> None:
    s = receiving()
    s.recv(segment)
    assert all(not sent.seg.sack for sent in s.take())


@pytest.mark.parametrize(("config", "options"), [(Config(dsack=False), "sackok"), (Config(), "")])
def test_not_without_being_asked(config: Config, options: str) -> None:
    s = receiving(config, options)
    s.recv(". seq=b ack=a len=1000")
    s.expect(". seq=a ack=b+2000")

"""Path MTU discovery (RFC 8899 for the mechanism, RFC 4821 for what is TCP's in it), and what a segment may hold.

What a path carries is known for the path, not for each connection: who connects next begins with what others have
found. A probe is a segment of a connection's own data, larger than its others. Its acknowledgment shows that such
segments get through; its loss alone is no sign of congestion, and what it held is sent again in ordinary segments.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.handshake import TIMESTAMPS_SIZE, set_smss
from utcp.core.mtu_search import BASE, ERROR, ETHERNET, SEARCH_COMPLETE, MtuSearch
from utcp.core.paths import Path, minimum_payload, mtu_of_payload, payload_of_mtu
from utcp.core.recovery_state import NONE, OPEN, Recovery, open_scoreboard
from utcp.core.scoreboard import SACKED
from utcp.core.stack import NEVER, Stack, connection_key
from utcp.core.states import ESTABLISHED, SYN_RECEIVED
from utcp.core.tcb import Tcb, mark_dirty
from utcp.wire.segment import HEADER_SIZE
from utcp.wire.seq import seq_le, seq_lt

HOLD: Final = -1
FOLLOWERS: Final = 3  # full segments behind a probe, whose arrival tells of its loss
PAUSE: Final = 5  # round trips after a probe that was lost
QUOTE_SIZE: Final = 8  # ports and sequence number


# Probes


def probe_size(tcb: Tcb, unsent: i64, mss: i64, flight: i64, window: i64) -> i64:
    """Bytes of data in the probe that is to leave now; 0: none; HOLD: one is due when ACKs have made room for it.

    RFC 4821 7.4: with enough data behind it, room in the windows (``window``: the peer's) and nothing to recover from.
    """
    route = tcb.route
    policy = tcb.policy
    if policy.mtu_probing == 0 or tcb.congestion is None or not tcb.sack_on or mss != tcb.smss:
        return 0
    r = tcb.recovery
    if r is not None and (r.phase != OPEN or r.runs.sacked > 0 or r.runs.lost > 0):
        return 0
    if tcb.ecn is not None and tcb.ecn.cwr_due:
        return 0  # CWR is for a segment whose loss would be noticed as congestion (RFC 3168 6.1.2)
    now = tcb.stack.now
    search = route.search
    if search is None:
        search = MtuSearch(BASE, route.link_payload)
        route.search = search
    elif search.state == SEARCH_COMPLETE:
        if now < search.raise_at:
            return 0
        tcb.stack.paths.ask_again(route)
    link = route.link_payload
    ethernet = payload_of_mtu(ETHERNET, route.ipv6)
    size = search.wanted(route.max_payload, route.base_payload, link, ethernet, now, policy.mtu_probe_interval)
    size = min(size, min(tcb.peer_mss, policy.max_segment_size) + HEADER_SIZE)  # no MSS is exceeded (RFC 9293 3.7.1)
    if size <= route.max_payload:
        return 0
    n = size - _overhead(tcb)
    need = n + FOLLOWERS * mss
    if unsent < need or window < need or tcb.cwnd < need or now < tcb.paced_until:
        return 0
    return n if flight + need <= window and flight + n <= tcb.cwnd else HOLD


def on_probe_sent(tcb: Tcb, r: Recovery, left: i64, n: i64) -> None:
    search = tcb.route.search
    if search is not None:
        r.mtu_probe = left
        r.mtu_probe_end = left + n
        search.sent(n + _overhead(tcb), tcb.stack.now)
        tcb.stack.counters.mtu_probes += 1


def on_probe_ack(tcb: Tcb, r: Recovery) -> None:
    """An ACK has come while a probe of this connection is out: has it arrived?"""
    runs = r.runs
    if runs.una < r.mtu_probe_end:
        i = runs.find(max(r.mtu_probe, runs.una))
        if not runs.flags(i) & SACKED or runs.right(i) < r.mtu_probe_end:
            return
    search = _verdict(tcb, r)
    if search is not None:
        size = search.probed
        search.arrived()
        if size > tcb.route.max_payload:
            _change(tcb.stack, tcb.route, size)


def lost_probe(tcb: Tcb, r: Recovery) -> i64:
    """Losses have been found: how many bytes of them are a probe's, which say nothing of congestion (RFC 8899 3)."""
    n = r.runs.lost_within(r.mtu_probe, r.mtu_probe_end)
    if n > 0:
        give_up_probe(tcb, r)
    return n


def give_up_probe(tcb: Tcb, r: Recovery) -> None:
    """A probe counts as lost: it was, or a time-out has come (RFC 4821 7.6.4), and nobody knows."""
    search = _verdict(tcb, r)
    if search is not None:
        tcb.stack.counters.mtu_probes_lost += 1
        search.lost(tcb.stack.now + PAUSE * max(tcb.srtt, 0))


def _verdict(tcb: Tcb, r: Recovery) -> MtuSearch | None:
    """The probe is no longer out. The search that it was for, None if that is over."""
    size = r.mtu_probe_end - r.mtu_probe + _overhead(tcb)
    r.mtu_probe = NONE
    search = tcb.route.search
    return search if search is not None and search.probed == size else None


# Black holes


def suspect_black_hole(tcb: Tcb) -> None:
    """A time-out, and not the first in a row, of a segment larger than every path carries (RFC 8899 4.3).

    Nothing tells a path that has begun to swallow large segments from one that swallows all; smaller ones are tried in
    either case, and the search begins anew once they are acknowledged.
    """
    r = tcb.recovery
    route = tcb.route
    if not route.discovers or tcb.policy.mtu_probing == 0 or tcb.rtx_count & 1 == 0 or r is None:
        return
    size = r.runs.first_segment() + _overhead(tcb)
    state: i64 = BASE
    payload = route.base_payload
    if size <= payload:
        state = ERROR
        payload = minimum_payload(route.ipv6)
    if size <= payload:
        return
    if route.max_payload > payload:
        tcb.stack.counters.black_holes += 1
        route.search = MtuSearch(state, route.link_payload)
        _change(tcb.stack, route, payload)
    set_smss(tcb)


# What others say


def on_packet_too_big(stack: Stack, route: Path, mtu: i64, quote: bytes) -> None:
    """ICMP: a router has dropped a packet of ours, its link takes ``mtu`` bytes.

    RFC 8899 4.6.1: believed only of what is in flight; ``quote`` is the head of the segment, as far as ICMP repeats it.
    4.6.2: never below BASE_PLPMTU (black holes are noticed anyway), and not PLPMTU itself: a size to probe.
    """
    if mtu <= 0 or not _in_flight(stack, route, quote):
        stack.counters.packets_too_big_ignored += 1
        return
    payload = payload_of_mtu(mtu, route.ipv6)
    largest = route.max_payload
    smallest = minimum_payload(route.ipv6)
    search = route.search
    if route.discovers:
        smallest = route.base_payload
        if search is not None:
            largest = max(largest, search.probed)
    if payload < smallest or payload >= largest:
        stack.counters.packets_too_big_ignored += 1
        return
    stack.counters.packets_too_big += 1
    if not route.discovers:
        _change(stack, route, payload)  # RFC 1191: there is nothing else to go by
    else:
        if payload < route.max_payload:
            search = MtuSearch(BASE, route.link_payload)
            route.search = search
            _change(stack, route, route.base_payload)
        if search is not None:
            search.probed = 0
            search.hint = payload
            search.too_large(payload + 1)
    _cut_anew(stack, route, payload)


def on_message_too_long(stack: Stack, route: Path, mtu: i64) -> None:
    """EMSGSIZE: the link itself takes only ``mtu`` bytes. The system knows that, so there is nothing to doubt."""
    payload = payload_of_mtu(mtu, route.ipv6)
    if mtu <= 0 or payload >= max(route.link_payload, route.max_payload):
        return
    route.link_payload = payload
    route.base_payload = min(route.base_payload, payload)
    search = route.search
    if search is not None:
        search.probed = 0
        search.too_large(payload + 1)
    if payload < route.max_payload:
        _change(stack, route, payload)
    _cut_anew(stack, route, payload)


def _in_flight(stack: Stack, route: Path, quote: bytes) -> bool:
    """RFC 5927 4.1: whether a segment that begins like this is in flight; without a quotation that is not known."""
    if len(quote) < QUOTE_SIZE:
        return True
    local_port = int.from_bytes(quote[0:2], "big")
    remote_port = int.from_bytes(quote[2:4], "big")
    seq: i64 = int.from_bytes(quote[4:8], "big")
    tcb = stack.connections.get(connection_key(route.index, local_port, remote_port))
    return tcb is not None and seq_le(tcb.snd_una, seq) and seq_lt(seq, tcb.snd_nxt)


def _cut_anew(stack: Stack, route: Path, payload: i64) -> None:
    """What is in flight in larger datagrams is lost, and sent again in smaller ones: no congestion."""
    for tcb in stack.connections.values():
        if tcb.route is not route or tcb.st < SYN_RECEIVED:
            continue
        if tcb.st >= ESTABLISHED and tcb.snd_una != tcb.snd_nxt:
            r = open_scoreboard(tcb)
            largest = payload - _overhead(tcb)
            if r.mtu_probe != NONE and r.mtu_probe_end - r.mtu_probe > largest:
                r.mtu_probe = NONE
                stack.counters.mtu_probes_lost += 1
            if r.runs.lose_larger(largest) > 0:
                tcb.rtt_at = NEVER  # Karn (MUST-18)
                mark_dirty(tcb)
        set_smss(tcb)


def _change(stack: Stack, route: Path, payload: i64) -> None:
    """PLPMTU is ``payload`` from now on; connections follow when they send."""
    before = route.max_payload
    route.max_payload = payload
    if stack.observer is not None:
        old, new = mtu_of_payload(before, route.ipv6), mtu_of_payload(payload, route.ipv6)
        stack.observer.path_mtu(stack.now, route.index, old, new)


def _overhead(tcb: Tcb) -> i64:
    """Bytes of a datagram beside the data."""
    return HEADER_SIZE + TIMESTAMPS_SIZE if tcb.ts_on else HEADER_SIZE

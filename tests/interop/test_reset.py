"""A RST in every state, each way, and what is left of it; segments that only pretend to be one of the peer's."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from interop.matrix import Row
from interop.namespace import tcp_counters
from interop.net import BOTH_ROLES, KERNEL, UTCP, Net, Pair, is_fin, is_pure_ack, is_rst, is_syn
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction
from utcp.gateway.packets import IpHeader, pseudo_sum, set_tcp_checksum
from utcp.wire.segment import ACK, RST, SYN, Segment

IN = "RST from the kernel"
OUT = "RST from utcp"
FORGED = "Forged segments (RFC 5961)"


def check_reset_by_kernel(row: Row, pair: Pair) -> None:
    """The kernel aborts, and utcp's application is told."""
    pair.reset_by_kernel()
    pair.check(row, State.CLOSED, "-")
    assert isinstance(pair.conn.error, ConnectionResetError)
    row.note("ConnectionResetError")


def check_reset_by_utcp(row: Row, pair: Pair, error: int) -> None:
    pair.conn.abort()
    pair.check(row, State.CLOSED, "-")
    assert pair.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == error
    row.note(errno.errorcode[error])


# From the kernel. Its close with linger 0 sends a RST in the states where RFC 9293 3.10.5 has one.


@pytest.mark.row(IN, "utcp in SYN-SENT", UTCP)
def test_rst_in_syn_sent(net: Net, row: Row) -> None:
    with net.peer() as peer:
        conn = peer.connect(9)
        conn.wait_closed()
        assert peer.history.states[conn.core.local_port, 9] == [State.SYN_SENT, State.CLOSED]
        assert isinstance(conn.error, ConnectionRefusedError)
        row.note("ConnectionRefusedError")


@pytest.mark.row(IN, "utcp in SYN-RECEIVED", KERNEL)
def test_rst_in_syn_received(net: Net, row: Row) -> None:
    with net.peer(Config(rto_initial=0.3)) as peer:
        peer.listen(7)
        with net.kernel_socket() as sock, net.rule(Direction.TO_KERNEL, is_syn):
            sock.setblocking(False)
            sock.connect_ex((net.host(peer), 7))
            pair = Pair(peer, net.host(peer), peer.find(7, sock.getsockname()[1]), sock)
            pair.check(row, State.SYN_RECEIVED, "SYN-SENT")
        # The kernel has forgotten its SYN, and answers the repeated SYN-ACK with RST
        pair.check(row, State.CLOSED, "-")
        with net.kernel_socket() as sock:
            sock.connect((net.host(peer), 7))
            assert peer.accept(7).state is State.ESTABLISHED
        row.note("the listener goes on, its application hears nothing")


@pytest.mark.row(IN, "utcp in SYN-RECEIVED", "both")
def test_rst_in_syn_received_of_an_active_open(net: Net, row: Row) -> None:
    with (
        net.peer() as peer,
        net.kernel_socket() as sock,
        net.rule(Direction.TO_KERNEL, is_syn, delays_ms=(200,), times=1),
        net.rule(Direction.TO_UTCP, is_syn, delays_ms=(200,), times=1),
        # and the answers to both SYNs are lost
        net.rule(Direction.TO_KERNEL, is_syn, times=None),
        net.rule(Direction.TO_UTCP, is_syn, times=None),
    ):
        sock.bind((net.address(), 0))
        sock.setblocking(False)
        sock.connect_ex((net.host(peer), 5000))
        pair = Pair(peer, net.host(peer), peer.connect(sock.getsockname()[1], local_port=5000), sock)
        pair.check(row, State.SYN_RECEIVED, "SYN-RECV")
        pair.reset_by_kernel()
        pair.check(row, State.CLOSED, "-")
        assert isinstance(pair.conn.error, ConnectionRefusedError)
        row.note("ConnectionRefusedError (RFC 9293 3.10.7.4)")


@pytest.mark.row(IN, "utcp in ESTABLISHED", "{opened_by}")
@BOTH_ROLES
def test_rst_in_established(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        check_reset_by_kernel(row, pair)


@pytest.mark.row(IN, "utcp in CLOSE-WAIT", "{opened_by}")
@BOTH_ROLES
def test_rst_in_close_wait(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        check_reset_by_kernel(row, pair)


@pytest.mark.row(IN, "utcp in FIN-WAIT-1", "{opened_by}")
@BOTH_ROLES
def test_rst_in_fin_wait_1(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_KERNEL, is_fin, times=None):
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_1, "ESTAB")
        check_reset_by_kernel(row, pair)


@pytest.mark.row(IN, "utcp in FIN-WAIT-2", "{opened_by}")
@BOTH_ROLES
def test_rst_in_fin_wait_2(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        check_reset_by_kernel(row, pair)


@pytest.mark.row(IN, "utcp in CLOSING", "{opened_by}")
@BOTH_ROLES
def test_rst_in_closing(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.silence(Direction.TO_KERNEL):
        pair.conn.shutdown()
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.CLOSING, "FIN-WAIT-1")
        pair.reset_by_kernel()
        pair.check(row, State.CLOSED, "-")
        row.note(outcome(pair))


@pytest.mark.row(IN, "utcp in LAST-ACK", "{opened_by}")
@BOTH_ROLES
def test_rst_in_last_ack(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_KERNEL, is_fin, times=None):
        pair.sock.shutdown(socket.SHUT_WR)
        pair.conn.wait_for(State.CLOSE_WAIT)
        pair.conn.close()
        pair.check(row, State.LAST_ACK, "FIN-WAIT-2")
        pair.reset_by_kernel()
        pair.check(row, State.CLOSED, "-")
        row.note(outcome(pair))


@pytest.mark.row(IN, "utcp in TIME-WAIT, rfc1337 {rfc1337}", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("rfc1337", [True, False])
def test_rst_in_time_wait(net: Net, row: Row, opened_by: str, rfc1337: bool) -> None:
    with (
        net.pair(opened_by, Config(rfc1337=rfc1337)) as pair,
        net.rule(Direction.TO_UTCP, is_rst, delays_ms=(0,), times=None) as seen,
    ):
        pair.conn.shutdown()
        assert pair.sock.recv(1) == b""
        pair.sock.close()
        pair.check(row, State.TIME_WAIT, "-")
        core = pair.conn.core
        # Once more the last ACK: it finds no socket
        pair.peer.inject(Segment(core.local_port, core.remote_port, core.snd_nxt, core.rcv_nxt, ACK))
        pair.conn.wait(lambda: seen.hits, "waiting for a RST")
        pair.check(row, State.TIME_WAIT if rfc1337 else State.CLOSED, "-")
        assert pair.conn.error is None


def outcome(pair: Pair) -> str:
    return "no error" if pair.conn.error is None else type(pair.conn.error).__name__


# From utcp


@pytest.mark.row(OUT, "the kernel in SYN-SENT", KERNEL)
def test_rst_to_syn_sent(net: Net, row: Row) -> None:
    with net.peer() as peer, net.kernel_socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((net.host(peer), 9))
    row.note("ECONNREFUSED")


@pytest.mark.row(OUT, "the kernel in SYN-RECV", UTCP)
def test_rst_to_syn_recv(net: Net, row: Row) -> None:
    with net.listen() as listener, net.peer() as peer, net.rule(Direction.TO_KERNEL, is_pure_ack, times=None):
        pair = Pair(peer, net.host(peer), peer.connect(listener.getsockname()[1]), listener)
        pair.check(row, State.ESTABLISHED, "SYN-RECV")
        pair.conn.abort()
        pair.check(row, State.CLOSED, "-")
        row.note("the listener's application hears nothing")


@pytest.mark.row(OUT, "the kernel in ESTAB", "{opened_by}")
@BOTH_ROLES
def test_rst_to_estab(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        check_reset_by_utcp(row, pair, errno.ECONNRESET)


@pytest.mark.row(OUT, "the kernel in CLOSE-WAIT", "{opened_by}")
@BOTH_ROLES
def test_rst_to_close_wait(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        check_reset_by_utcp(row, pair, errno.EPIPE)


@pytest.mark.row(OUT, "the kernel in FIN-WAIT-1", "{opened_by}")
@BOTH_ROLES
def test_rst_to_fin_wait_1(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_UTCP, is_fin, times=None):
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.ESTABLISHED, "FIN-WAIT-1")
        check_reset_by_utcp(row, pair, errno.ECONNRESET)


@pytest.mark.row(OUT, "the kernel in FIN-WAIT-2", "{opened_by}")
@BOTH_ROLES
def test_rst_to_fin_wait_2(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        check_reset_by_utcp(row, pair, errno.ECONNRESET)


@pytest.mark.row(OUT, "the kernel in CLOSING", "{opened_by}")
@BOTH_ROLES
def test_rst_to_closing(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.silence(Direction.TO_UTCP):
        pair.sock.shutdown(socket.SHUT_WR)
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_1, "CLOSING")
        check_reset_by_utcp(row, pair, errno.ECONNRESET)


@pytest.mark.row(OUT, "the kernel in LAST-ACK", "{opened_by}")
@BOTH_ROLES
def test_rst_to_last_ack(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_UTCP, is_fin, times=None):
        pair.conn.shutdown()
        assert pair.sock.recv(1) == b""
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.FIN_WAIT_2, "LAST-ACK")
        check_reset_by_utcp(row, pair, errno.ECONNRESET)


@pytest.mark.row(OUT, "the kernel in TIME-WAIT", "{opened_by}")
@BOTH_ROLES
def test_rst_to_time_wait(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.sock.shutdown(socket.SHUT_WR)
        pair.conn.wait_for(State.CLOSE_WAIT)
        pair.conn.close()
        pair.check(row, State.CLOSED, "TIME-WAIT")
        core = pair.conn.core
        # Once more the last ACK: it finds no connection
        forge_from_kernel(net, pair, Segment(core.remote_port, core.local_port, core.rcv_nxt, core.snd_nxt, ACK))
        pair.check(row, State.CLOSED, "-")
        row.note("the kernel ends TIME-WAIT (its rfc1337 is off)")


def forge_from_kernel(net: Net, pair: Pair, segment: Segment) -> None:
    """Send a segment that the kernel's TCP knows nothing of."""
    kernel, host = ip_address(net.address()).packed, ip_address(pair.host).packed
    checked = set_tcp_checksum(segment.to_bytes(), pseudo_sum(kernel, host))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(IpHeader(kernel, host).packet(checked), (pair.host, 0))


# Segments of an attacker's who knows the four addresses and guesses the rest


@pytest.mark.row(FORGED, "{name} in utcp's window", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize(("name", "flags"), [("RST", RST), ("SYN", SYN)])
def test_forged_segment_for_utcp(net: Net, row: Row, opened_by: str, name: str, flags: int) -> None:
    with (
        net.pair(opened_by) as pair,
        net.rule(Direction.TO_KERNEL, is_pure_ack, delays_ms=(0,), times=None) as answers,
    ):
        core = pair.conn.core
        before = answers.hits
        forge_from_kernel(net, pair, Segment(core.remote_port, core.local_port, core.rcv_nxt + 1000, 0, flags))
        pair.conn.wait(lambda: answers.hits > before, "waiting for a challenge ACK")
        pair.check(row, State.ESTABLISHED, "ESTAB")
        pair.sock.sendall(b"alive")
        assert pair.conn.wait_received(5) == b"alive"
        row.note("challenge ACK, nothing else")


@pytest.mark.row(FORGED, "{name} in the kernel's window", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize(("name", "flags"), [("RST", RST), ("SYN", SYN)])
def test_forged_segment_for_the_kernel(net: Net, row: Row, opened_by: str, name: str, flags: int) -> None:
    with net.pair(opened_by) as pair:
        core = pair.conn.core
        before = tcp_counters()["TCPChallengeACK"]
        pair.peer.inject(Segment(core.local_port, core.remote_port, core.snd_nxt + 1000, 0, flags))
        pair.conn.wait(lambda: tcp_counters()["TCPChallengeACK"] > before, "waiting for a challenge ACK")
        pair.check(row, State.ESTABLISHED, "ESTAB")
        pair.conn.send(b"alive")
        assert pair.sock.recv(5) == b"alive"
        row.note("challenge ACK, nothing else")


@pytest.mark.row(FORGED, "ACK of what was never sent", "{opened_by}")
@BOTH_ROLES
def test_ack_of_the_future(net: Net, row: Row, opened_by: str) -> None:
    with (
        net.pair(opened_by, Config(timestamps=False)) as pair,
        net.rule(Direction.TO_KERNEL, is_pure_ack, delays_ms=(0,), times=None) as from_utcp,
        net.rule(Direction.TO_UTCP, is_pure_ack, delays_ms=(0,), times=None) as from_kernel,
    ):
        # Each rule sees one forged segment and one answer to the other
        core = pair.conn.core
        ack = core.snd_nxt + 100_000
        forge_from_kernel(net, pair, Segment(core.remote_port, core.local_port, core.rcv_nxt, ack, ACK))
        ack = core.rcv_nxt + 100_000
        pair.peer.inject(Segment(core.local_port, core.remote_port, core.snd_nxt, ack, ACK))
        pair.conn.wait(lambda: from_utcp.hits == from_kernel.hits == 2, "waiting for both answers")
        pair.check(row, State.ESTABLISHED, "ESTAB")
        row.note("answered by ACK, nothing else")

"""Connections open, in every order, and agree on their options."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from interop.matrix import Row
from interop.namespace import sysctl
from interop.net import BOTH_ROLES, KERNEL, MTU, UTCP, Net, Pair, is_pure_ack, is_syn
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction

# struct tcp_info: tcpi_options and the two window scales, tcpi_snd_mss, tcpi_rcv_mss (linux/tcp.h)
_TCPI_TIMESTAMPS = 1
_TCPI_SACK = 2
_TCPI_WSCALE = 4


def kernel_options(sock: socket.socket) -> tuple[int, int, int]:
    """(option bits, the peer's window scale, ours) as the kernel sees them."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    options, scales = struct.unpack_from("5xBB", info)
    return options, scales & 15, scales >> 4


def exchange(pair: Pair) -> None:
    """A few bytes each way."""
    pair.conn.send(b"from utcp")
    assert pair.sock.recv(100) == b"from utcp"
    pair.sock.sendall(b"from the kernel")
    assert pair.conn.wait_received(15) == b"from the kernel"


@pytest.mark.row("Opening", "three-way handshake, IPv{index}", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("index", [4, 6])
def test_handshake(net: Net, row: Row, opened_by: str, index: int) -> None:
    with net.pair(opened_by, index=0 if index == 4 else 1) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        exchange(pair)
        options, _, _ = kernel_options(pair.sock)
        info = pair.conn.core.info()
        assert options & 7 == _TCPI_TIMESTAMPS | _TCPI_SACK | _TCPI_WSCALE
        assert info.timestamps and info.sack
        mss = MTU - (20 if index == 4 else 40) - 8 - 20
        assert pair.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == mss - 12
        assert info.snd_mss in (mss, mss - 12)
        row.note(f"timestamps, SACK and window scale agreed, MSS {mss}")


@pytest.mark.row("Opening", "simultaneous open", "both")
def test_simultaneous_open(net: Net, row: Row) -> None:
    with (
        net.peer() as peer,
        net.kernel_socket() as sock,
        net.rule(Direction.TO_KERNEL, is_syn, delays_ms=(300,), times=None),
        net.rule(Direction.TO_UTCP, is_syn, delays_ms=(300,), times=None),
    ):
        sock.bind((net.address(), 0))
        sock.setblocking(False)
        assert sock.connect_ex((net.host(peer), 5000)) == errno.EINPROGRESS
        pair = Pair(peer, net.host(peer), peer.connect(sock.getsockname()[1], local_port=5000), sock)
        pair.check(row, State.SYN_SENT, "SYN-SENT")
        pair.check(row, State.SYN_RECEIVED, "SYN-RECV")
        pair.check(row, State.ESTABLISHED, "ESTAB")
        sock.settimeout(5)
        exchange(pair)


@pytest.mark.row("Opening", "nobody listens on the TCP port", UTCP)
def test_kernel_refuses(net: Net, row: Row) -> None:
    with net.peer() as peer:
        conn = peer.connect(9)
        conn.wait_closed()
        assert isinstance(conn.error, ConnectionRefusedError)
        row.note("RST, ECONNREFUSED")


@pytest.mark.row("Opening", "nobody listens on the TCP port", KERNEL)
def test_utcp_refuses(net: Net, row: Row) -> None:
    with net.peer() as peer, net.kernel_socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((net.host(peer), 9))
    row.note("RST, ECONNREFUSED")


@pytest.mark.row("Opening", "nobody has the UDP port", KERNEL)
def test_no_udp_socket(net: Net, row: Row) -> None:
    with net.peer() as peer:
        host = net.host(peer)
    with net.kernel_socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((host, 9))
    row.note("ICMP port unreachable, ECONNREFUSED at once")


@pytest.mark.row("Opening", "SYN lost", "{opened_by}")
@BOTH_ROLES
def test_syn_lost(net: Net, row: Row, opened_by: str) -> None:
    towards = Direction.TO_KERNEL if opened_by == UTCP else Direction.TO_UTCP
    with net.rule(towards, is_syn) as lost, net.pair(opened_by, Config(rto_initial=0.3)) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        exchange(pair)
        assert lost.hits == 1
        row.note("repeated after RTO")


@pytest.mark.row("Opening", "SYN-ACK lost", "{opened_by}")
@BOTH_ROLES
def test_syn_ack_lost(net: Net, row: Row, opened_by: str) -> None:
    towards = Direction.TO_UTCP if opened_by == UTCP else Direction.TO_KERNEL
    with net.rule(towards, is_syn) as lost, net.pair(opened_by, Config(rto_initial=0.3)) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        exchange(pair)
        assert lost.hits == 1
        row.note("repeated after RTO")


@pytest.mark.row("Opening", "the handshake's last ACK lost", "{opened_by}")
@BOTH_ROLES
def test_last_ack_of_the_handshake_lost(net: Net, row: Row, opened_by: str) -> None:
    towards = Direction.TO_KERNEL if opened_by == UTCP else Direction.TO_UTCP
    with net.rule(towards, is_pure_ack) as lost, net.pair(opened_by, Config(rto_initial=0.3)) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        exchange(pair)
        assert lost.hits == 1
        row.note("data or a repeated SYN-ACK makes up for it")


@pytest.mark.row("Options", "timestamps: {without} has none", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("without", [UTCP, KERNEL])
def test_timestamps_need_both(net: Net, row: Row, opened_by: str, without: str) -> None:
    with (
        sysctl("net.ipv4.tcp_timestamps", 0 if without == KERNEL else 1),
        net.pair(opened_by, Config(timestamps=without != UTCP)) as pair,
    ):
        exchange(pair)
        assert not kernel_options(pair.sock)[0] & _TCPI_TIMESTAMPS
        assert not pair.conn.core.info().timestamps
        row.note("neither uses them")


@pytest.mark.row("Options", "window scale: {without} has none", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("without", [UTCP, KERNEL])
def test_window_scale_needs_both(net: Net, row: Row, opened_by: str, without: str) -> None:
    with (
        sysctl("net.ipv4.tcp_window_scaling", 0 if without == KERNEL else 1),
        net.pair(opened_by, Config(window_scaling=without != UTCP)) as pair,
    ):
        exchange(pair)
        assert not kernel_options(pair.sock)[0] & _TCPI_WSCALE
        info = pair.conn.core.info()
        assert (info.snd_wscale, info.rcv_wscale) == (0, 0)
        assert max(info.snd_wnd, info.rcv_wnd) <= 65535
        row.note("neither uses it")


@pytest.mark.row("Options", "window scale: both sides read the same", "{opened_by}")
@BOTH_ROLES
def test_window_scales_agree(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(receive_buffer=1 << 20)) as pair:
        _, utcps, kernels = kernel_options(pair.sock)
        info = pair.conn.core.info()
        assert (info.rcv_wscale, info.snd_wscale) == (utcps, kernels)
        assert utcps == 5  # 1 MiB is more than 65535 << 4
        row.note("shift counts as offered, a buffer of 1 MiB takes 5")


@pytest.mark.row("Options", "SACK-permitted: {without} has none", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("without", [UTCP, KERNEL])
def test_sack_needs_both(net: Net, row: Row, opened_by: str, without: str) -> None:
    with (
        sysctl("net.ipv4.tcp_sack", 0 if without == KERNEL else 1),
        net.pair(opened_by, Config(sack=without != UTCP)) as pair,
    ):
        exchange(pair)
        assert not kernel_options(pair.sock)[0] & _TCPI_SACK
        assert not pair.conn.core.info().sack
        row.note("neither uses it")


@pytest.mark.row("Options", "MSS: {small} offers {mss}", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize(("small", "mss"), [(UTCP, 536), (KERNEL, 700)])
def test_mss(net: Net, row: Row, opened_by: str, small: str, mss: int) -> None:
    longest = {Direction.TO_UTCP: 0, Direction.TO_KERNEL: 0}

    def measure(direction: Direction, data_len: int) -> bool:
        longest[direction] = max(longest[direction], data_len)
        return False

    def prepare(sock: socket.socket) -> None:
        if small == KERNEL:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)

    config = Config(max_segment_size=mss) if small == UTCP else Config()
    with (
        net.rule(Direction.TO_UTCP, lambda seg: measure(Direction.TO_UTCP, seg.data_len)),
        net.rule(Direction.TO_KERNEL, lambda seg: measure(Direction.TO_KERNEL, seg.data_len)),
        net.pair(opened_by, config, prepare=prepare) as pair,
    ):
        pair.conn.send(bytes(20_000))
        pair.sock.sendall(bytes(20_000))
        pair.conn.wait_received(20_000)
        received = 0
        while received < 20_000:
            received += len(pair.sock.recv(65536))
    # Every data segment carries 12 bytes of timestamps (RFC 6691)
    assert set(longest.values()) == {mss - 12}
    row.note("no segment is longer, either way; full ones carry MSS - 12 bytes")

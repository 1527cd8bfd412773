"""``utcp gateway``: a Linux kernel's TCP on the other end of utcp connections (docs/gateway.md)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from utcp.gateway import Endpoint, Gateway, Impair, KernelAddress, Mark
    from utcp.trace.pcapng import PcapngWriter

_DESCRIPTION: Final = """\
Translate between utcp datagrams and TCP packets on a TUN device, so that kernel sockets and utcp endpoints talk to
each other. Every utcp endpoint is an IP host to the kernel; every kernel address is a UDP address to utcp. Needs
Linux, and root or a network namespace of one's own (unshare -rn). With a COMMAND, runs it and ends with it.
"""

# The kernel's addresses where none are given; the second only on a system that has IPv6
_DEFAULT_KERNEL: Final = ("10.99.0.1/16=127.0.0.1:9100", "fd99::1/64=127.0.0.1:9106")
_KERNEL_DEFAULT_TEXT: Final = " and ".join(_DEFAULT_KERNEL)
_MIN_MTU: Final = 1280  # IPv6's (RFC 8200 5)
_MAX_MTU: Final = 65535
# A TCP packet on the device lacks the datagram's UDP header
_UDP_HEADER_SIZE: Final = 8

_IMPAIRMENTS: Final = (
    ("loss", "probability that a segment is lost"),
    ("duplicate", "probability that a segment comes twice"),
    ("reorder", "probability that a segment is overtaken by those of the next 10 ms"),
    ("delay", "how long every segment takes"),
    ("jitter", "how much longer it may take, evenly spread"),
    ("rate", "bits per second, with a queue of 0.1 s"),
)
_MARK_HELP: Final = "probability that an ECN-capable segment is marked as on a congested path"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``gateway`` to the subparsers of the command line."""
    p = subparsers.add_parser("gateway", help="let kernel sockets talk to utcp endpoints", description=_DESCRIPTION)
    add = p.add_argument
    utcp_help = (
        "UDP address of a utcp server, repeatable: the first is host 10.99.0.2 to the kernel, the next 10.99.0.3 ..."
        " (clients get the following addresses as they appear)"
    )
    kernel_help = (
        "an address of the kernel's, and the UDP address that stands for it, repeatable"
        f" (default: {_KERNEL_DEFAULT_TEXT})"
    )
    add("--utcp", action="append", default=[], type=_endpoint, metavar="HOST:PORT", help=utcp_help)
    add("--kernel", action="append", type=_kernel_address, metavar="ADDRESS/PREFIX=HOST:PORT", help=kernel_help)
    add("--device", default="utcp0", metavar="NAME", help="name of the TUN device (default: %(default)s)")
    mtu_help = "MTU of the path that datagrams take (default: %(default)s)"
    add("--mtu", default=1500, type=_mtu, metavar="BYTES", help=mtu_help)
    group = p.add_argument_group(
        "impairments", "One value for both directions, or TO_UTCP,TO_KERNEL; times in seconds."
    )
    for name, text in _IMPAIRMENTS:
        group.add_argument(f"--{name}", default=(0.0, 0.0), type=_both_directions, metavar="X[,X]", help=text)
    group.add_argument("--mark", default=(0.0, 0.0), type=_both_directions, metavar="X[,X]", help=_MARK_HELP)
    group.add_argument("--seed", default=0, type=int, metavar="N", help="what chance is drawn from (default: 0)")
    add("--pcap", metavar="FILE", help="write every segment that crosses the device to a pcapng file")
    add("--json", action="store_true", help="print the summary as one JSON object on standard output")
    add("command", nargs="*", metavar="COMMAND", help="run this, with its arguments, behind a --")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the gateway until SIGINT, SIGTERM or the end of COMMAND.

    Returns the exit code: COMMAND's, else 0; 1 for what the system does not allow, and for a capture that is not
    complete; 2 for a wrong value.
    """
    if sys.platform != "linux":
        return _fail("it needs a TUN device, and those of Linux are the only ones it knows", 1)
    try:
        with contextlib.ExitStack() as stack:
            gateway, capture = _open(args, stack)
            code = _run_command(gateway, args) if args.command else _run_alone(gateway, args)
    except ValueError as exc:
        return _fail(str(exc), 2)
    except OSError as exc:
        return _fail(f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror or str(exc), 1)
    _print_summary(gateway, as_json=args.json)
    return code or int(capture is not None and not capture.complete)


def _open(args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Gateway, PcapngWriter | None]:
    from utcp.gateway import Gateway, Tun, loopback_up

    impair = _impair(args)
    kernel = args.kernel or _default_kernel()
    capture = _open_capture(args.pcap, stack) if args.pcap else None
    loopback_up()
    tun = Tun(args.device, [k.interface for k in kernel], args.mtu - _UDP_HEADER_SIZE)
    write = None if capture is None else capture.write
    gateway = Gateway(tun, kernel, args.utcp, mtu=args.mtu, impair=impair, mark=_mark(args), capture=write)
    stack.callback(gateway.close)
    return gateway, capture


def _default_kernel() -> list[KernelAddress]:
    return [_kernel_address(text) for text in _DEFAULT_KERNEL[: 2 if os.path.exists("/proc/net/if_inet6") else 1]]


def _impair(args: argparse.Namespace) -> Impair | None:
    from utcp.gateway import Impairments, LinkQuality

    values = {name: getattr(args, name) for name, _ in _IMPAIRMENTS}
    to_utcp, to_kernel = (LinkQuality(**{name: pair[i] for name, pair in values.items()}) for i in (0, 1))
    if to_utcp == to_kernel == LinkQuality():
        return None
    return Impairments(args.seed, to_kernel=to_kernel, to_utcp=to_utcp)


def _mark(args: argparse.Namespace) -> Mark | None:
    from utcp.gateway import Marks

    to_utcp, to_kernel = args.mark
    return Marks(args.seed, to_kernel=to_kernel, to_utcp=to_utcp) if to_utcp or to_kernel else None


def _open_capture(path: str, stack: contextlib.ExitStack) -> PcapngWriter:
    from utcp.trace.pcapng import PcapngWriter

    writer = PcapngWriter(path)
    stack.callback(writer.close)
    return writer


def _run_alone(gateway: Gateway, args: argparse.Namespace) -> int:
    with _on_signal(gateway.stop, signal.SIGINT, signal.SIGTERM):
        _announce(gateway, args.device)
        gateway.run()
    return 0


def _run_command(gateway: Gateway, args: argparse.Namespace) -> int:
    _announce(gateway, args.device)
    try:
        process = subprocess.Popen(args.command)
    except OSError as exc:
        raise OSError(exc.errno, f"cannot run {args.command[0]}: {exc.strerror}") from None

    def wait() -> None:
        process.wait()
        gateway.stop()

    waiter = threading.Thread(target=wait)
    waiter.start()
    # A terminal sends Ctrl-C to the command too, and the gateway serves it to its end
    with _on_signal(process.terminate, signal.SIGTERM), _on_signal(lambda: None, signal.SIGINT):
        try:
            gateway.run()
        except OSError:
            process.terminate()
            raise
        finally:
            waiter.join()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _on_signal(action: Callable[[], object], *signals: signal.Signals) -> Iterator[None]:
    before = [signal.signal(number, lambda *_: action()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _announce(gateway: Gateway, device: str) -> None:
    for kernel in gateway.kernel:
        print(f"{device}: the kernel's {kernel.interface.ip} is UDP {kernel.udp} to utcp", file=sys.stderr)
    for endpoint, addresses in _hosts(gateway).items():
        print(f"{device}: utcp at UDP {endpoint} is {' and '.join(addresses)} to the kernel", file=sys.stderr)
    if not gateway.tells_utcp_of_errors:
        print(f"{device}: ICMP errors from the kernel cannot be passed on to utcp without CAP_NET_RAW", file=sys.stderr)
    print(f"{device}: ready", file=sys.stderr, flush=True)


def _print_summary(gateway: Gateway, *, as_json: bool) -> None:
    counters = gateway.counters
    if as_json:
        print(json.dumps({"hosts": _hosts(gateway), **counters.as_dict()}), flush=True)
        return
    lines = [
        f"to utcp    {counters.segments_to_utcp:,} segments, {counters.bytes_to_utcp:,} bytes",
        f"to kernel  {counters.segments_to_kernel:,} segments, {counters.bytes_to_kernel:,} bytes",
    ]
    for name, counts in (("dropped", counters.drops), ("impaired", counters.impaired), ("icmp", counters.icmp)):
        if counts:
            lines.append(f"{name:<10} {', '.join(f'{key} {n:,}' for key, n in sorted(counts.items()))}")
    print("\n".join(lines), file=sys.stderr)


def _hosts(gateway: Gateway) -> dict[str, list[str]]:
    """The addresses under which the kernel knows each utcp endpoint."""
    routes = gateway.routes
    return {str(e): [routes.host_address(e, k) for k in range(len(gateway.kernel))] for e in list(routes.hosts)}


def _fail(text: str, code: int) -> int:
    print(f"utcp gateway: {text}", file=sys.stderr)
    return code


# Values of options


def _endpoint(text: str) -> Endpoint:
    from utcp.gateway import Endpoint

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    try:
        # The address as datagrams from there will show it
        found: tuple[Any, ...] = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0][4]
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{host}: {exc.strerror}") from None
    if ip_address(found[0].partition("%")[0]).is_unspecified:
        raise argparse.ArgumentTypeError(f"{text!r} stands for any address, and exactly one is needed")
    return Endpoint(found[0], found[1])


def _kernel_address(text: str) -> KernelAddress:
    from utcp.gateway import KernelAddress

    address, _, udp = text.partition("=")
    try:
        interface = ip_interface(address)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    if interface.network.num_addresses < 4:
        raise argparse.ArgumentTypeError(f"{interface.network} has no room for utcp hosts")
    return KernelAddress(interface, _endpoint(udp))


def _mtu(text: str) -> int:
    if not text.isdecimal() or not _MIN_MTU <= int(text) <= _MAX_MTU:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [{_MIN_MTU}, {_MAX_MTU}] (bytes)")
    return int(text)


def _both_directions(text: str) -> tuple[float, float]:
    first, comma, second = text.partition(",")
    try:
        return float(first), float(second if comma else first)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, or two joined by a comma") from None

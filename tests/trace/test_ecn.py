"""What traces show of ECN: the field of the IP header, ECE and CWR (RFC 3168)."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from rich.console import Console

from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.trace import Fanout, JsonLinesObserver, LadderObserver, PcapngObserver, capture
from utcp.trace.ladder import Ladder
from utcp.trace.merge import Merge
from utcp.trace.pcapng import ip_packet
from utcp.trace.records import Record, Recorder

# The field of each segment's IP header by which a marked exchange is known, and its flags in tcpdump's letters
EXCHANGE = [
    (0, "SEW"),
    (0, "S.E"),
    (0, "."),
    (3, "P."),  # the client's data, marked on the way
    (0, ".E"),
    (2, "P.W"),  # more of it: the window was reduced
    (0, "."),
]


class Feeder(Recorder):
    def __init__(self, merge: Merge, host: str) -> None:
        super().__init__()
        self._merge, self._host = merge, host

    def write(self, record: Record) -> None:
        self._merge.feed(self._host, record)


def exchange(client: Engine, server: Engine) -> None:
    """Two engines of documentation addresses; a router between them marks the client's first data."""
    a, b = ("192.0.2.1", 9000), ("192.0.2.2", 9000)
    there, back = client.path(a, b), server.path(b, a)
    server.listen(80)
    conn = client.connect(there, 80, 0, local_port=4000)
    now = 0

    def settle(mark: int = 0) -> None:
        nonlocal now
        moving = True
        while moving:
            now += 1_000_000
            outward = [(d, mark or t.ecn) for t in client.transmit(now) for d in t.datagrams()]
            for datagram, ecn in outward:
                server.receive(back, datagram, now, ecn=ecn)
            inward = [(d, t.ecn) for t in server.transmit(now) for d in t.datagrams()]
            for datagram, ecn in inward:
                client.receive(there, datagram, now, ecn=ecn)
            moving = bool(outward or inward)

    settle()
    conn.send(b"marked", now)
    settle(mark=3)
    conn.send(b"more", now)
    settle()


def traced(server: Fanout | JsonLinesObserver | PcapngObserver | LadderObserver | Feeder) -> None:
    """... and the server's observer sees it."""
    engine = Engine(Config(delayed_ack=0.0), observer=server)
    exchange(Engine(Config(ecn=True, nodelay=True)), engine)


def test_the_records() -> None:
    file = io.BytesIO()
    traced(JsonLinesObserver(file))
    records = [json.loads(line) for line in file.getvalue().splitlines()]
    segments = [record for record in records if record["event"].startswith("segment")]
    words = {0: None, 2: "ECT(0)", 3: "CE"}
    assert [(record.get("ecn"), record["flags"]) for record in segments] == [
        (words[ecn], flags) for ecn, flags in EXCHANGE
    ]


def test_a_fan_out_passes_it_on() -> None:
    files = io.BytesIO(), io.BytesIO()
    traced(Fanout(*map(JsonLinesObserver, files)))
    assert files[0].getvalue() == files[1].getvalue()
    assert b'"ecn":"CE"' in files[0].getvalue()


@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_the_field_in_a_captured_header(ecn: int) -> None:
    segment = bytes(20)
    assert ip_packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), segment, ecn)[1] == ecn
    v6 = ip_packet(ip_address("fd00::1"), ip_address("fd00::2"), segment, ecn)
    assert int.from_bytes(v6[:4], "big") >> 20 == 6 << 8 | ecn


def test_tshark_reads_it(tmp_path: Path) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    path = tmp_path / "ecn.pcapng"
    engine = Engine(Config(delayed_ack=0.0))
    with capture(engine, str(path)):
        exchange(Engine(Config(ecn=True, nodelay=True)), engine)
    fields = ["ip.dsfield.ecn", "tcp.flags.ece", "tcp.flags.cwr", "ip.checksum.status"]
    names = [word for field in fields for word in ("-e", field)]
    command = [tshark, "-r", str(path), "-o", "ip.check_checksum:TRUE", "-T", "fields", *names]
    rows = [line.split("\t") for line in subprocess.check_output(command, text=True).splitlines()]
    truth = {"1": True, "True": True, "0": False, "False": False}
    assert [(int(ecn, 0), truth[ece], truth[cwr]) for ecn, ece, cwr, _ in rows] == [
        (ecn, "E" in flags, "W" in flags) for ecn, flags in EXCHANGE
    ]
    assert {row[3] for row in rows} == {"1"}, "every IP checksum good"


def test_the_ladder_of_one_side() -> None:
    file = io.StringIO()
    observer = LadderObserver(file)
    traced(observer)
    observer.close()
    text = file.getvalue()
    for words in ("SEW SYN,ECE,CWR", "S.E SYN,ACK,ECE", "len=6 CE ", ".E  ACK,ECE", "P.W PSH,ACK,CWR"):
        assert words in text, text
    assert text.count(" CE ") == 1


def test_the_ladder_of_both() -> None:
    """A mark is seen where it arrives, and shown in the segment's line."""
    merge = Merge({"client": "CLOSED", "server": "LISTEN"})
    client = Engine(Config(ecn=True, nodelay=True), observer=Feeder(merge, "client"))
    exchange(client, Engine(Config(delayed_ack=0.0), observer=Feeder(merge, "server")))
    file = io.StringIO()
    ladder = Ladder(Console(file=file, width=100), "client", "server")
    steps = merge.take()
    for step in steps:
        ladder.show(step)
    assert [line for line in file.getvalue().splitlines() if " CE " in line and "len=6" in line]
    assert file.getvalue().count(" CE ") == 1

"""structlog events for the life of connections: opened, state changes, retransmissions, drops, closed with reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from utcp.core.states import State
from utcp.trace.tracer import Tracer, ports
from utcp.wire.segment import decode, flag_text

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class StructlogObserver(Tracer):
    """Logs to structlog: life and retransmissions at ``info``, drops at ``debug``.

    An engine without it pays nothing. With it, a segment that is neither dropped nor a retransmission costs a
    call that returns at once, and what the logger's level filters out is never formatted.
    """

    def __init__(self, logger: FilteringBoundLogger | None = None) -> None:
        """``logger``: ``structlog.get_logger("utcp")`` by default."""
        if logger is None:
            import structlog

            logger = structlog.get_logger("utcp")
        self._log: FilteringBoundLogger = logger

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        if not retransmission:
            return
        seg = decode(segment)
        ends = self._ends(path, seg.src_port, seg.dst_port)
        self._log.info("retransmission", **ends, flags=flag_text(seg.flags), seq=seg.seq, len=seg.data_len)

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        remote_port, local_port = ports(segment)
        ends = self._ends(path, local_port, remote_port)
        self._log.debug("segment dropped", **ends, reason=reason, size=len(segment))

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        ends = self._ends(path, local_port, remote_port)
        self._log.info("state change", **ends, old=str(old), new=str(new))
        if new == State.ESTABLISHED:
            self._log.info("connection opened", **ends)

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        local, peer = self.hosts(path)
        self._log.info("path mtu", local=local, peer=peer, old=old, new=new)

    def closed(self, now: int, path: int, local_port: int, remote_port: int, reason: str) -> None:
        self._log.info("connection closed", **self._ends(path, local_port, remote_port), reason=reason)

    def _ends(self, path: int, local_port: int, remote_port: int) -> dict[str, Any]:
        local, peer = self.endpoints(path, local_port, remote_port)
        return {"local": local, "peer": peer}

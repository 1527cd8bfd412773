"""TEMPORARY stand-in until the packed table is written; overwrite this file."""

from __future__ import annotations

from typing import final

from mypy_extensions import i64


@final
class TimeWaitTable:
    def __init__(self, seed: i64) -> None:
        self._r: dict[int, list[int]] = {}
        self._k: dict[int, int] = {}
        self._n: i64 = 0

    def insert(
        self,
        key: i64,
        snd_nxt: i64,
        rcv_nxt: i64,
        rcv_wnd: i64,
        ts_on: bool,
        ts_recent: i64,
        ts_last: i64,
        now: i64,
        duration: i64,
    ) -> None:
        self._n += 1
        self._k[key] = self._n
        self._r[key] = [snd_nxt, rcv_nxt, rcv_wnd, int(ts_on), ts_recent, ts_last, now + duration, duration, key]

    def find(self, key: i64) -> i64:
        return key if key in self._r else -1

    def snd_nxt(self, h: i64) -> i64:
        return self._r[h][0]

    def rcv_nxt(self, h: i64) -> i64:
        return self._r[h][1]

    def rcv_wnd(self, h: i64) -> i64:
        return self._r[h][2]

    def ts_on(self, h: i64) -> bool:
        return self._r[h][3] != 0

    def ts_recent(self, h: i64) -> i64:
        return self._r[h][4]

    def ts_last(self, h: i64) -> i64:
        return self._r[h][5]

    def update(self, h: i64, ts_recent: i64, ts_last: i64) -> None:
        self._r[h][4] = ts_recent
        self._r[h][5] = ts_last

    def restart(self, h: i64, now: i64) -> None:
        self._r[h][6] = now + self._r[h][7]

    def remove(self, h: i64) -> None:
        del self._r[h]

    def next_deadline(self) -> i64:
        return min((r[6] for r in self._r.values()), default=-1)

    def pop_expired(self, now: i64) -> i64:
        for key, r in self._r.items():
            if r[6] <= now:
                del self._r[key]
                return key
        return -1

    def pop_oldest(self) -> i64:
        key = min(self._r, key=lambda k: self._r[k][6])
        del self._r[key]
        return key

    def __len__(self) -> int:
        return len(self._r)

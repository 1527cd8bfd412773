"""Config: bounds and types of every field, profiles, and the engine's view of it."""

from __future__ import annotations

import pickle
import re
from dataclasses import FrozenInstanceError, fields, replace
from math import inf, nan
from typing import Any

import pytest

from utcp.core.config import CONNECTION_OPTIONS, Config, Policy, policy_of
from utcp.core.congestion import NewReno
from utcp.core.policy import MAX_MSS

NAMES = [one.name for one in fields(Config)]

# field: default, lower bound, upper bound, whether None is allowed
SECONDS: dict[str, tuple[float | None, float, float]] = {
    "rto_initial": (1.0, 0.001, 60),
    "rto_min": (0.2, 0.001, 60),
    "rto_max": (60.0, 1, 3600),
    "delayed_ack": (0.04, 0, 0.499),
    "r2": (120.0, 0.001, 86_400),
    "syn_r2": (180.0, 0.001, 86_400),
    "syn_ack_timeout": (63.0, 0.001, 86_400),
    "persist_max": (60.0, 0.001, 3600),
    "user_timeout": (None, 0.001, 86_400),
    "keepalive_idle": (7200.0, 0.001, 7 * 86_400),
    "keepalive_interval": (75.0, 0.001, 86_400),
    "connect_timeout": (None, 0.001, 86_400),
    "msl": (30.0, 0, 86_400),
    "fin_timeout": (60.0, 0, 86_400),
    "orphan_timeout": (60.0, 0, 86_400),
    "close_timeout": (30.0, 0, 86_400),
    "linger": (None, 0, 86_400),
    "challenge_ack_interval": (0.5, 0, 60),
    "mtu_probe_interval": (600.0, 0.001, 86_400),
}
COUNTS: dict[str, tuple[int | None, int, int]] = {
    "r1": (3, 1, 255),
    "initial_window": (10, 1, 1000),
    "mtu_probing": (2, 0, 2),
    "base_mss": (1180, 528, 65_487),
    "keepalive_count": (9, 2, 127),
    "pacing_ss_ratio": (200, 100, 1000),
    "pacing_ca_ratio": (120, 100, 1000),
    "max_orphans": (65_536, 0, 1 << 26),
    "max_connections": (1_048_576, 0, 1 << 26),
    "max_half_open": (65_536, 0, 1 << 26),
    "max_memory": (1 << 30, 0, 1 << 50),
    "max_segment_size": (None, 64, 65_495),
    "receive_buffer": (None, 1, 1 << 30),
    "initial_receive_buffer": (131_072, 1, 1 << 30),
    "max_receive_buffer": (6_291_456, 1, 1 << 30),
    "send_buffer": (4_194_304, 1, 1 << 30),
    "challenge_ack_limit": (1000, 0, 1_000_000),
    "max_time_wait": (1_048_576, 0, 1 << 26),
}
SWITCHES = {
    "user_timeout_option": False,
    "keepalive": False,
    "nodelay": False,
    "pacing": True,
    "window_scaling": True,
    "timestamps": True,
    "sack": True,
    "dsack": True,
    "rack": True,
    "tlp": True,
    "frto": True,
    "undo": True,
    "rfc5961_rst": True,
    "rfc5961_syn": True,
    "syn_cookies": True,
    "drop_syn_fin": False,
    "rfc1337": True,
    "time_wait_reuse": True,
}
OPTIONAL = {"connect_timeout", "user_timeout", "linger", "max_segment_size", "receive_buffer"}
NUMBERS = {**SECONDS, **COUNTS}
OTHERS = {"congestion_control": "cubic", "ecn": "passive"}


def config(name: str, value: object) -> Config:
    return Config(**{name: value})  # type: ignore[arg-type]


def test_the_tables_of_this_file_are_complete() -> None:
    assert set(NUMBERS) | set(SWITCHES) | set(OTHERS) == set(NAMES)


def test_defaults() -> None:
    defaults = {name: default for name, (default, _, _) in NUMBERS.items()} | SWITCHES | OTHERS
    assert {name: getattr(Config(), name) for name in NAMES} == defaults


@pytest.mark.parametrize("name", NUMBERS)
def test_bounds(name: str) -> None:
    _, lo, hi = NUMBERS[name]
    step = 1e-6 if name in SECONDS else 1
    for good in (lo, hi):
        if name != "rto_min":
            assert getattr(config(name, good), name) == good
    for bad in (lo - step, hi + step, -(10**400), 10**400):
        with pytest.raises(ValueError, match=rf"^{name}: .* is not in \[.*\] \(.+\)$") as error:
            config(name, bad)
        assert str(bad) in str(error.value)


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_finite_numbers(name: str) -> None:
    for bad in (nan, inf, -inf):
        with pytest.raises(ValueError, match=f"^{name}: "):
            config(name, bad)
    whole = 0 if name == "delayed_ack" else 1
    assert getattr(config(name, whole), name) == whole
    others: tuple[object, ...] = ("1", True, b"", [], 1j)
    for other in others:
        with pytest.raises(TypeError, match=rf"^{name}: .* is not a float$"):
            config(name, other)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_ints(name: str) -> None:
    for other in ("100", 100.0, True, nan):
        with pytest.raises(TypeError, match=rf"^{name}: .* is not an int$"):
            config(name, other)


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_are_bools(name: str) -> None:
    for other in (0, 1, None, "yes"):
        with pytest.raises(TypeError, match=rf"^{name}: .* is not a bool$"):
            config(name, other)
    assert getattr(config(name, not SWITCHES[name]), name) is not SWITCHES[name]


def test_ecn_is_a_bool_or_passive() -> None:
    """... and Linux's number for it in the end."""
    assert [policy_of(Config(ecn=choice)).ecn for choice in (False, True, "passive")] == [0, 1, 2]
    for other in (0, 1, 2, None):
        with pytest.raises(TypeError, match=rf"^ecn: {other} is neither a bool nor a str$"):
            config("ecn", other)
    with pytest.raises(ValueError, match=r"^ecn: 'on' is not in \[False, True, 'passive'\]$"):
        config("ecn", "on")


@pytest.mark.parametrize("name", NUMBERS)
def test_none_where_it_says_so(name: str) -> None:
    if name in OPTIONAL:
        assert getattr(config(name, None), name) is None
        assert getattr(policy_of(config(name, None)), name) == (MAX_MSS if name == "max_segment_size" else -1)
    else:
        with pytest.raises(TypeError, match=f"^{name}: None"):
            config(name, None)


def test_rto_max_is_not_below_rto_min() -> None:
    with pytest.raises(ValueError, match=r"^rto_max: 4 is not in \[5, 3600\.0\] \(seconds; from rto_min\)$"):
        Config(rto_min=5, rto_max=4)
    assert Config(rto_min=60, rto_max=60).rto_min == 60


def test_keyword_only_frozen_and_replaceable() -> None:
    one = Config(msl=1.0)
    with pytest.raises(TypeError):
        Config(1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such_field"):
        config("no_such_field", 1)
    with pytest.raises(FrozenInstanceError):
        one.msl = 2.0  # type: ignore[misc]
    assert replace(one, r1=5) == Config(msl=1.0, r1=5)
    with pytest.raises(ValueError, match=r"^msl: "):
        replace(one, msl=-1.0)
    policy_of(one)
    assert pickle.loads(pickle.dumps(one)) == one


def test_every_field_is_documented_with_its_default() -> None:
    text = Config.__doc__
    assert text is not None
    for name in NAMES:
        default = getattr(Config(), name)
        shown = f"{default:_}" if type(default) is int else str(default)
        assert re.search(rf"^ +{name}: {re.escape(shown)}", text, re.MULTILINE), name


@pytest.mark.parametrize("name", NAMES)
def test_policy_has_every_field(name: str) -> None:
    changed: Any
    if name in SECONDS:
        changed = 0.25 if name != "rto_max" else 1.25
        expected = round(changed * 1_000_000_000)
    elif name == "congestion_control":
        changed, expected = "reno", NewReno
    elif name == "ecn":
        changed, expected = True, 1
    elif name in COUNTS:
        _, lo, hi = COUNTS[name]
        changed = expected = min(max(110, lo), hi - 1)
    else:
        changed = expected = not SWITCHES[name]
    policy = policy_of(config(name, changed))
    assert getattr(policy, name) == expected
    assert type(getattr(policy, name)) is type(expected)
    others = [other for other in NAMES if other != name]
    assert [getattr(policy, other) for other in others] == [getattr(policy_of(Config()), other) for other in others]


def test_equal_configs_share_a_policy() -> None:
    assert isinstance(policy_of(Config()), Policy)
    assert policy_of(Config(msl=7.0)) is policy_of(Config(msl=7.0))
    assert policy_of(Config(msl=7.0)) is not policy_of(Config(msl=8.0))


def test_connection_options_are_fields() -> None:
    assert set(NAMES) >= CONNECTION_OPTIONS


@pytest.mark.parametrize("profile", [Config.linux, Config.rfc9293, Config.freebsd])
def test_profiles_take_overrides(profile: Any) -> None:
    assert profile() != Config()
    assert profile(msl=0.5, rto_min=0.7) == replace(profile(), msl=0.5, rto_min=0.7)
    with pytest.raises(ValueError, match=r"^msl: "):
        profile(msl=-1)


def test_profiles_differ_where_their_stacks_do() -> None:
    assert not Config.linux().rfc1337
    standard = Config.rfc9293()
    assert (standard.msl, standard.rto_min, standard.rfc1337, standard.time_wait_reuse) == (120.0, 1.0, False, False)
    assert standard.challenge_ack_interval == 0
    assert Config.freebsd().challenge_ack_interval == 0
    assert Config.freebsd().rfc1337

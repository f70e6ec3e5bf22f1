"""Ports of an engine: 8000 and 4200 when free, else the next free ones; a chosen one that is taken is an error."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from gpt_trader.errors import Problem, Refused

#: How far beyond the default port we look.
_REACH: Final = 100


@dataclass(frozen=True)
class Port:
    """A free port, held against other engines of this machine until `release`."""

    number: int
    wanted: int
    _claim: socket.socket | None

    @property
    def moved(self) -> bool:
        """Whether the wanted port was taken and this is another."""
        return self.wanted not in (0, self.number)

    def release(self) -> None:
        """Let other engines have the port."""
        if self._claim is not None:
            self._claim.close()


def choose_port(field: str, wanted: int, *, host: str, chosen: bool) -> Port:
    """Return a free port.

    Args:
        field: The setting's name, for the message.
        wanted: The port to take when free; 0 takes any.
        host: The address the part will bind.
        chosen: Whether the user asked for `wanted`: then another one will not do.

    Raises:
        Refused: The chosen port is taken, may not be bound, or no port in reach is free.
    """
    if wanted == 0:
        return _any_port(host)
    for number in [wanted] if chosen else range(wanted, min(wanted + _REACH, 65536)):
        claim = _claim(number)
        if claim is not None or not _claims_work():
            why = _why_not(host, number)
            if why is None:
                return Port(number, wanted, claim)
            if claim is not None:
                claim.close()
            if why == "forbidden":
                raise Refused.of(
                    Problem(
                        field, wanted, f"this user may not bind port {wanted}", "a port above 1023, 0: any"
                    )
                )
            if why == "no such address":
                raise Refused.of(Problem("api_host", host, "this machine has no such address", "127.0.0.1"))
    message = f"port {wanted} is taken" + ("" if chosen else f", and so are the {_REACH} after it")
    raise Refused.of(Problem(field, wanted, message, "a free port, or 0 for any"))


def _any_port(host: str) -> Port:
    for _ in range(_REACH):
        with closing(socket.socket(_family(host))) as probe:
            probe.bind((host, 0))
            number = int(probe.getsockname()[1])
        claim = _claim(number)
        if claim is not None or not _claims_work():
            return Port(number, 0, claim)
    raise Refused(f"no free port on {host}")


def _why_not(host: str, number: int) -> str | None:
    """Return None if a server could bind host:number now, else the reason."""
    with closing(socket.socket(_family(host))) as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            reasons = {errno.EACCES: "forbidden", errno.EADDRNOTAVAIL: "no such address"}
            return reasons.get(error.errno or 0, "taken")
    # macOS lets us bind 127.0.0.1 beside a server on 0.0.0.0, so ask whether somebody answers.
    with closing(socket.socket(_family(host))) as probe:
        probe.settimeout(0.5)
        return "taken" if probe.connect_ex((host, number)) == 0 else None


def _claim(number: int) -> socket.socket | None:
    """Hold `number` against engines that start at the same time: its server binds only seconds from now.

    An abstract socket name is as wide as the ports are (the network namespace) and goes with the process.
    """
    if not _claims_work():
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0gpt-trader/port/{number}")
    except OSError:
        claim.close()
        return None
    return claim


def _claims_work() -> bool:
    return sys.platform == "linux"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

"""What the DNS learner would have learned, written by hand: addresses, classes, and times in seconds from now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from agent.datapath.bpf import fqdn_layout, rows
from agent.model import net

SECOND_NS = 1_000_000_000
VALID_S, EXPIRED_S = 3600.0, -0.001


class Learned:
    """Writes and reads `fqdn_learned`."""

    def __init__(self, descriptor: int) -> None:
        """Use the open map."""
        self._map = descriptor

    def put(
        self, endpoint: int, address: net.Address, classes: Mapping[int, float], *, datagrams_until_s: int = 0
    ) -> None:
        """Have an endpoint know an address for these classes, each for so many seconds; nothing has used it.

        `datagrams_until_s`: how many seconds ahead of now, for each class, or, if negative, past.
        """
        now_ns = clock_ns()
        until_s = now_ns // SECOND_NS + datagrams_until_s if datagrams_until_s else 0
        words: list[int] = []
        for class_, left_s in classes.items():
            words += [class_, until_s, now_ns + round(left_s * SECOND_NS)]
        words += [0] * (fqdn_layout.CLASS_WORDS * fqdn_layout.CLASSES - len(words))
        rows.update(
            self._map, fqdn_layout.encode_learned_key(endpoint, address), fqdn_layout.LEARNED_VALUE.pack(*words, 0, 0)
        )

    def used_ns(self, endpoint: int, address: net.Address) -> int:
        """Return when the address was last used; 0: never."""
        used_ns, _ = self._words(endpoint, address)[-2:]
        return used_ns

    def datagrams_until_s(self, endpoint: int, address: net.Address) -> list[int]:
        """Return until when datagrams go on, for each class."""
        words = self._words(endpoint, address)
        return [words[fqdn_layout.CLASS_WORDS * index + 1] for index in range(fqdn_layout.CLASSES)]

    def _words(self, endpoint: int, address: net.Address) -> Sequence[int]:
        key = fqdn_layout.encode_learned_key(endpoint, address)
        raw = rows.lookup(self._map, key, fqdn_layout.LEARNED_VALUE.size)
        assert raw is not None
        return fqdn_layout.LEARNED_VALUE.unpack(raw)

    def clear(self) -> None:
        """Forget everything."""
        rows.delete_batch(self._map, [key for key, _ in rows.dump(self._map)])


def clock_ns() -> int:
    """Return the learner's clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

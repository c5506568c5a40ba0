"""What networks of devices in the field are like, by name."""

from dataclasses import dataclass

MEGABIT = 125_000.0


@dataclass(frozen=True)
class Profile:
    """One direction of a link: `delay` and `jitter` in seconds, `loss` as a share of the packets, `rate` in bytes a
    second, 0 without a bound. It works for `up` seconds, then lets nothing pass for `down`, and so on."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    up: float = 1.0
    down: float = 0.0

    def passes(self, now: float) -> bool:
        """Whether it works at this moment; a link that is switched over begins by working, if it ever does."""
        return now % (self.up + self.down) < self.up


PROFILES = {
    "lan": Profile(),
    "offline": Profile(up=0.0, down=1.0),
    # 600 ms there and back; two of a hundred packets are lost on each way.
    "satellite": Profile(delay=0.3, jitter=0.02, loss=0.02, rate=10 * MEGABIT),
    "3g": Profile(delay=0.075, jitter=0.03, loss=0.002, rate=1.6 * MEGABIT),
    "on-off": Profile(delay=0.02, jitter=0.005, rate=1 * MEGABIT, up=4.0, down=3.0),
}

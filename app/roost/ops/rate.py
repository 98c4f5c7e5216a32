"""How fast a download goes, over the last seconds, and when it will be done: pure arithmetic."""

from __future__ import annotations

from collections import deque

WINDOW_S = 15.0
MEBIBYTE = 1 << 20


class Rate:
    """Bytes a second over the last WINDOW_S seconds of a download that starts at byte `have`, at time `now` in s."""

    def __init__(self, have: int, now: float) -> None:
        self.seen = deque([(now, have)])

    def note(self, have: int, now: float) -> None:
        """Take in that `have` bytes are there at time `now`."""
        self.seen.append((now, have))
        while len(self.seen) > 2 and now - self.seen[1][0] >= WINDOW_S:
            self.seen.popleft()

    @property
    def per_second(self) -> float:
        """Return bytes a second; 0 when nothing is known yet."""
        (began, first), (now, have) = self.seen[0], self.seen[-1]
        return (have - first) / (now - began) if now > began else 0.0

    def line(self, total: int | None) -> str:
        """Say how far it is: `Downloaded 12 of 94 MiB, 8.3 MiB/s, 10 s left`."""
        have, speed = self.seen[-1][1], self.per_second
        of = f" of {total / MEBIBYTE:.0f}" if total else ""
        left = f", {duration((total - have) / speed)} left" if total and speed else ""
        return f"Downloaded {have / MEBIBYTE:.0f}{of} MiB, {speed / MEBIBYTE:.1f} MiB/s{left}"


def duration(seconds: float) -> str:
    """Write a time for people: `50 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

"""Whose turn it is: the order in which waiting targets begin. Pure.

Fair between users: first the one of whom the fewest targets run, of those the one who was served longest ago, of those
the one whose oldest target waits longest. Of one user the oldest target first.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.builds.model import ArtifactKind


@dataclass(frozen=True)
class Waiting:
    """A target that waits for its turn. `created` is its build's, `position` its place in the build."""

    build_id: str
    key: str
    user_id: str
    profile: str
    kind: ArtifactKind
    created: float
    position: int = 0
    cache_key: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """Build's id and target's key."""
        return self.build_id, self.key

    @property
    def age(self) -> tuple[float, str, int]:
        """Smaller for what waits longer."""
        return self.created, self.build_id, self.position


@dataclass(frozen=True)
class Load:
    """What runs now, by user, and when a target of each user began last; users that are not named: 0."""

    running: Mapping[str, int] = field(default_factory=dict)
    served: Mapping[str, float] = field(default_factory=dict)


def next_to_begin(
    waiting: Iterable[Waiting], load: Load, per_user: int, may: Callable[[Waiting], bool]
) -> Waiting | None:
    """The target to begin now, of those that `may`, where no user has more than `per_user` running at a time."""
    for user_id, own in _in_turn(_by_user(waiting), load):
        if load.running.get(user_id, 0) < per_user and (found := next(filter(may, own), None)) is not None:
            return found
    return None


def in_order(waiting: Iterable[Waiting], load: Load) -> Iterator[Waiting]:
    """All of them in the order in which they begin, when nothing holds any of them back."""
    own = {user_id: deque(waits) for user_id, waits in _by_user(waiting).items()}
    # Who is served here is served after all who were served in the past: 1 and a count in place of 0 and a time.
    turns = [
        (load.running.get(user_id, 0), 0, load.served.get(user_id, 0.0), waits[0].age, user_id)
        for user_id, waits in own.items()
    ]
    heapq.heapify(turns)
    begun = 0
    while turns:
        running, _, _, _, user_id = turns[0]
        yield own[user_id].popleft()
        begun += 1
        if own[user_id]:
            heapq.heapreplace(turns, (running + 1, 1, float(begun), own[user_id][0].age, user_id))
        else:
            heapq.heappop(turns)


def positions(waiting: Iterable[Waiting], load: Load) -> dict[tuple[str, str], int]:
    """Build's id and target's key -> how many begin before it, plus one."""
    return {one.name: number for number, one in enumerate(in_order(waiting, load), start=1)}


def _by_user(waiting: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    found: dict[str, list[Waiting]] = {}
    for one in sorted(waiting, key=lambda one: one.age):
        found.setdefault(one.user_id, []).append(one)
    return found


def _in_turn(own: Mapping[str, Sequence[Waiting]], load: Load) -> list[tuple[str, Sequence[Waiting]]]:
    def turn(entry: tuple[str, Sequence[Waiting]]) -> tuple[int, float, tuple[float, str, int]]:
        user_id, waiting = entry
        return load.running.get(user_id, 0), load.served.get(user_id, 0.0), waiting[0].age

    return sorted(own.items(), key=turn)

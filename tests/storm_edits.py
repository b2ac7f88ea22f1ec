"""What the clients of a storm do: groups of edits that show whether one was lost, repeated, torn or reordered.

Each client has a name, and its groups have numbers from 1 on; what a group does follows from the seed, the name, the
number and what the client's own text is, so that whoever checks can do it again.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Group:
    """One group: it is one change, stored whole or not at all."""

    number: int
    token: str  # Names this group in what all share.
    logs: bool  # Appends the token to the shared list.
    writes: bool  # Appends it to the shared text.
    counts: bool  # Sets the client's field of the shared object to the number.
    creates: bool  # Creates an object with the token.
    splice: tuple[int, int, str]  # Of the client's own text.


@dataclass(slots=True)
class Story:
    """What a client's groups make of what is its own."""

    seed: int
    name: str
    text: str = ""
    log: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    count: int = 0
    created: list[str] = field(default_factory=list)
    last: int = 0

    def group(self, number: int) -> Group:
        """What the group of this number does, after all that was told before."""
        chance = random.Random(f"{self.seed} {self.name} {number}")
        start = chance.randint(0, len(self.text))
        gone = chance.randint(0, min(3, len(self.text) - start))
        inserted = chance.choice(("", "a", "bc", "日本", "🥕"))
        return Group(
            number,
            f"{self.name}:{number}",
            logs=chance.random() < 0.5,
            writes=chance.random() < 0.5,
            counts=chance.random() < 0.5,
            creates=chance.random() < 0.2,
            splice=(start, gone, inserted),
        )

    def tell(self, group: Group) -> None:
        """The group is stored."""
        start, gone, inserted = group.splice
        self.text = self.text[:start] + inserted + self.text[start + gone :]
        self.last = group.number
        if group.logs:
            self.log.append(group.token)
        if group.writes:
            self.written.append(group.token)
        if group.counts:
            self.count = group.number
        if group.creates:
            self.created.append(group.token)


def by_writer(tokens: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of the groups of each client, in the order of the tokens."""
    found: dict[str, list[int]] = {}
    for token in tokens:
        name, _, number = token.partition(":")
        found.setdefault(name, []).append(int(number))
    return found


def tokens_of(text: str) -> list[str]:
    """The tokens in a text, each of which has a semicolon after it."""
    return text.split(";")[:-1]

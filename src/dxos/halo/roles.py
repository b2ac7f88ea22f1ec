"""What a member may do in a space, and how feeds are designated; the numbers are the wire's."""

from enum import Enum
from typing import Final

from dxos.errors import DecodeError


# Not an IntEnum, which would print itself as a bare number.
class SpaceRole(int, Enum):
    """The role of one member of one space."""

    INVALID = 0
    ADMIN = 1  # Reads, writes, and admits or removes others.
    EDITOR = 2  # Reads and writes.
    READER = 3  # Reads.
    OWNER = 4  # An ADMIN that nobody can remove or demote.
    REMOVED = 5  # Was a member.

    @property
    def is_member(self) -> bool:
        """Whether the role is that of a present member."""
        return self in _MEMBERS

    @property
    def may_admit(self) -> bool:
        """Whether the role lets its holder change the roles of others."""
        return self in _ADMITTERS

    @property
    def may_write(self) -> bool:
        """Whether the role lets its holder change objects."""
        return self in _WRITERS

    @classmethod
    def from_wire(cls, number: int) -> "SpaceRole":
        """The role with that number.

        Raises:
            DecodeError: No such role.
        """
        try:
            return cls(number)
        except ValueError:
            raise DecodeError("An unknown role.", role=number) from None


_ADMITTERS: Final = frozenset({SpaceRole.OWNER, SpaceRole.ADMIN})
_WRITERS: Final = _ADMITTERS | {SpaceRole.EDITOR}
_MEMBERS: Final = _WRITERS | {SpaceRole.READER}


class FeedDesignation(int, Enum):
    """What a feed of a space carries."""

    GENERAL = 0
    CONTROL = 1  # Credentials.
    DATA = 2  # Changes to objects, before 0.8; today it stays empty.

    @classmethod
    def from_wire(cls, number: int) -> "FeedDesignation":
        """The designation with that number.

        Raises:
            DecodeError: No such designation.
        """
        try:
            return cls(number)
        except ValueError:
            raise DecodeError("An unknown feed designation.", designation=number) from None

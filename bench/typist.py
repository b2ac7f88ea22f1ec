"""A trace of somebody who writes a long text, made from a seed: the size of the automerge-paper trace, and as it runs.

Mostly typing on from the cursor, one character an edit, with words and line breaks; now and then a few characters back;
now and then the cursor moves, mostly not far.
"""

import random

SEED = 20_260_501
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"

Edit = tuple[int, int, str]  # Where, how many characters go, and what comes: one character goes or comes.


def edits_of_trace(count: int, seed: int = SEED) -> list[Edit]:
    """So many edits of one character each, of a text that is empty at first; the same for the same seed."""
    chance = random.Random(seed)
    edits: list[Edit] = []
    length = cursor = going = 0
    while len(edits) < count:
        kind = chance.random()
        if going == 0 and kind < 0.02:
            going = chance.randint(1, 12)
        elif going == 0 and kind < 0.03:
            near = cursor + chance.randint(-200, 200) if chance.random() < 0.8 else chance.randint(0, length)
            cursor = min(max(near, 0), length)
        if going and cursor:
            going, cursor, length = going - 1, cursor - 1, length - 1
            edits.append((cursor, 1, ""))
            continue
        going = 0
        space = chance.random()
        typed = "\n" if space < 0.01 else " " if space < 0.17 else chance.choice(_LETTERS)
        edits.append((cursor, 0, typed))
        cursor, length = cursor + 1, length + 1
    return edits

"""A library's catalogue of invented books, the same for the same seed, to try `dx` on many records.

    python generate.py --seed 7 --records 30000 --out books.csv
    dx space import books.csv --name Library --type example.org/type/Book

The ending of the file says its form: `.csv`, which `dx space import` takes, or `.json`, a list which `dx object add`
reads from standard input. Nobody wrote these books; the words are chosen one by one by a random generator.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What is chosen from, a line for each kind.
WORDS = """
first: Ada, Bruno, Carla, Dario, Elin, Faris, Greta, Hana, Ilse, Jonas, Karim, Lena, Mira, Nils, Olga, Pavel, Rosa, \
Samir, Tove, Uri
last: Abend, Birke, Castell, Dorn, Elster, Falk, Grau, Hazel, Imhof, Juniper, Kessel, Linde, Marsh, Nadir, Ostrow, Penn
adjective: Quiet, Broken, Second, Green, Distant, Paper, Borrowed, Winter, Hollow, Patient, Crooked, Salted, Blue, Last
noun: Harbour, Orchard, Lantern, Bridge, River, Archive, Garden, Kitchen, Island, Compass, Letter, Mountain, Mirror, \
Train
place: the North, the Coast, Two Rooms, an Old Town, the Valley, Seven Streets, the Night, a Small Country
verb: loses, finds, repairs, remembers, sells, hides, translates, paints, follows, forgets
thing: a map, the key to a mill, her father's boat, a box of letters, one year of her life, the only bridge
genre: novel, poetry, history, cooking, travel, science, children, crime
language: de, en, es, fi, fr, it, pl, sv
tag: illustrated, translated, signed, rare, large-print, donated, reference, new
"""
PAGES = (48, 900)
YEARS = (1890, 2024)
SHELVES = 240


def books(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """So many books; the first ones do not depend on how many follow."""
    chance = random.Random(seed)
    lists = {kind: words.split(", ") for kind, _, words in (one.partition(": ") for one in WORDS.split("\n") if one)}

    def one(kind: str) -> str:
        return chance.choice(lists[kind])

    for number in range(1, count + 1):
        author = f"{one('first')} {one('last')}"
        title = f"The {one('adjective')} {one('noun')}"
        if chance.random() < 0.5:
            title += f" of {one('place')}"
        book: dict[str, Any] = {
            "number": number,
            "title": title,
            "author": author,
            "year": chance.randint(*YEARS),
            "pages": chance.randint(*PAGES),
            "genre": one("genre"),
            "language": one("language"),
            "tags": chance.sample(lists["tag"], chance.randint(0, 3)),
            "place": {"shelf": chance.randint(1, SHELVES), "floor": chance.randint(0, 3)},
            "summary": f"Somebody {one('verb')} {one('thing')} in {one('place')}, "
            f"and {one('first')} {one('verb')} {one('thing')}.",
        }
        if chance.random() < 0.1:
            book["lent_to"] = one("first")
        yield book


def write(path: Path, found: list[dict[str, Any]]) -> None:
    """Write a file in the form that its name says."""
    if path.suffix == ".json":
        lines = ",\n".join(json.dumps(book) for book in found)
        path.write_text(f"[{lines}]\n", encoding="utf-8")
        return
    names = list(dict.fromkeys(name for book in found for name in book))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        # A cell is a text, or JSON for any other value; an empty one is no property.
        table.writerows([_cell(book[name]) if name in book else "" for name in names] for book in found)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main() -> None:
    """Read the command line, and write the file."""
    parser = argparse.ArgumentParser(description="Write a catalogue of invented books.")
    parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same books (7)")
    parser.add_argument("--records", type=int, default=30_000, help="how many (30000)")
    parser.add_argument("--out", type=Path, default=Path("books.csv"), help="a .csv or .json file (books.csv)")
    given = parser.parse_args()
    if given.out.suffix not in (".csv", ".json"):
        parser.error(f"{given.out.name} ends neither in .csv nor in .json")
    write(given.out, list(books(given.seed, given.records)))
    print(f"Wrote {given.records} books to {given.out}.")


if __name__ == "__main__":
    main()

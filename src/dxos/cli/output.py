"""What a command prints: results on stdout, for people or as JSON; everything said on the way on stderr.

A command makes one plain document; how it looks to people is a function of that document, so both say the same. Much of
what is shown was written by other peers, so control characters never reach the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, final

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.status import Status

Document = Mapping[str, Any] | Sequence[Any]
Render = Callable[[Any], "RenderableType"]

# Escape sequences can rewrite what a terminal shows; marks of direction can make one text look like another.
_CONTROLS: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROLS_AND_BREAKS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WIDTH_WITHOUT_TERMINAL: Final = 10_000
_BAR_CHARS: Final = 30
_GAP_CELLS: Final = 2  # Between the columns of a table.


def visible(text: str, *, lines: bool = False) -> str:
    """Text from elsewhere, with what a terminal would act upon written as an escape.

    Args:
        text: Anything.
        lines: Whether line feeds stay.
    """
    return (_CONTROLS if lines else _CONTROLS_AND_BREAKS).sub(_escaped, text)


def as_json(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON text whose characters are all visible."""
    return visible(json.dumps(document, ensure_ascii=False, indent=indent), lines=True)


class Say(Protocol):
    """Says what is being waited for, and how much of it is done, from 0 to 1, where that is known."""

    def __call__(self, sentence: str, fraction: float | None = None) -> None: ...


@final
class Output:
    """Where one command prints.

    Args:
        json: One JSON document for each result, on a line of its own, instead of text for people.
        stdout: For results; None: the process's.
        stderr: For messages; None: the process's.
    """

    def __init__(self, *, json: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.json: Final = json
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._status: Status | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at the messages."""
        return self._stderr.isatty()

    def result(self, document: Document, render: Render) -> None:
        """Print what the command was asked for; a command that goes on prints one document after the other."""
        if self.json:
            self._stdout.write(as_json(document) + "\n")
        else:
            self._print(self._stdout, render(document))
        # Whoever reads a stream through a pipe wants each line when it happens.
        self._stdout.flush()

    def text(self, text: str) -> None:
        """Print the result as text in a form of its own, such as CSV; a terminal gets no control characters."""
        if self._stdout.isatty():
            text = visible("\n".join(text.splitlines()) + "\n", lines=True)
        self._stdout.write(text)
        self._stdout.flush()

    def say(self, sentence: str) -> None:
        """Tell a person what is happening."""
        if self._status is not None:
            self._status.console.print(visible(sentence, lines=True))
            return
        self._stderr.write(visible(sentence, lines=True) + "\n")
        self._stderr.flush()

    @contextmanager
    def progress(self) -> Iterator[Say]:
        """A line that says what is being waited for: renewed in place on a terminal, else a line for each change.

        How much is done is for people who watch: it is not said where nobody does.
        """
        if self.json or not self.is_terminal:
            said: list[str] = []

            def say_change(sentence: str, fraction: float | None = None) -> None:
                if fraction is None and said != [sentence]:
                    said[:] = [sentence]
                    self.say(sentence)

            yield say_change
            return
        console = self._console(self._stderr)
        with console.status("") as status:
            self._status = status
            try:
                yield lambda sentence, fraction=None: status.update(_progress_line(sentence, fraction))
            finally:
                self._status = None

    def draw(self, picture: str) -> None:
        """Show a person lines of ours that say nothing in words."""
        self._stderr.write(picture + "\n")
        self._stderr.flush()

    def prompt(self, question: str) -> None:
        """Ask, and leave the cursor there."""
        self._stderr.write(visible(question))
        self._stderr.flush()

    def error(self, code: str, message: str) -> None:
        """Say why the command ends without its result."""
        if self.json:
            self._stdout.write(as_json({"error": {"code": code, "message": message}}) + "\n")
            self._stdout.flush()
        self.say(message)

    def _print(self, file: TextIO, renderable: RenderableType) -> None:
        if not file.isatty():
            console = self._console(file)
            with console.capture() as capture:
                console.print(renderable)
            # Tables fill their last column up with spaces.
            file.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
            return
        from rich.text import Text

        # A line that is renewed steps aside. The terminal breaks long lines of text itself, so that
        # a code that is copied from it is in one piece.
        console = self._console(file) if self._status is None else self._status.console
        console.print(renderable, soft_wrap=isinstance(renderable, Text))

    @staticmethod
    def _console(file: TextIO) -> Console:
        from rich.console import Console

        # Tables must not be cut to a terminal's width where there is none.
        width = None if file.isatty() else _WIDTH_WITHOUT_TERMINAL
        return Console(file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=width is not None)


def _progress_line(sentence: str, fraction: float | None) -> RenderableType:
    from rich.text import Text

    text = Text(visible(sentence))
    if fraction is None:
        return text
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=1.0, completed=fraction, width=_BAR_CHARS), text)
    return line


def fields(labels: Mapping[str, str]) -> Render:
    """How a document looks as one `label  value` line for each of its named entries that says something."""

    def render(document: Mapping[str, Any]) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, label in labels.items():
            if document.get(name) is not None:
                table.add_row(Text(label, style="bold"), Text(cell(document[name]), overflow="fold"))
        return table

    return render


def rows(labels: Mapping[str, str], *, empty: str, wide: str | None = None) -> Render:
    """How a list of documents looks as a table.

    Args:
        labels: The heading of each column, by the name of its entry.
        empty: What to say instead of a table without rows.
        wide: The entry that is cut where the terminal is too narrow; the others never are.
    """

    def render(documents: Sequence[Mapping[str, Any]]) -> RenderableType:
        from rich.text import Text

        if not documents:
            return Text(empty)
        return _Table(labels, [[cell(one.get(name)) for name in labels] for one in documents], wide)

    return render


@final
class _Table:
    """Lines under their headings; rich's own table takes a second for three thousand of them."""

    def __init__(self, labels: Mapping[str, str], lines: Sequence[Sequence[str]], wide: str | None) -> None:
        self._headings, self._lines = list(labels.values()), lines
        self._wide = None if wide is None else list(labels).index(wide)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.cells import cell_len
        from rich.segment import Segment
        from rich.style import Style

        widths = [max(map(cell_len, column)) for column in zip(self._headings, *self._lines, strict=True)]
        if self._wide is not None and options.is_terminal:
            # Else all columns give way, and half an id is of no use.
            others = sum(widths) - widths[self._wide] + _GAP_CELLS * (len(widths) - 1)
            room = max(options.max_width - others, len(self._headings[self._wide]))
            widths[self._wide] = min(widths[self._wide], room)
        yield Segment(_line(self._headings, widths), Style(bold=True))
        yield Segment.line()
        for one in self._lines:
            yield Segment(_line(one, widths) + "\n")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    from rich.cells import cell_len, set_cell_size

    shown = (
        one + " " * (width - length) if (length := cell_len(one)) <= width else set_cell_size(one, width - 1) + "…"
        for one, width in zip(cells, widths, strict=True)
    )
    return (" " * _GAP_CELLS).join(shown).rstrip()


def line(template: Callable[[Any], str]) -> Render:
    """How a document looks as one sentence."""

    def render(document: Any) -> RenderableType:
        from rich.text import Text

        return Text(visible(template(document), lines=True))

    return render


def pretty(document: Any) -> RenderableType:
    """How a document looks as indented JSON."""
    from rich.json import JSON
    from rich.text import Text

    text = as_json(document, indent=2)
    return JSON(text, ensure_ascii=False) if isinstance(document, dict | list) else Text(text)


def cell(value: Any) -> str:
    """One value on one line."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return visible(value)
    return as_json(value)


def plural(count: int, noun: str) -> str:
    """A number and its noun: "1 object", "2 objects"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"

"""The links of a root that has many, checked without holding up the event loop."""

import itertools
from collections.abc import Mapping
from typing import Final

from dxos.aio import Pace
from dxos.echo import layout

_LINKS_AT_ONCE: Final = 256


async def valid_links(urls: Mapping[str, object]) -> dict[str, str]:
    """Document ids by object id, of those of `layout.link_urls` that are valid; a check of each takes up to 10 µs."""
    links: dict[str, str] = {}
    rest, pace = iter(urls.items()), Pace()
    while some := dict(itertools.islice(rest, _LINKS_AT_ONCE)):
        links |= layout.valid_links(some)
        if pace.is_due:
            await pace.rest()
    return links

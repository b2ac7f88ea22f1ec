"""What is measured: one function for each group of figures, the same for peers of both kinds."""

import math
from collections.abc import Awaitable, Callable

import anyio
from driver import Bench, Filled, Peer, Side, StepTooLong, disk_bytes, now_ms, quantile
from processes import measure_processes
from typist import edits_of_trace

# The JavaScript client sends at most ten updates a second; an edit alone is one that need not wait for its turn there.
EDIT_PAUSE_S = 0.2
EDITS_ALONE_MAX = 60
TOUCHED = 1_000
PAGE = 50
FOLLOWERS = 10_000
FOLLOWERS_JS = 100
TEXT_EDITS = 250_000
TEXT_EDITS_JS = 25_000
TEXT_TURN = 100  # Edits of one event-loop turn.


async def measure_start(bench: Bench) -> None:
    """First steps of a new profile."""
    for _ in range(bench.settings.repeats):
        peer = await bench.start(bench.folder())
        bench.note("load_code_ms", peer.ready["loadMs"])
        bench.note("initialize_ms", peer.ready["initializeMs"])
        await bench.step("create_identity_ms", peer.do("identity", name="Alice"), "createMs")
        await bench.step("create_space_ms", peer.do("createSpace", name="bench"))
        await peer.close()


async def measure_echo(bench: Bench) -> None:
    """Objects on one peer: created, changed at once and one by one, and read after opening."""
    folder = bench.lasting_folder()
    peer, space = await bench.owner(folder)
    # What a profile with an empty space takes is not charged to the objects.
    await peer.close()
    empty_bytes = disk_bytes(folder)
    peer = await bench.opened(folder, space)
    await bench.step("create_objects_ms", bench.fill(peer, space))
    await bench.step("update_objects_ms", peer.do("updateMany", space=space, set={"done": True}), "updateMs")
    await peer.close()
    bench.keep(Filled(folder, space, empty_bytes))
    filled = await bench.filled()

    peer = await bench.start(filled.folder)
    opened_at = await _full_query(bench, peer, space)
    bench.note("reopen_from_initialize_ms", opened_at - peer.ready["at"] + peer.ready["initializeMs"])
    bench.note("reopen_from_spawn_ms", opened_at - peer.spawned_at)
    await peer.close()

    peer = await bench.opened(filled.folder, space)
    await bench.step("add_one_first_ms", peer.do("add", space=space, data={"title": "First"}))
    await bench.step("add_one_ms", peer.do("add", space=space, data={"title": "One more"}))
    edits = bench.settings.edits
    durable = await bench.step("edit_durable_ms", peer.do("edits", space=space, count=edits), "durableMs")
    bench.note("edit_durable_p50_ms", quantile(durable["durableMs"], 0.5))
    bench.note("edit_durable_p99_ms", quantile(durable["durableMs"], 0.99))
    seen = await bench.step("edit_seen_ms", peer.do("seen", space=space, count=edits), "seenMs")
    bench.note("edit_seen_p50_ms", quantile(seen["seenMs"], 0.5))
    await peer.close()


async def _full_query(bench: Bench, peer: Peer, space: str) -> float:
    """When a query after opening has given all objects."""
    await bench.wait_ready(peer, space)
    give_up_at = now_ms() + bench.settings.step_s * 1_000
    # The first answers of the JavaScript client may be short of objects whose documents are still being loaded.
    while (await bench.step("full_query_ms", peer.do("count", space=space)))["count"] < bench.settings.count:
        if now_ms() > give_up_at:
            bench.note("reopen_from_initialize_ms", math.inf)
            raise StepTooLong("count")
    return now_ms()


async def measure_query(bench: Bench) -> None:
    """What is asked of a space that is open: by an index, a page, a number; and followed, by many."""
    filled = await bench.filled()
    peer, space = await bench.opened(filled.folder, filled.space), filled.space
    if bench.side is Side.JS:
        await _full_query(bench, peer, space)  # Until its documents are loaded it finds nothing.
    times = min(bench.settings.edits, bench.settings.count)
    await bench.step("find_first_ms", peer.do("find", space=space, name="n", count=1), "findMs")
    await bench.step("find_ms", peer.do("find", space=space, name="n", count=times), "findMs")
    await bench.step("page_ms", peer.do("page", space=space, limit=PAGE, count=times), "pageMs")
    await bench.step("page_ordered_ms", peer.do("page", space=space, order="n", limit=PAGE, count=times), "pageMs")
    await peer.close()

    followers = FOLLOWERS if bench.side is Side.OURS else FOLLOWERS_JS
    peer = await bench.opened(filled.folder, space)
    if bench.side is Side.JS:
        await _full_query(bench, peer, space)
    # A filter that all of many different queries meet is beyond what the JavaScript client has.
    for kind in ("object", "same", "others") if bench.side is Side.JS else ("object", "same", "different", "others"):
        told = await bench.step(
            f"follow_{kind}_ms", peer.do("follow", space=space, kind=kind, count=followers), "followMs"
        )
        bench.note(f"follow_{kind}_each_us", told["followMs"] * 1_000 / followers)
        bench.note(f"follow_{kind}_edit_ms", *told["editMs"])
    await peer.close()


async def measure_memory(bench: Bench) -> None:
    """Resident memory of a process that opens a space and touches some of its objects, and of one that reads all."""
    filled = await bench.filled()
    peer, space = await bench.opened(filled.folder, filled.space), filled.space
    bench.note("rss_opened_bytes", (await peer.do("rss"))["rssBytes"])
    await bench.step("touch_ms", peer.do("touch", space=space, count=TOUCHED, set={"done": False}))
    bench.note("rss_touched_bytes", (await peer.do("rss"))["rssBytes"])
    await peer.do("hold", space=space)
    bench.note("rss_held_bytes", (await peer.do("rss"))["rssBytes"])
    await peer.close()


async def measure_disk(bench: Bench) -> None:
    """What an object takes on the disk, as it was left and after compaction."""
    filled = await bench.filled()
    count = bench.settings.count
    bench.note("disk_bytes_per_object", (disk_bytes(filled.folder) - filled.empty_bytes) / count)
    if bench.side is Side.JS:
        return  # It compacts by itself.
    peer = await bench.opened(filled.folder, filled.space, stalls=True)
    await bench.step("compact_ms", peer.do("compact", space=filled.space))
    await peer.close()
    bench.note("disk_compact_bytes_per_object", (disk_bytes(filled.folder) - filled.empty_bytes) / count)


async def measure_text(bench: Bench) -> None:
    """A long text written as somebody types, edit by edit."""
    peer, space = await bench.owner(bench.folder())
    count = min(bench.settings.count * 25, TEXT_EDITS if bench.side is Side.OURS else TEXT_EDITS_JS)
    object_id = (await peer.do("add", space=space, data={"text": ""}))["objectId"]
    trace = edits_of_trace(count)
    await bench.step("text_ms", peer.do("text", space=space, objectId=object_id, edits=trace, turn=TEXT_TURN))
    bench.note("text_each_us", bench.samples["text_ms"][-1] * 1_000 / count)
    await peer.close()


async def measure_sync(bench: Bench) -> None:
    """All objects to a peer that joins, and whether the event loops of both go on meanwhile."""
    filled = await bench.filled()
    host, space = await bench.opened(filled.folder, filled.space, stalls=True), filled.space
    if bench.side is Side.JS:
        await _full_query(bench, host, space)
    await host.do("stall")
    guest, begin, joined = await bench.join(host, space, stalls=True)
    try:
        await bench.wait_count(guest, space)
    except StepTooLong:
        bench.note("join_objects_ms", math.inf)
        raise
    total_ms = now_ms() - begin
    bench.note("join_objects_ms", total_ms)
    bench.note("join_objects_after_ready_ms", total_ms - joined["readyMs"])
    for name, peer in (("host", host), ("guest", guest)):
        stall = await peer.do("stall")
        bench.note(f"join_stall_{name}_ms", stall["stallMs"])
        if "cpuMs" in stall:
            bench.note(f"join_stall_{name}_cpu_ms", stall["cpuMs"])
    await guest.close()
    await host.close()


async def measure_edit(bench: Bench) -> None:
    """One edit after another, from the line that makes it to the other peer's subscriber."""
    host, space = await bench.owner(bench.folder())
    object_id = (await host.do("add", space=space, data={"title": "Item", "n": -1}))["objectId"]
    guest, _, _ = await bench.join(host, space)
    await guest.do("waitFor", space=space, objectId=object_id, timeoutMs=bench.settings.step_s * 1_000)
    await guest.do("watch", space=space, objectId=object_id)
    n = 0

    async def delays(count: int, pause_s: float) -> list[float]:
        nonlocal n
        taken = []
        for _ in range(count):
            wanted = n
            updated = await host.do("update", space=space, objectId=object_id, set={"n": wanted}, flush=False)
            seen = await guest.event(
                lambda event: event["event"] == "object" and event["object"]["data"].get("n") == wanted  # noqa: B023
            )
            taken.append(seen["at"] - updated["at"])
            n += 1
            await anyio.sleep(pause_s)
        return taken

    alone = await delays(min(bench.settings.edits, EDITS_ALONE_MAX), EDIT_PAUSE_S)
    bench.note("edit_p50_ms", quantile(alone, 0.5))
    bench.note("edit_p99_ms", quantile(alone, 0.99))
    hurried = await delays(bench.settings.edits, 0)
    bench.note("edit_back_to_back_p50_ms", quantile(hurried, 0.5))
    bench.note("edit_back_to_back_p99_ms", quantile(hurried, 0.99))
    await guest.close()
    await host.close()


async def measure_invitation(bench: Bench) -> None:
    """A guest who knows the code: until admitted, and until the space can be used."""
    host, space = await bench.owner(bench.folder())
    for _ in range(bench.settings.repeats):
        guest, _, joined = await bench.join(host, space)
        bench.note("invitation_handshake_ms", joined["handshakeMs"])
        bench.note("invitation_ready_ms", joined["readyMs"])
        await guest.close()
    await host.close()


GROUPS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "start": measure_start,
    "invitation": measure_invitation,
    "edit": measure_edit,
    "echo": measure_echo,
    "query": measure_query,
    "memory": measure_memory,
    "disk": measure_disk,
    "sync": measure_sync,
    "text": measure_text,
    "processes": measure_processes,
}
GROWING = ("echo", "query", "memory", "disk", "sync")  # Measured with more and more objects.

"""Peers for the live tests, and the reason why they are skipped where there can be none."""

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from interop.live import HERE, JavaScriptPeer, SignalServer

StartJavaScript = Callable[..., JavaScriptPeer]
_PEERS = pytest.StashKey[list[JavaScriptPeer]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Node and the installed packages, and its time."""
    reason = None
    if shutil.which("node") is None:
        reason = "Node.js is not installed"
    elif not (HERE / "node_modules" / "@dxos" / "client").is_dir():
        reason = "the packages of tests/interop are not installed: run `make interop`"
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the JavaScript peers said last."""
    report = yield
    if report.failed:
        running = item.session.stash.get(_PEERS, None) or []
        for number, peer in enumerate(running):
            if peer.tail:
                report.sections.append((f"JavaScript peer {number}", peer.tail))
    return report


@pytest.fixture
def anyio_backend() -> str:
    """Real sockets and processes need real time."""
    return "asyncio"


@pytest.fixture(scope="session")
def signal() -> Iterator[str]:
    """The address of a signalling server."""
    server = SignalServer()
    yield server.url
    server.stop()


@pytest.fixture
def start_js(signal: str, request: pytest.FixtureRequest) -> Iterator[StartJavaScript]:
    """Starts a JavaScript peer, with a folder or in memory, with another server or ours; it ends with the test."""
    running = request.session.stash.setdefault(_PEERS, [])
    before = len(running)

    def start(data: Path | None = None, *, server: str = signal) -> JavaScriptPeer:
        running.append(JavaScriptPeer(server, data))
        return running[-1]

    yield start
    for peer in running[before:]:
        peer.stop()
    del running[before:]


@pytest.fixture(scope="session")
def shared_js(signal: str, request: pytest.FixtureRequest) -> Iterator[JavaScriptPeer]:
    """One JavaScript peer in memory for all tests that only need a space of their own."""
    peer = JavaScriptPeer(signal)
    request.session.stash.setdefault(_PEERS, []).insert(0, peer)
    yield peer
    peer.stop()

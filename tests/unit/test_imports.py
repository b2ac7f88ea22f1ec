"""What a process imports, which is most of the time that it takes to start and most of its memory."""

import subprocess
import sys

import pytest

HOST = ("automerge", "sqlite3", "trio", "websockets", "dxos.spaces", "dxos.mesh", "dxos.feed", "dxos.services.local")
CHECKS = ("cryptography", "pydantic", "platformdirs", "tomllib", "rich", "typer")
APPLICATION = """
from dxos import Client, Config, Object, Ref

class Person(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str

class Task(Object, typename="example.com/type/Task", version="0.1.0"):
    title: str
    hours: float = 0.0
    tags: list[str] = []
    person: Ref[Person] | None = None

Task(title="Write", tags=["a"])
Client(config=Config({"runtime": {"client": {"storage": {"persistent": True, "dataRoot": "/nowhere"}}}}))
"""


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        (APPLICATION, (*HOST, *CHECKS, "google.protobuf", "dxos.store", "dxos.worker")),
        (
            "import dxos.worker.provider",
            (
                *HOST,
                *CHECKS,
                "dxos.worker.leading",
                "dxos.worker.leadership",
                "dxos.worker.coordinator",
                "dxos.worker.process",
            ),
        ),
        ("import dxos.worker.provider", ("dxos.wire.proto.credentials_pb2", "dxos.wire.proto.invitations_pb2")),
        ("import dxos.services.local", ("websockets", "pydantic", "platformdirs", "dxos.client")),
        ("import dxos.cli.main", ("dxos.client", "dxos.services", "pydantic", "cryptography", "google.protobuf")),
    ],
    ids=["application", "shared profile", "its messages", "host without signalling", "command line"],
)
def test_what_a_process_may_never_need_is_not_imported(code: str, packages: tuple[str, ...]) -> None:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    # Not the application's folder: its modules are no part of this.
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert [one for one in imported if any(one == name or one.startswith(f"{name}.") for name in packages)] == []

"""The same tests of a client on a host in its own process, and on one at the other end of a session."""

from typing import Any

import pytest

import dxos.client
from dxos.testing.remote import ServedServices

# What these tests do to the host they expect to see before anything else had a turn, or they look at its provider.
NEAR_ONLY = frozenset(
    {
        "test_a_cancelled_invitation_admits_nobody",
        "test_a_code_may_be_handed_in_before_it_is_wanted",
        "test_a_nested_map_stays_itself_when_a_peer_moves_it",
        "test_a_query_tells_of_each_change_once",
        "test_a_reference_that_is_not_loaded_yet_says_so",
        "test_a_reference_to_an_object_that_is_not_here_says_so",
        "test_a_space_that_closes_while_it_opens_follows_its_rows_in_the_end",
        "test_a_wrong_code_can_be_tried_again_until_the_third",
        "test_an_object_whose_type_is_a_stored_schema_is_of_the_type_that_it_says",
        "test_an_object_with_a_subscriber_stays_although_nobody_holds_it",
        "test_members_messages_and_roles",
        "test_nothing_is_on_its_way_once_whoever_announced_it_has_gone",
        "test_rows_that_come_while_the_block_runs_wait_for_its_end",
        "test_what_a_peer_changes_is_seen_and_told_once",
        "test_what_needs_the_host_says_so_before_initialize_and_after_destroy",
    }
)
NEAR_MODULES = frozenset({"test_backup", "test_slices"})  # Their hosts are profiles, or chosen by name.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what opens clients both ways."""
    module, name = metafunc.module, metafunc.function.__name__
    is_near = module.__name__.rpartition(".")[2] in NEAR_MODULES or name in NEAR_ONLY
    if hasattr(module, "Client") and not is_near:
        metafunc.parametrize("far", [False, True], ids=["near", "far"], indirect=True)


@pytest.fixture(autouse=True)
def far(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a session between the clients of a test and the services that it names for them."""

    def far_client(config: Any = None, *, services: Any = None, **options: Any) -> dxos.client.Client:
        if hasattr(services, "__aenter__"):
            services = ServedServices(services)
        return dxos.client.Client(config, services=services, **options)

    if getattr(request, "param", False):
        monkeypatch.setattr(request.module, "Client", far_client)

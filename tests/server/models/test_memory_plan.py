"""The memory budget of calls: what the models leave, and the reasons given."""

from visavis_server.models.memory_plan import plan_memory
from visavis_server.settings import Settings

MIB = 1 << 20


def test_calls_get_the_memory_that_models_and_message_assembly_leave() -> None:
    settings = Settings(max_message_bytes=10 * MIB, cores=1, max_decoded_bytes=10 * MIB)
    plan = plan_memory(settings, taken_bytes=300 * MIB, usable=1000 * MIB)
    assert plan.budget_bytes == (1000 - 300 - 2 * 10) * MIB
    assert not plan.is_short
    assert "1000 MiB are usable" in plan.why
    # A picture as it is decoded, and its file.
    assert plan.working_bytes == (2 * 10 + 16) * MIB


def test_a_configured_budget_is_used_and_half_of_it_is_left_to_messages() -> None:
    plan = plan_memory(Settings(memory_budget_bytes=200 * MIB, cores=8), 300 * MIB, 1000 * MIB)
    assert plan.budget_bytes == 200 * MIB
    assert plan.working_bytes == 100 * MIB


def test_a_largest_message_still_fits_if_models_leave_too_little() -> None:
    settings = Settings(max_message_bytes=10 * MIB)
    plan = plan_memory(settings, taken_bytes=990 * MIB, usable=1000 * MIB)
    assert plan.is_short
    assert plan.budget_bytes - plan.working_bytes > 10 * MIB
    assert "too little" in plan.why


def test_a_system_that_does_not_report_its_memory_gets_a_modest_budget() -> None:
    plan = plan_memory(Settings(), 300 * MIB, None)
    assert plan.budget_bytes == 1024 * MIB
    assert "does not report" in plan.why

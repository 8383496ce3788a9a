"""The limits of pictures in a process that shares its machine with others."""

from dataclasses import replace

from visavis_server.models.memory_plan import plan_memory
from visavis_server.runtime.budget import Budget
from visavis_server.settings import ImageLimits, Settings


def image_limits(settings: Settings) -> ImageLimits:
    """Return the limits of pictures, with a memory budget of this process.

    It is memory_budget_bytes or 1 GiB: a replica does not know how many others share the node.
    """
    plan = plan_memory(settings, taken_bytes=0, usable=None)
    return replace(settings.image_limits, budget=Budget(plan.budget_bytes, plan.working_bytes))

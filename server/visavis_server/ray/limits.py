"""What a replica may take of its node, which it shares with others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray import get_runtime_context

from visavis_server.models.memory_plan import plan_memory
from visavis_server.runtime.budget import Budget
from visavis_server.settings import ImageLimits, Settings


def allotted(settings: Mapping[str, Any]) -> Settings:
    """Return settings with the cores that Ray has allotted to this replica.

    A part of a core counts as one. settings: by name.
    """
    cores = get_runtime_context().get_assigned_resources().get("CPU", 0.0)
    return Settings.model_construct(**{**settings, "cores": max(1, int(cores))})


def image_limits(settings: Settings) -> ImageLimits:
    """Return the limits of pictures, with a memory budget of this process.

    It is memory_budget_bytes or 1 GiB: a replica does not know how many others share the node.
    """
    plan = plan_memory(settings, taken_bytes=0, usable=None)
    return replace(settings.image_limits, budget=Budget(plan.budget_bytes, plan.working_bytes))

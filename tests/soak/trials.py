"""All trials, by name."""

from tests.soak import attacks, load
from tests.soak.folder import folder
from tests.soak.report import Trial

TRIALS: dict[str, Trial] = {
    "overload": load.overload_of_a_slow_model,
    "overload-resnet": load.overload_of_resnet,
    "reloads": load.reloads,
    "poison": attacks.poison_at_start,
    "memory": load.memory,
    "pictures": load.damaged_pictures,
    "full-pipe": attacks.full_pipe,
    "worst-picture": attacks.worst_picture,
    "loop-lag": attacks.loop_lag,
    "700-mb": attacks.short_memory,
    "stalled-senders": attacks.stalled_senders,
    "checkpoints": attacks.forged_checkpoints,
    "labels": attacks.odd_folders,
    "folder": folder,
}

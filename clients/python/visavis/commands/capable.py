"""The model that is meant when none is named."""

from visavis.cards import Task
from visavis.client import Client
from visavis.errors import FieldViolation, InvalidRequest


def capable_model(client: Client, task: Task) -> str:
    """Return the name of the only model that is capable of a task.

    Raises InvalidRequest where there is none, or where there are several to choose from.
    """
    names = sorted(card.name for card in client.list_models() if task in card.tasks)
    if len(names) == 1:
        return names[0]
    if names:
        message = f"several models are capable of {task}; name one with --model: {', '.join(names)}"
    else:
        message = f"the server has no model that is capable of {task}"
    raise InvalidRequest(message, violations=(FieldViolation("model", message),))

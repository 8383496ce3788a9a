"""The default model of a command without --model."""

from visavis.cards import Task
from visavis.client import Client
from visavis.errors import FieldViolation, InvalidRequest


def capable_model(client: Client, task: Task) -> str:
    """Return the name of the only model that is capable of a task.

    Raises InvalidRequest if no model or several models are.
    """
    names = sorted(card.name for card in client.list_models() if task in card.tasks)
    if len(names) == 1:
        return names[0]
    if names:
        choices = ", ".join(names)
        message = f"several models are capable of {task}; choose one with --model: {choices}"
    else:
        message = f"no model on this server is capable of {task}"
    raise InvalidRequest(message, violations=(FieldViolation("model", message),))

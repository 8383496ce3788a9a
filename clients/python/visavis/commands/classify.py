"""`visavis classify`: label pictures with one model."""

from collections.abc import Callable

from visavis.cards import Task
from visavis.client import Client
from visavis.commands import options
from visavis.commands.answer_tables import classify_table
from visavis.commands.capable import capable_model
from visavis.commands.pictures import Job, answer
from visavis.results import ClassifyResult


def classify(
    pictures: options.Pictures,
    model: options.ModelName = None,
    version: options.Version = None,
    top_k: options.TopK = None,
    annotate: options.Annotate = None,
    explain: options.Explain = None,
    json: options.Json = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
    repository: options.Repository = None,
) -> None:
    """Label pictures with one model."""

    def prepare(client: Client) -> Callable[[bytes], ClassifyResult]:
        name = model or capable_model(client, Task.CLASSIFICATION)
        return lambda image: client.classify(
            image,
            model=name,
            version=version,
            top_k=top_k,
            annotate=annotate is not None,
            explain=options.explained(explain),
        )

    answer(
        Job(pictures, server, timeout, json, annotate, repository=repository),
        prepare,
        classify_table,
    )

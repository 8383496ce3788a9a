"""`visavis models`: a table of all models, or one model's card in full."""

import sys
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from visavis.commands import options
from visavis.commands.card_details import card_details
from visavis.commands.card_tables import cards_table
from visavis.commands.console import stdout
from visavis.commands.failures import exit_codes
from visavis.target import parse_target
from visavis.v1 import vision_pb2 as pb

Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Show this model's card in full, with its receipt."),
]


def models(
    name: Name = None,
    version: options.Version = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
) -> None:
    """List all models, or show one model's card in full."""
    with exit_codes(), parse_target(server).client(timeout) as client:
        if name is None:
            if version is not None:
                raise typer.BadParameter("give the NAME of a model too", param_hint="--version")
            cards = client.list_models()
            message: Message = pb.ListModelsResponse(models=[card.message for card in cards])
            table = cards_table(cards)
        else:
            card = client.get_model(name, version=version)
            message = pb.GetModelResponse(model=card.message)
            table = card_details(card)
    if json:
        line = json_format.MessageToJson(
            message, always_print_fields_with_no_presence=True, indent=None
        )
        sys.stdout.write(f"{line}\n")
    else:
        stdout().print(table)

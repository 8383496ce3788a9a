"""Prints the JSON schema of the document: `python -m visavis_server.card`."""

import json

from visavis_server.card import json_schema

if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))

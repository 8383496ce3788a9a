"""The JSON document that every model file carries: how to serve it, its card, its receipt.

It is one of the project's two contracts; the other is the `.proto`. `make generate` publishes its
schema from these classes as `protos/visavis/v1/model.schema.json`. Documents are validated
whenever they are written or read.
"""

from visavis_server.card.document import (
    Facts,
    LabelSet,
    ModelDocument,
    Provenance,
    checked_names,
    explanation_constants,
    explanation_outputs,
    graph_outputs,
    output_names,
)
from visavis_server.card.fields import Precision, Task
from visavis_server.card.inputs import (
    CenterSquare,
    Letterbox,
    ModelInput,
    ShorterSide,
    ShorterSideWithin,
    Stretch,
)
from visavis_server.card.outputs import (
    CandidateRows,
    ClassActivation,
    ClassScores,
    DetectionDefaults,
    FasterRcnnRows,
    ModelOutput,
    RetinanetHeads,
    Yolov5Heads,
)
from visavis_server.card.parsing import (
    METADATA_KEY,
    SCHEMA_ID,
    SCHEMA_VERSION,
    json_schema,
    parse_document,
)
from visavis_server.card.proof import (
    Accuracy,
    GoldenSample,
    Receipt,
    ReceiptPicture,
    RowComparison,
    SampledOutput,
    WholeOutput,
)

__all__ = [
    "METADATA_KEY",
    "SCHEMA_ID",
    "SCHEMA_VERSION",
    "Accuracy",
    "CandidateRows",
    "CenterSquare",
    "ClassActivation",
    "ClassScores",
    "DetectionDefaults",
    "Facts",
    "FasterRcnnRows",
    "GoldenSample",
    "LabelSet",
    "Letterbox",
    "ModelDocument",
    "ModelInput",
    "ModelOutput",
    "Precision",
    "Provenance",
    "Receipt",
    "ReceiptPicture",
    "RetinanetHeads",
    "RowComparison",
    "SampledOutput",
    "ShorterSide",
    "ShorterSideWithin",
    "Stretch",
    "Task",
    "WholeOutput",
    "Yolov5Heads",
    "checked_names",
    "explanation_constants",
    "explanation_outputs",
    "graph_outputs",
    "json_schema",
    "output_names",
    "parse_document",
]

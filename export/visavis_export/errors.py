"""The errors of an export; each message says what was wrong and what to do.

ExportError
├── AccuracyFailed         the exported file loses more accuracy than allowed
├── InvalidOption          the name of a model, or an option, is invalid
├── ReceiptFailed          the exported file's answers differ from PyTorch's
└── WeightsError           the weights can't be found, downloaded or verified
    └── CheckpointError    the file exists, but holds something other than the requested model
        └── UnsafeCheckpoint    the file refers to code that no checkpoint needs
"""


class ExportError(Exception):
    """An export failed."""


class InvalidOption(ExportError):
    """The name of a model, or an option of the export, is invalid."""


class WeightsError(ExportError):
    """The weights can't be found, downloaded or verified."""


class CheckpointError(WeightsError):
    """A file is not a checkpoint, is damaged, or holds another kind of model."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint refers to code that weights do not need; none of it was run."""


class ReceiptFailed(ExportError):
    """An exported file's answers differ from its PyTorch original's; gives the figures."""


class AccuracyFailed(ExportError):
    """An exported file loses more accuracy than allowed; gives the figures."""

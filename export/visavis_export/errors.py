"""Everything that can stop an export, each message saying what was wrong and what to do.

ExportError
├── AccuracyFailed         the exported file is right less often than it may be
├── ReceiptFailed          the exported file doesn't give what PyTorch gives
└── WeightsError           the weights can't be found, fetched or verified
    └── CheckpointError    the file is there, but doesn't hold what was asked for
        └── UnsafeCheckpoint    the file asks for code that no checkpoint needs
"""


class ExportError(Exception):
    """An export that can't go on."""


class WeightsError(ExportError):
    """Weights that can't be found, fetched or verified."""


class CheckpointError(WeightsError):
    """A file that is no checkpoint, is damaged, or holds another kind of model."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint that names code which has no business in weights; nothing of it was run."""


class ReceiptFailed(ExportError):
    """An exported file that answers differently from its PyTorch original; gives the figures."""


class AccuracyFailed(ExportError):
    """An exported file that lost more of its original's accuracy than it may; gives the figures."""

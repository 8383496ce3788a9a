"""Pictures for receipts, calibration and accuracy."""

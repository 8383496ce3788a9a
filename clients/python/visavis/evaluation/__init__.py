"""Compares models on a folder of pictures: accuracy, agreement, their uncertainty, and cost.

The extra `compare` brings NumPy and pycocotools; the rest of the SDK does without them.
"""

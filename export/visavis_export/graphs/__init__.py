"""ONNX graphs: exported, converted to other precisions and written with their documents."""

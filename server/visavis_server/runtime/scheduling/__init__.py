"""Scheduling: which work runs where, when and in which batch. Knows neither gRPC nor ONNX Runtime.

`scheduler` is the entrance. `admission` refuses work that cannot finish in time; `fair_queue`
orders the rest; `core_loop` and `device_loop` run it, on the threads of `workers`.
"""

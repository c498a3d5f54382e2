"""The champion in production: a server that asks an ONNX model, follows the registry, and keeps a log.

It runs in an environment of its own (.venv-serve), without MLflow, DVC or any framework that trains.
"""

"""Serves one ONNX model by the Open Inference Protocol v2, over REST and gRPC. `serve.py` starts it.

Runs in the image on Python 3.10 and later, with the packages that `onnx.yaml` names and nothing of ours.
"""

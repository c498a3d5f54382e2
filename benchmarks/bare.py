"""The least that answers: a model behind FastAPI, no log, no limits (for bench_serve.py)."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/invocations")
async def ask(request: Request) -> dict:
    inputs = np.asarray((await request.json())["inputs"], np.float32)
    (probabilities,) = session.run(["probabilities"], {session.get_inputs()[0].name: inputs})
    return {"predictions": probabilities.tolist()}

"""A training of a moment, tracked as the notebooks do it, for tests of tracking. Its words change how it goes."""

SCRIPT = """
import os, sys, time, torch
from torch import nn
from digits import data, tracking
from digits.progress import say
images = torch.randn(20, 1, 28, 28)
if "patient" in sys.argv: tracking.PATIENCE = 120
if "hasty" in sys.argv: tracking.PATIENCE = 1
digits = data.Digits("digits", "ab" * 32, data.Split(images, torch.arange(20) % 10), data.Split(images, torch.arange(20) % 10))
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
started = time.monotonic()
run = tracking.start("x", {"lr": 0.1, "epochs": 2}, digits)
for epoch in (1, 2):
    run.log(epoch, {"validation_accuracy": epoch / 10})
if "raise" in sys.argv: raise ValueError("in the middle")
if "hang" in sys.argv: print("ready", flush=True); time.sleep(100)
if "short" in sys.argv: run.finish({}); say(seconds=time.monotonic() - started); time.sleep(8 if "hasty" in sys.argv else 0); sys.exit()
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
run.figure("line", plt.figure())
run.tag({"model_digest": "d" * 64})
run.model(net, digits)
run.finish({"validation_accuracy": 0.2, "parameters": 7850, "data": "digits"})
say(seconds=time.monotonic() - started)
"""

"""Measures a pendulum, in place of a laboratory: `python measure.py FILE` writes 240 swings as a table.

The period is that of a pendulum of 1 m, by the arithmetic-geometric mean, read from a clock that is off by 20 ms.
"""

import math
import random
import sys
from pathlib import Path

random.seed(1)
rows = ["angle,period"]
for _ in range(240):
    angle = random.uniform(0.1, 2.8)  # in radians
    low, high = math.cos(angle / 2), 1.0
    while high - low > 1e-12:
        low, high = math.sqrt(low * high), (low + high) / 2
    period = 2 * math.pi * math.sqrt(1 / 9.81) / high
    rows.append(f"{angle:.4f},{random.gauss(period, 0.02):.4f}")
Path(sys.argv[1]).write_text("\n".join(rows) + "\n", encoding="utf-8")
print(len(rows) - 1, "swings")

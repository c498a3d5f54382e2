"""The dense layer of the nets: PyTorch's, computed by oneDNN while it trains."""

import torch
import torch.nn.functional as F
from torch import nn


class Dense(nn.Linear):
    """`nn.Linear`, trained by oneDNN where the processor computes and PyTorch has it.

    PyTorch gives the products of dense layers to MKL, and the one branch of MKL that rounds alike on every vendor's
    processors takes about twice as long (docs/measurements.md). A trained net answers by plain PyTorch, so that it is
    exported as what it is.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values [N, in] to [N, out]."""
        if self.training and values.device.type == "cpu" and torch.backends.mkldnn.is_available():
            return F.linear(values.to_mkldnn(), self.weight, self.bias).to_dense()
        return super().forward(values)

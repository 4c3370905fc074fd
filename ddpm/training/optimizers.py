"""What turns gradients into steps: AdamW for all parameters, or Muon for the weights of hidden layers and AdamW else.

Muon is `torch.optim.Muon`, whose documentation names the papers, with three changes: kernels of convolutions count as
matrices `[out, in * height * width]`, matrices of one shape are taken together, and on a CPU the iteration computes in
float32. torch's computes in bfloat16, one matrix at a time, which processors without instructions for it do in
software: with AVX2 a step of `models.tiny` took 16 times as long.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

OptimizerName = Literal["adamw", "muon"]

MOMENTUM, ITERATIONS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)
"""`torch.optim.Muon`'s defaults; a Newton-Schulz iteration makes X into a X + b (X X^T) X + c (X X^T)^2 X."""
RMS = 0.2
"""Root mean square of a step at a learning rate of 1: torch's `match_rms_adamw`, made to suit the rates of AdamW."""


class Muon(Optimizer):
    """Steps by the nearest semi-orthogonal matrix to the momentum of the gradient, with decoupled weight decay.

    Args:
        parameters: of two dimensions or more; the first is that of the outputs.
        weight_decay: as AdamW's.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float):
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter, at its group's `lr`."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for shape, parameters in alike.items():
                steps = orthogonal(torch.stack([self._momentum(parameter) for parameter in parameters]))
                rate = group["lr"] * RMS * max(shape) ** 0.5  # a semi-orthogonal matrix has an RMS of 1 / sqrt(max)
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(step.reshape(parameter.shape), alpha=rate)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum of the gradient, as a matrix; keeps the plain one as state."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """U S' V^T for each matrix U S V^T of a stack `[K, M, N]`, with all of S' near 1 (0.7 to 1.2) where S isn't near 0.

    The shape stays. The iteration computes in bfloat16 on CUDA and in float32 elsewhere.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def optimizers_of(
    network: nn.Module, name: OptimizerName, adam_beta2: float, weight_decay: float
) -> Sequence[Optimizer]:
    """The optimisers that share the parameters of `network`; with `muon`, AdamW has what no hidden layer multiplies by.

    That is biases, norms and embeddings, as torch's documentation asks for, and the first and the last layer.
    """
    outer = ("conv_in", "conv_out", "time_embedding", "class_embedding")
    hidden = [
        parameter
        for path, parameter in network.named_parameters()
        if name == "muon" and parameter.ndim > 1 and path.split(".")[0] not in outer
    ]
    chosen = set(map(id, hidden))
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    adam = AdamW(rest, betas=(0.9, adam_beta2), weight_decay=weight_decay, fused=True)
    return [adam, Muon(hidden, weight_decay)] if hidden else [adam]

"""The weights that training starts from."""

from torch import nn

from ddpm.diffusion.blocks import Attention
from ddpm.diffusion.unet import UNet, last_layers
from ddpm.training import report


def zero(network: UNet) -> None:
    """Put zeros where a residual branch ends: blocks that start as the identity train faster (Ho et al.'s code)."""
    attentions = [module.to_out[0] for module in network.modules() if isinstance(module, Attention)]
    for parameter in nn.ModuleList([*last_layers(network), *attentions]).parameters():
        nn.init.zeros_(parameter)


INITIAL = {"zero": zero, "xavier": report.start}


def initial_network(network: UNet) -> UNet:
    """A `network` as torch has made it, with the initial weights that its configuration asks for."""
    INITIAL[network.config.initial](network)
    return network

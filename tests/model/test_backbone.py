"""Patches as one product are the convolution that they stand for, values and gradients."""

from __future__ import annotations

import torch

from ris_verified.model.backbone import PATCH, Patches


def test_patches_are_the_convolution():
    generator = torch.Generator().manual_seed(0)
    patches = Patches(3, 5).double()
    image, towards = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((2, 3, 8, 20), (2, 10, 5))
    )
    image.requires_grad_()
    inputs = (image, patches.weight, patches.bias)
    tokens = patches(image)
    plain = torch.nn.functional.conv2d(image, patches.weight, patches.bias, stride=PATCH).flatten(2).mT
    bound = torch.finfo(torch.float64).eps * image[0].numel()
    torch.testing.assert_close(tokens, plain, rtol=bound, atol=bound)
    gradients, expected = (torch.autograd.grad(out, inputs, towards) for out in (tokens, plain))
    torch.testing.assert_close(gradients, expected, rtol=bound, atol=bound)

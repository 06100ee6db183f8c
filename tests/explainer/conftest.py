"""What several tests of attribution explain."""

import pytest
import torch


@pytest.fixture
def data():
    """Inputs (50,6) of three classes."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()

from __future__ import annotations

import pytest
import torch
from torch import nn

from agsr.errors import CheckpointError
from agsr.model.base import place
from agsr.training.step.muon import Muon
from agsr.training.step.optimizer import ADAM_SHARE, MIN_CHANNELS, Optimizer

CPU = torch.device("cpu")
BETAS = (0.9, 0.999)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 3), nn.Conv2d(24, 64, 1), nn.Conv2d(64, 1, 3))
    return place(nn.Sequential(*layers), CPU)


def _step(network: nn.Module, optimizer: Optimizer, rate: float) -> dict[str, torch.Tensor]:
    """Change of every parameter by one step down seeded gradients of uneven spectra."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.grad = _uneven(torch.randn(parameter.shape)).reshape(parameter.shape)
    optimizer.set_rate(rate)
    optimizer.step()
    return {name: p.detach() - before[name] for name, p in network.named_parameters()}


def _uneven(values: torch.Tensor) -> torch.Tensor:
    """The same singular vectors, values from 1 down to 0.02."""
    left, spectrum, right = torch.linalg.svd(values.reshape(len(values), -1), full_matrices=False)
    wanted = torch.linspace(1, 0.02, len(spectrum))
    return left @ torch.diag(wanted) @ right


def test_muon_moves_every_direction_of_a_hidden_layer_alike() -> None:
    network = _network()
    optimizer = Optimizer(dict(network.named_parameters()), muon=True, betas=BETAS)
    changes = _step(network, optimizer, 1e-2)
    for name in ("1.weight", "2.weight"):
        spectrum = torch.linalg.svdvals(changes[name].flatten(1))
        assert spectrum.max() < 3 * spectrum.min()  # of the gradient: 50 times


def test_muon_steps_are_of_the_size_of_adams() -> None:
    """Their root mean square is 0.2 of the rate."""
    network = _network()
    optimizer = Optimizer(dict(network.named_parameters()), muon=True, betas=BETAS)
    changes = _step(network, optimizer, 1e-2)
    for name in ("1.weight", "2.weight"):
        assert changes[name].square().mean().sqrt() == pytest.approx(0.2e-2, rel=0.25)


def test_images_maps_and_biases_are_adams() -> None:
    mixed, plain = _network(), _network()
    changes = [
        _step(network, Optimizer(dict(network.named_parameters()), muon=muon, betas=BETAS), rate)
        for network, muon, rate in ((mixed, True, 1e-2), (plain, False, 1e-2 * ADAM_SHARE))
    ]
    same = {name for name in changes[0] if torch.equal(changes[0][name], changes[1][name])}
    assert same == set(changes[0]) - {"1.weight", "2.weight"}
    assert all(change.abs().max() > 1e-3 for change in changes[0].values())


def test_narrow_layers_are_adams() -> None:
    layers = (nn.Conv2d(MIN_CHANNELS - 1, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3))
    network = place(nn.Sequential(*layers), CPU)
    optimizer = Optimizer(dict(network.named_parameters()), muon=True, betas=BETAS)
    kinds = {name.partition(".")[2]: name.partition(".")[0] for name in optimizer.state()}
    assert {name for name, kind in kinds.items() if kind == "momentum"} == {"1.weight"}


def test_weights_in_another_memory_layout_are_rejected() -> None:
    """Muon would step a copy of them."""
    network = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3))
    with pytest.raises(ValueError, match=r"0\.weight is not channels last"):
        Optimizer(dict(network.named_parameters()), muon=True, betas=BETAS)


def test_it_continues_from_its_state() -> None:
    first, second = _network(), _network()
    one, two = (
        Optimizer(dict(network.named_parameters()), muon=True, betas=BETAS)
        for network in (first, second)
    )
    assert one.state().keys() == two.state().keys()
    assert not any(tensor.any() for tensor in one.state().values())
    _step(first, one, 1e-2)
    second.load_state_dict(first.state_dict())
    two.load({name: tensor.clone() for name, tensor in one.state().items()}, 1)
    changes = _step(first, one, 1e-2), _step(second, two, 1e-2)
    assert all(torch.equal(changes[0][name], changes[1][name]) for name in changes[0])


def test_a_state_of_another_network_is_rejected() -> None:
    optimizer = Optimizer(dict(_network().named_parameters()), muon=True, betas=BETAS)
    state = optimizer.state()
    with pytest.raises(CheckpointError, match=r"'momentum\.1\.weight' is missing"):
        optimizer.load({n: t for n, t in state.items() if n != "momentum.1.weight"}, 1)
    with pytest.raises(CheckpointError, match=r"shape \(2, 2\), expected"):
        optimizer.load({**state, "momentum.1.weight": torch.zeros(2, 2)}, 1)


@pytest.mark.parametrize("shapes", [[(32, 48), (48, 32), (32, 48)], [(16, 16)]])
def test_batched_muon_steps_as_torchs_does(shapes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    own = [torch.randn(shape) for shape in shapes]
    theirs = [nn.Parameter(matrix.clone()) for matrix in own]
    muon, reference = (
        Muon(own),
        torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    before = [matrix.clone() for matrix in own]
    for _ in range(3):
        gradients = [torch.randn(shape) for shape in shapes]
        muon.step(gradients, torch.tensor(1e-2))
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()  # type: ignore[no-untyped-call]
    for matrix, start, parameter in zip(own, before, theirs, strict=True):
        assert (matrix - start).abs().max() > 1e-3
        torch.testing.assert_close(matrix, parameter.detach(), atol=2e-4, rtol=0)

"""One iteration of training, from patch indices to averaged weights.

Data flow: `agsr.training.patch_sampler` → network → `agsr.training.objectives` →
`agsr.training.step.optimized_module` → averaged weights. `Iteration.prepare` writes everything that
changes between iterations into tensors on the device. The work after it reads only those and never
synchronizes, so `agsr.training.step.kernels` can replay it from a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from agsr.training.config import TrainConfig
from agsr.training.distributed import World
from agsr.training.objectives import Objective
from agsr.training.patch_sampler import DegradingPatchBank, PatchBank
from agsr.training.schedule import Phase, supervised_steps
from agsr.training.step.kernels import Launcher
from agsr.training.step.optimized_module import OptimizedModule, autocast


class Iteration:
    """Runs iterations.

    Args:
        config: Configuration of the run.
        world: The ranks that train together.
        bank: Source of patches.
        forward: The network as `agsr.training.step.optimized_module.AfterSteps`, wrapped for
            training.
        optimized: The network with its optimizer.
        objective: The loss.
        launcher: Launches the kernels.

    Attributes:
        average: The averaged weights, float32, by name.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        *,
        bank: PatchBank | DegradingPatchBank,
        forward: nn.Module,
        optimized: OptimizedModule,
        objective: Objective,
        launcher: Launcher,
    ) -> None:
        self._config, self._world = config, world
        self._bank, self._forward = bank, forward
        self._optimized, self._objective, self._launcher = optimized, objective, launcher
        self.average = {k: v.clone().float() for k, v in optimized.values.items()}
        self._pull = torch.zeros((), device=world.device)
        self._inputs: dict[tuple[int, int], list[Tensor]] = {}
        self._sums: Tensor | None = None
        self._count = 0

    def run(self, index: int, phase: Phase, rate: float) -> None:
        """Run iteration ``index`` (from 0) at a learning rate."""
        self.prepare(index, phase, rate)
        chosen = supervised_steps(phase.steps, index)
        turn = index % self._objective.turns
        work = partial(self.work, phase, chosen, turn)
        shape = (phase.steps, phase.batch, phase.crop)
        period = 2 * max(1, phase.steps - 1)  # of the supervised steps and of the turns
        self._launcher.run(shape, (*shape, *chosen, turn), work, period=period)
        self._count += 1

    def prepare(self, index: int, phase: Phase, rate: float) -> None:
        """Send the inputs of an iteration to the device, without synchronization."""
        self._optimized.set_rate(rate)
        self._objective.set_rate(rate * self._config.critic_rate / self._config.peak_rate)
        done = index + 1
        self._pull.fill_(1 - min(self._config.ema_decay, (1 + done) / (10 + done)))
        staged = self._bank.stage(index, phase.batch, phase.crop)
        key = phase.batch, phase.crop
        if key not in self._inputs:
            self._inputs[key] = [torch.empty_like(s, device=self._world.device) for s in staged]
        for target, value in zip(self._inputs[key], staged, strict=True):
            target.copy_(value, non_blocking=True)

    def work(self, phase: Phase, chosen: Sequence[int], turn: int) -> None:
        """Launch the device's work: the same for equal arguments, without synchronization."""
        lr, hr = self._bank.cut(self._inputs[phase.batch, phase.crop], phase.crop)
        with autocast(self._world.device, self._config.bf16):
            outputs = self._forward(lr, chosen)
        self._optimized.step(self._objective.loss(outputs, hr, turn))
        self._objective.update()
        self._update_average()
        self._add_terms()

    def read_terms(self) -> tuple[dict[str, float], int]:
        """Return means of the loss's terms over all ranks, and iterations, since the last call."""
        if self._sums is None:
            raise RuntimeError("no iteration has run yet")
        means = (self._world.mean(self._sums) / self._count).tolist()
        count, self._count = self._count, 0
        self._sums.zero_()
        return dict(zip(self._objective.log, means, strict=True)), count

    @torch.no_grad()
    def _update_average(self) -> None:
        average = list(self.average.values())
        values = [self._optimized.values[name].float() for name in self.average]
        steps = torch._foreach_sub(values, average)
        torch._foreach_mul_(steps, self._pull)
        torch._foreach_add_(average, steps)

    @torch.no_grad()
    def _add_terms(self) -> None:
        terms = torch.stack([term.float() for term in self._objective.log.values()])
        if self._sums is None:
            self._sums = torch.zeros_like(terms)
        self._sums += terms

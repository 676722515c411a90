"""Compares the algorithms of `janusflow reward` on points in the plane, at equal samples.

    python -m studies.reward_algorithms --out curves.json

A prompt names one of eight Gaussians on a circle. The base model draws it six times in ten and
another one otherwise. **Gold** is whether a sample lies within 0.5 of the centre that was asked
for. Each algorithm learns once from the gold reward and once from a weak one, how far a sample lies
in the right direction, which a point beyond all data has most of. The losses are those of the
trainer; sizes and rates are the plane's, and say nothing of rates for images. The rate of each
algorithm is the one of three that ends with the highest reward it learns from, on a seed that is
not reported.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn

import samplers
from janusflow.training.objectives.map_losses import squared
from janusflow.training.objectives.matching import clipped
from janusflow.training.objectives.nft import nft as nft_loss
from samplers import command_line, rectify
from samplers.benchmark.style import colour, mark, paper
from samplers.solvers.transitions import TRANSITIONS

MODES, GROUP, NEAR = 8, 16, 0.5
ANGLES = torch.arange(MODES) * 2 * math.pi / MODES
CENTRES = 2 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
WRONG = 0.4  # share of the base's training samples that another prompt stands beside
STEPS, EVERY, TESTED = 150, 15, 1024
LAG, KL = 0.9, 0.1
RATES = (1e-4, 3e-4, 1e-3)
SEEDS, CHOOSING = (0, 1, 2), 100
EULER = torch.linspace(0, 1, 9)
WINDOW, STRENGTH = 4, 0.5  # of grpo's stochastic steps
T = 4.303  # of Student's distribution with two degrees of freedom, 95 %


class Net(nn.Module):
    """v(x, t) of a prompt's number."""

    def __init__(self, width: int = 96):
        super().__init__()
        sizes = [5 + MODES, width, width, width]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor, asked: Tensor) -> Tensor:
        waves = torch.stack([t, (3.14 * t).sin(), (3.14 * t).cos()], dim=1)
        names = nn.functional.one_hot(asked, MODES).to(x)
        return self.layers(torch.cat([x, waves, names], dim=1))


def gold(x: Tensor, asked: Tensor) -> Tensor:
    """Returns (B,): 1 within NEAR of the requested centre, else 0."""
    return ((x - CENTRES[asked]).norm(dim=1) < NEAR).float()


def weak(x: Tensor, asked: Tensor) -> Tensor:
    """Returns (B,) in (-1, 1): tanh of how far a sample lies in the requested direction."""
    return ((x * CENTRES[asked]).sum(dim=1) / 4).tanh()


REWARDS = {"gold": gold, "weak": weak}


def base_model(seed: int, steps: int = 1500, count: int = 256) -> Net:
    """Trains a flow that draws the requested centre six times in ten."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        asked = torch.randint(MODES, (count,), generator=rng)
        other = torch.randint(MODES, (count,), generator=rng)
        wrong = torch.rand(count, generator=rng) < WRONG
        data = CENTRES[torch.where(wrong, other, asked)]
        data = data + 0.15 * torch.randn(count, 2, generator=rng)
        noise, t = torch.randn(count, 2, generator=rng), torch.rand(count, generator=rng)
        optimizer.zero_grad()
        rectify.loss(lambda x, t, a=asked: net(x, t, a), noise, data, t).mean().backward()
        optimizer.step()
    return net


@torch.no_grad()
def draw(net: Net, asked: Tensor, noise: Tensor) -> Tensor:
    return samplers.sample(samplers.batched(lambda x, t: net(x, t, asked)), noise, 8, "ab2")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Samples of a step with what the losses read: of prompts, GROUP samples each."""

    asked: Tensor  # (B,)
    data: Tensor  # (B, 2)
    noise: Tensor
    t: Tensor
    reward: Tensor
    walk: tuple[Tensor, ...] = ()  # grpo's step: x, y, t, s

    @property
    def x(self) -> Tensor:
        return torch.lerp(self.noise, self.data, self.t[:, None])

    @property
    def advantage(self) -> Tensor:
        groups = self.reward.view(-1, GROUP)
        centred = (groups - groups.mean(dim=1, keepdim=True)).flatten()
        return centred / self.reward.std(correction=0).clamp(min=1e-4)


Loss = Callable[[Drawn, Net, Net, Net], Tensor]
ALGORITHMS: dict[str, Loss] = {}


def algorithm(loss: Loss) -> Loss:
    """Registers a loss (drawn, net, policy, base) -> a number."""
    ALGORITHMS[loss.__name__] = loss
    return loss


@algorithm
def nft(one: Drawn, net: Net, policy: Net, base: Net) -> Tensor:
    """DiffusionNFT."""
    with torch.no_grad():
        old = policy(one.x, one.t, one.asked)
    v, share = net(one.x, one.t, one.asked), 0.5 + 0.5 * one.advantage.clamp(-1, 1)
    return (nft_loss(v, old, one.x, one.t, one.data, share, 1.0) + held(v, one, base)).mean()


@algorithm
def grpo(one: Drawn, net: Net, policy: Net, base: Net) -> Tensor:
    """Flow-GRPO on one step of the first WINDOW, by CPS."""
    x, _, t, _ = one.walk
    with torch.no_grad():
        old = density(policy(x, t, one.asked), one)
    v = net(x, t, one.asked)
    ratio = (density(v, one) - old).exp()
    kept = squared(v - base(x, t, one.asked).detach())
    return (clipped(ratio, one.advantage.clamp(-5, 5), 0.2) + KL * kept).mean()


def density(velocity: Tensor, one: Drawn) -> Tensor:
    x, y, t, s = one.walk
    return samplers.step_log_prob(x, y, velocity, t, s, "cps", strength=STRENGTH).float() / 2


@algorithm
def awm(one: Drawn, net: Net, policy: Net, base: Net) -> Tensor:
    """Advantage-weighted matching."""
    with torch.no_grad():
        old = squared(policy(one.x, one.t, one.asked) - (one.data - one.noise))
    v = net(one.x, one.t, one.asked)
    ratio = (old - squared(v - (one.data - one.noise))).exp()
    return (clipped(ratio, one.advantage.clamp(-5, 5), 0.2) + held(v, one, base)).mean()


@algorithm
def best_of_n(one: Drawn, net: Net, _policy: Net, base: Net) -> Tensor:
    """Flow matching on each prompt's best, where it is better than the others."""
    groups = one.reward.view(-1, GROUP)
    best = nn.functional.one_hot(groups.argmax(dim=1), GROUP).flatten() * (one.advantage > 0)
    v = net(one.x, one.t, one.asked)
    return (GROUP * best * squared(v - (one.data - one.noise)) + held(v, one, base)).mean()


@algorithm
def dpo(one: Drawn, net: Net, _policy: Net, base: Net, beta: float = 5.0) -> Tensor:
    """Diffusion-DPO on each prompt's best and worst, at one noise and time."""
    groups = one.reward.view(-1, GROUP)
    first = torch.arange(len(groups)) * GROUP
    decided = (groups.amax(dim=1) > groups.amin(dim=1)).float()
    gains = []
    for place in (first + groups.argmax(dim=1), first + groups.argmin(dim=1)):
        noise, t, asked = one.noise[first], one.t[first], one.asked[place]
        way = one.data[place] - noise
        x = noise + t[:, None] * way
        with torch.no_grad():
            theirs = squared(base(x, t, asked) - way)
        gains.append(squared(net(x, t, asked) - way) - theirs)
    each = -nn.functional.logsigmoid(-beta * (gains[0] - gains[1])) * decided
    return each.mean() + held(net(one.x, one.t, one.asked), one, base).mean()


def held(velocity: Tensor, one: Drawn, base: Net) -> Tensor:
    """Returns KL times the squared distance to the base's velocity, (B,)."""
    with torch.no_grad():
        theirs = base(one.x, one.t, one.asked)
    return KL * squared(velocity - theirs)


@torch.no_grad()
def rollout(name: str, policy: Net, reward, rng: torch.Generator) -> Drawn:
    """Draws MODES prompts of GROUP samples; grpo's by stochastic steps, the others' by ab2."""
    asked = torch.arange(MODES).repeat_interleave(GROUP)
    start = torch.randn(len(asked), 2, generator=rng)
    walk = ()
    if name == "grpo":
        data, walk = stochastic(policy, asked, start, rng)
    else:
        data = draw(policy, asked, start)
    noise, t = torch.randn(len(asked), 2, generator=rng), torch.rand(len(asked), generator=rng)
    return Drawn(asked=asked, data=data, noise=noise, t=t, reward=reward(data, asked), walk=walk)


def stochastic(policy: Net, asked: Tensor, x: Tensor, rng: torch.Generator):
    """Returns the ends of stochastic steps, and one step (x, y, t, s) of each."""
    picked = torch.randint(WINDOW, (len(x),), generator=rng)
    states = [x]
    for i, (t, s) in enumerate(pairwise(EULER)):
        k = policy(x, t.expand(len(x)), asked)
        if i < WINDOW:
            middle, deviation = TRANSITIONS["cps"](x, k, t, s, strength=STRENGTH)
            x = middle + deviation * torch.randn(x.shape, generator=rng)
        else:
            x = x + (s - t) * k
        states.append(x)
    path, rows = torch.stack(states), torch.arange(len(x))
    step = path[picked, rows], path[picked + 1, rows], EULER[picked], EULER[picked + 1]
    return x, step


def learn(name: str, rewarded: str, rate: float, seed: int, base: Net) -> list[dict]:
    """Returns both rewards of TESTED samples of the policy, every EVERY steps."""
    net, policy, reward = copy.deepcopy(base), copy.deepcopy(base), REWARDS[rewarded]
    rng, found = torch.Generator().manual_seed(1000 + seed), []
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            found.append({"step": step} | tested(policy))
        if step == STEPS:
            return found
        one = rollout(name, policy, reward, rng)
        optimizer.zero_grad()
        ALGORITHMS[name](one, net, policy, base).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():  # the policy follows slowly
            for own, new in zip(policy.parameters(), net.parameters(), strict=True):
                own.lerp_(new, 1 - LAG)
    return found


def tested(policy: Net) -> dict[str, float]:
    """Returns the mean of each reward over the same noises for all."""
    asked = torch.arange(MODES).repeat_interleave(TESTED // MODES)
    noise = torch.randn(len(asked), 2, generator=torch.Generator().manual_seed(7))
    x = draw(policy, asked, noise)
    return {name: float(reward(x, asked).mean()) for name, reward in REWARDS.items()}


def rate_of(name: str, rewarded: str, base: Net) -> float:
    """Returns the learning rate that ends with the highest reward it learns from."""
    ends = {r: learn(name, rewarded, r, CHOOSING, base)[-1][rewarded] for r in RATES}
    return max(ends, key=ends.get)


def interval(values: list[float]) -> list[float]:
    """Returns mean and 95 % interval of three seeds."""
    half = T * stdev(values) / math.sqrt(len(values))
    return [round(x, 3) for x in (mean(values), mean(values) - half, mean(values) + half)]


def curves() -> list[dict]:
    """Returns a row for each algorithm, trained reward and step."""
    bases = {seed: base_model(seed) for seed in (*SEEDS, CHOOSING)}
    rows = []
    for rewarded in REWARDS:
        for name in ALGORITHMS:
            rate = rate_of(name, rewarded, bases[CHOOSING])
            runs = [learn(name, rewarded, rate, seed, bases[seed]) for seed in SEEDS]
            for points in zip(*runs, strict=True):
                row = {"algorithm": name, "learns from": rewarded, "step": points[0]["step"]}
                row |= {told: interval([p[told] for p in points]) for told in REWARDS}
                rows.append(row | {"rate": f"{rate:g}"})
            print(json.dumps(rows[-1]), flush=True)
    return rows


@paper
def figure(rows: list[dict]):
    """Draws the gold reward over steps: learned from itself, and from the weak one."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.2, 3.0), layout="constrained")
    panels = (("gold", "gold"), ("weak", "weak"), ("weak", "gold"))
    for ax, letter, (learnt, shown) in zip(fig.subplots(1, 3), "abc", panels, strict=True):
        for place, name in enumerate(ALGORITHMS):
            own = [r for r in rows if r["algorithm"] == name and r["learns from"] == learnt]
            middle, low, high = zip(*(r[shown] for r in own), strict=True)
            steps = [r["step"] for r in own]
            ax.plot(steps, middle, mark(place), ms=3, color=colour(place), label=name)
            ax.fill_between(steps, low, high, color=colour(place), alpha=0.15, linewidth=0)
        ax.set(xlabel="step (128 samples each)", ylim=(0, 1.02))
        ax.set_ylabel(f"{shown} reward, n = {len(SEEDS)} seeds")
        ax.set_title(f"({letter}) trained on {learnt}", loc="left")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(ALGORITHMS))
    return fig


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="Writes the rows to this JSON file."
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.write_text(json.dumps(curves()))


if __name__ == "__main__":
    main()

"""The study in one figure: scores, differences to `none`, and what is inside."""

from __future__ import annotations

from samplers.benchmark.style import colour, mark, paper

PROMPTS = 12


@paper
def figure(made: dict):
    """Draws four panels: strict score, two differences to `none` by seed, and CKNNA by block."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = fig.subplots(2, 2)
    _scores(axes[0, 0], made)
    scenes = f"n = {made['study']['held_out']} scenes"
    _difference(axes[0, 1], made, "held_out", f"held-out flow loss − none, {scenes}")
    _difference(axes[1, 0], made, "gap", f"gap of a wrong prompt − none, {scenes}")
    _inside(axes[1, 1], made)
    return fig


def _scores(ax, made: dict) -> None:
    study, arms = made["study"], made["arms"]
    for place, entry in enumerate(arms.values()):
        line = entry["curves"]["strict"]
        ax.plot([line["low"][-1], line["high"][-1]], [place, place], color=colour(place))
        ax.plot(line["mean"][-1], place, "o", color=colour(place), markersize=6)
    seeds = max(len(entry["seeds"]) for entry in arms.values())
    count = PROMPTS * study["images"] * seeds
    ax.set(xlabel=f"strict score, 95 % interval, n = {count} images", xlim=(0, None))
    ax.set_title(f"(a) after {study['steps'] * study['batch']:,} training images", loc="left")
    _rows(ax, list(arms))


def _difference(ax, made: dict, measure: str, label: str) -> None:
    """Draws a mark for each seed: the mean over the second half of the training."""
    arms = [arm for arm in made["arms"] if arm != "none"]
    for place, arm in enumerate(arms, 1):
        entry = made["arms"][arm]
        for seed, value in enumerate(entry["against_none"][measure]):
            name = f"seed {seed}" if place == 1 else None
            ax.plot(value, place, "os^v"[seed % 4], color=colour(place), markersize=6, label=name)
    ax.locator_params(axis="x", nbins=4)
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set(xlabel=label)
    ax.set_title(f"({'b' if measure == 'held_out' else 'c'}) second half of training", loc="left")
    legend = ax.legend(loc="upper right", bbox_to_anchor=(0.94, 1))
    for handle in legend.legend_handles if legend else ():
        handle.set_color("0.3")
    _rows(ax, ["", *arms])
    ax.set_ylim(len(arms) + 0.5, 0.5)


def _inside(ax, made: dict) -> None:
    for place, (arm, entry) in enumerate(made["arms"].items()):
        blocks = range(1, len(entry["cknna"]) + 1)
        ax.plot(blocks, entry["cknna"], mark(place), color=colour(place), label=arm)
    ax.set(xlabel="block", ylabel="CKNNA with the vision encoder", ylim=(0, None))
    ax.set_xticks(range(1, made["study"]["blocks"] + 1))
    ax.set_title("(d) hidden tokens at t = 0.5", loc="left")
    ax.legend(ncols=3, loc="upper center")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * 1.25)


def _rows(ax, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x")

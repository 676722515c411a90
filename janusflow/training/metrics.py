"""Reports a run's progress: a progress bar, a log of JSON lines, and accelerate's trackers."""

import json
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from janusflow.utils.locked_dir import refused, write


class Monitor:
    """Collects the results of `Trainer.step` and reports their mean every `log_every` steps.

    It does nothing in processes other than the first.
    """

    def __init__(self, trainer, out: Path):
        self.trainer, self.path = trainer, out / "log.jsonl"
        self.first = trainer.rank == 0
        self.meter = None  # what a token costs, once a step was counted
        start = trainer.state.step
        if self.first:
            cut(self.path, start)
        self.bar = tqdm(
            total=trainer.settings.steps, initial=start, unit="step", desc="train", disable=None
        )  # silent where nobody looks
        self.bar.disable = self.bar.disable or not self.first
        self._start_over()

    def _start_over(self) -> None:
        self.since, self.steps, self.samples, self.tokens = time.perf_counter(), 0, Counter(), 0
        self.parts, self.weighted = Counter(), Counter()
        self.cosines, self.measured = [], {}
        self.rest, self.sums, self.counts = Counter(), [0.0] * 10, [0.0] * 10

    def add(self, found: dict) -> None:
        """Adds the results of one step."""
        self.steps += 1
        self.tokens += found["tokens"]
        settings = self.trainer.settings
        self.samples.update(settings.schedule.counts(self.trainer.state.step - 1))
        for name, value in found["parts"].items():
            self.parts[name] += value
            self.weighted[name] += found["weights"][name] * value
        self.rest.update(
            {"loss": found["loss"], "grad_norm": found["grad_norm"], "lr": found["lr"]}
        )
        for name, value in found.get("measured", {}).items():
            self.measured.setdefault(name, []).append(value)
        self.cosines += [found["gradient_cosine"]] if "gradient_cosine" in found else []
        sums, counts = found["by_time"]
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.bar.update()
        step, every = self.trainer.state.step, settings.run.log_every
        if step % every == 0 or step == settings.steps:
            self.report()

    def skip(self) -> None:
        """Counts a step that was skipped, and reports what came before it if it is the last."""
        self.bar.update()
        if self.steps and self.trainer.state.step == self.trainer.settings.steps:
            self.report()

    def report(self) -> None:
        """Writes a line to the log and the trackers, and updates the progress bar."""
        line = self.line()
        self._start_over()
        if not self.first:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise refused(self.path, error) from error
        words = f"loss {line['loss']:.3f}, {line['images_per_s']:.1f} images/s"
        words += f", {line['tokens_per_s']:.0f} tokens/s"
        if "mfu" in line:
            words += f", {line['mfu']:.0%} MFU"
        self.bar.set_postfix_str(words)
        if self.trainer.settings.run.trackers:
            self.trainer.accelerator.log(_scalars(line), step=line["step"])

    def line(self) -> dict:
        """Returns the means since the last report.

        `flow_by_time[i]` is the flow loss for t in [i, i + 1) / 10, or null if there was none.
        """
        seconds = max(time.perf_counter() - self.since, 1e-9)
        mean = {name: value / self.steps for name, value in self.rest.items()}
        pairs = zip(self.sums, self.counts, strict=True)
        line = {"step": self.trainer.state.step, "loss": mean["loss"]}
        line |= {name: value / self.steps for name, value in self.parts.items()}
        line |= {f"{name}_weighted": v / self.steps for name, v in self.weighted.items()}
        line |= {"grad_norm": mean["grad_norm"], "lr": mean["lr"]}
        line |= {name: sum(seen) / len(seen) for name, seen in self.measured.items()}
        if self.cosines:
            line["gradient_cosine"] = sum(self.cosines) / len(self.cosines)
        rates = {
            "images_per_s": self.samples["generation"] / seconds,
            "samples_per_s": self.samples.total() / seconds,
            "tokens_per_s": self.tokens / seconds,
        }
        if self.meter is not None:
            rates["mfu"] = self.meter.fraction(self.tokens / seconds)
        rates["seconds_left"] = self.left * seconds / self.steps
        line |= {name: float(f"{value:.4g}") for name, value in rates.items()}
        line["flow_by_time"] = [round(s / n, 5) if n else None for s, n in pairs]
        return line

    @property
    def left(self) -> int:
        """Returns the number of steps that remain."""
        return self.trainer.settings.steps - self.trainer.state.step

    def close(self) -> None:
        self.bar.close()
        if self.trainer.settings.run.trackers:
            self.trainer.accelerator.end_training()


def _scalars(line: dict) -> dict:
    found = {
        n: value for n, value in line.items() if isinstance(value, float | int) and n != "step"
    }
    bins = enumerate(line["flow_by_time"])
    return found | {f"flow_by_time/{i}": value for i, value in bins if value is not None}


def cut(path: Path, step: int) -> None:
    """Removes log lines of steps that will be repeated, and an incomplete last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError):
            continue
    write(path, "".join(kept))

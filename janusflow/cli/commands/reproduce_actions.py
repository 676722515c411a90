"""The steps of `janusflow reproduce`: the sweep, its cost, its images, its table."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from janusflow.cli import load_model, model_families
from janusflow.cli.commands import evaluate_actions
from janusflow.cli.commands.evaluate import Options as Evaluation
from janusflow.evaluation import report, report_comparison, runner
from janusflow.evaluation.report import aligned
from janusflow.evaluation.reproduction import cost
from janusflow.evaluation.reproduction.benchmarks import Benchmark, benchmark
from janusflow.evaluation.reproduction.settings import STATES, Setting, sweep, tokenized
from janusflow.models import published_configs
from janusflow.utils.devices import pick_device, pick_dtype

AT_LEAST = 8  # images a batch that times a small model


def settings(options) -> list[Setting]:
    """Returns the sweep. Raises ValueError naming an option with an invalid value."""
    kinds = dict(guidance=float, steps=int, dtype=str, state=str, tokenizer=str)
    named = {"guidance": "guidance_scale"}
    given = {name: getattr(options, named.get(name, name)).split(",") for name in kinds}
    try:
        values = {name: [kinds[name](v.strip()) for v in row] for name, row in given.items()}
    except ValueError as error:
        raise ValueError(f"{error}; give numbers with commas between, such as 2,3,5") from error
    device = pick_device(options.device)
    values["dtype"] = [str(pick_dtype(name, device))[6:] for name in values["dtype"]]
    return sweep(values, options.full)


def planned(options) -> dict:
    """Returns the settings with images, evaluations and hours; nothing is generated."""
    chosen = benchmark(options.benchmark)
    model_families.check_flow(options.model, "reproduce sweeps the settings of")
    images, rows = count(chosen, options), []
    for setting in settings(options):
        seconds, how = timed(options, setting.dtype)
        evaluations = images * setting.evaluations
        row = dict(name=setting.name, images=images, evaluations=evaluations)
        rows.append(row | dict(hours=evaluations * seconds / 3600, by=how) | asdict(setting))
    total = sum(row["hours"] for row in rows)
    told = dict(benchmark=options.benchmark, model=options.model, settings=rows, hours=total)
    return told | {"published": chosen.published}


def count(chosen: Benchmark, options) -> int:
    """Returns the images per setting: those of the given prompts, else the official number."""
    seeds, given = options.seeds or chosen.seeds, options.prompts
    if given is None:
        return chosen.prompts * seeds
    if chosen.task == "scenes":
        return 6 * int(given) * seeds
    from janusflow.evaluation.tasks import distances, official

    readers = {"geneval": official.metadata, "dpg": official.texts, "fid": distances.read_prompts}
    return len(readers[chosen.task](Path(given))) * seeds


def timed(options, dtype: str) -> tuple[float, str]:
    """Returns the seconds per evaluation of a row, and how they were obtained; once per dtype."""
    return _timed(options.model, options.vae, options.device, dtype)


@cache
def _timed(model: str, vae: str | None, device: str, dtype: str) -> tuple[float, str]:
    if (config := published_configs.configuration(model)) is not None:
        place = pick_device(device)
        width = config.language_config.hidden_size
        speed = cost.operations_per_second(width, pick_dtype(dtype, place), place.type)
        return cost.operations(config) / speed, f"by matrix products at {speed / 1e9:,.0f} GFLOP/s"
    pipe = load_model.load(Evaluation(model=model, vae=vae, device=device, dtype=dtype))
    pipe.set_progress_bar_config(disable=True)
    return cost.seconds_per_evaluation(pipe, AT_LEAST), f"timed with {AT_LEAST} images at once"


def cost_table(found: dict) -> str:
    """Formats the sum, then one line per setting."""
    settings = found["settings"]
    images, evaluations = (sum(r[key] for r in settings) for key in ("images", "evaluations"))
    head = f"{images:,} images, {evaluations:,} network evaluations, {_hours(found)} hours here"
    rows = [["setting", "images", "evaluations", "hours"]]
    for row in found["settings"]:
        numbers = [f"{row['images']:,}", f"{row['evaluations']:,}", _hours(row)]
        rows.append([row["name"], *numbers])
    ways = dict.fromkeys(f"hours in {row['dtype']}: {row['by']}" for row in found["settings"])
    told = [f"{value:g}  {name}" for name, value in found["published"].items()]
    published = ["", "published scores of JanusFlow-1.3B:", *told] if told else []
    notes = [*ways, "not included: decoding, scoring"]
    return "\n".join([head, "", *aligned(rows), "", *notes, *published])


def _hours(row: dict) -> str:
    hours = row["hours"]
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2f}" if hours >= 0.01 else "<0.01"


def run(found: dict, options) -> dict:
    """Generates what is missing for every setting, and scores what can be scored."""
    chosen, reports = benchmark(options.benchmark), {}
    root = options.out or Path("reproduce", options.benchmark)
    for row, setting in zip(found["settings"], settings(options), strict=True):
        print(f"\n{setting.name}", flush=True)
        made = one(chosen, setting, options, root / setting.name)
        if made is None:
            continue
        reports[setting.name] = made
        row |= score(made, chosen.measure)
    rows = against_first(found["settings"], reports)
    print("\n" + score_table(rows, found["published"], chosen))
    return found | {"out": str(root)}


def one(chosen: Benchmark, setting: Setting, options, folder: Path) -> dict | None:
    """Returns the report of one setting, generating missing images."""
    asked = Evaluation(
        task=chosen.task,
        out=folder,
        prompts=options.prompts or str(chosen.prompts // 6),
        seeds=options.seeds or chosen.seeds,
        reference=options.reference,
        features=options.features,
        batch_size=options.batch_size,
        model=options.model,
        vae=options.vae,
        device=options.device,
        dtype=setting.dtype,
        num_inference_steps=setting.steps,
        guidance_scale=f"{setting.guidance:g}",
    )
    solver = STATES[setting.state]
    told = dict(tokenizer=setting.tokenizer, sampler=solver.name)
    plan = replace(evaluate_actions.plan(asked), **told)
    call = dict(guidance_scale=setting.guidance, num_inference_steps=setting.steps, sampler=solver)

    def load():
        pipe = tokenized(load_model.load(asked), setting.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    made = runner.run(load, plan, folder, call)
    if made is not None:
        report.save(made, folder)
    return made


def score(made: dict, measure: str) -> dict:
    """Returns a report's overall score, with its interval if it has one; empty before it is
    scored.
    """
    for split in made["scores"].values():
        entry = split["overall"]["scores"].get(measure)
        if entry is not None:
            return {name: entry.get(name) for name in ("score", "low", "high")}
    return {}


def against_first(rows: list[dict], reports: dict[str, dict]) -> list[dict]:
    """Adds the paired difference to the first setting, with its p."""
    first = next(iter(reports.values()), None)
    for row in rows:
        made = reports.get(row["name"])
        if made is None or made is first or not made["items"]:
            continue
        whole = [r for r in report_comparison.compare(first, made) if r["group"] == "overall"]
        row |= {"difference": whole[0]["difference"], "p": whole[0]["p"]}
    return rows


def score_table(rows: list[dict], published: dict[str, float], chosen: Benchmark) -> str:
    """Formats scores with intervals, and the published values that lie in each interval."""
    lines = [["setting", chosen.measure, "95 % interval", "- first", "p", "contains"]]
    for row in rows:
        lines.append([row["name"], *_cells(row, published)])
    text = "\n".join(aligned(lines))
    if any("score" not in row for row in rows):
        needs = f"- where there is no score yet: it needs {chosen.needs or 'more images'};"
        text += f"\n{needs}\n  janusflow evaluate --results FILE -o FOLDER/SETTING reads it back"
    return text


def _cells(row: dict, published: dict[str, float]) -> list[str]:
    if row.get("score") is None:
        return ["-"] * 5
    low, high = row.get("low"), row.get("high")
    interval = "-" if low is None else f"[{low:.3f}, {high:.3f}]"
    held = [f"{v:g}" for v in published.values() if low is not None and low <= v <= high]
    change = f"{row['difference']:+.3f}" if "difference" in row else "-"
    p = f"{row['p']:.3f}" if "p" in row else "-"
    return [f"{row['score']:.3f}", interval, change, p, ", ".join(held) or "-"]

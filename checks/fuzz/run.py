"""Feeds broken files to the readers of files, by coverage-guided fuzzing.

    python checks/fuzz/run.py all 250000 3

A reader may raise ValueError and nothing else, within SLOWEST seconds for an input. Inputs that
cause a fault are written to fuzz/found/.
"""

import subprocess
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
SLOWEST = 20  # seconds for one input
RUNS = 200_000

with atheris.instrument_imports(include=["janusflow", "samplers", "PIL"]):
    import readers

    from samplers import command_line


def main() -> None:
    name, runs, seed = command_line.positionals(
        __doc__,
        reader=(str, "all", f"Tests this one of {', '.join(readers.READERS)}; or all."),
        runs=(int, RUNS, f"Tries this many inputs. The default is {RUNS:,}."),
        seed=(int, 1, "Seeds the fuzzer. The default is 1."),
    ).values()
    if name == "all":
        for one in readers.READERS:
            subprocess.run([sys.executable, __file__, one, str(runs), str(seed)], check=True)
        return print(f"{len(readers.READERS)} readers, {runs} inputs each, seed {seed}: no finding")
    if name not in readers.READERS:
        raise SystemExit(f"no reader {name!r}; choose all or one of {', '.join(readers.READERS)}")
    read, examples = readers.READERS[name]
    corpus = HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for i, example in enumerate(examples()):
        (corpus / f"example-{i}").write_bytes(example)
    (HERE / "found").mkdir(exist_ok=True)

    def once(data: bytes) -> None:
        try:
            read(data)
        except ValueError as error:
            if not str(error) or len(str(error)) > 2000:
                raise AssertionError(f"no clear sentence: {str(error)[:200]!r}") from error

    options = [f"-atheris_runs={runs}", f"-seed={seed}", f"-timeout={SLOWEST}", "-max_len=8192"]
    options += [
        f"-artifact_prefix={HERE}/found/{name}-",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

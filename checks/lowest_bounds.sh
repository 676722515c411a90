#!/usr/bin/env bash
# Installs the lowest version of every dependency that pyproject.toml allows and runs the tests:
# checks/lowest_bounds.sh [PLACE]. Downloads about 6 GB where torch comes with CUDA.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..") place=${1:-$(mktemp -d)}
python3 -m venv "$place/venv"
"$place/venv/bin/python" - "$root" > "$place/lowest.txt" <<'PYTHON'
import re, sys, tomllib
project = tomllib.load(open(f"{sys.argv[1]}/pyproject.toml", "rb"))["project"]
wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
print("\n".join(re.sub(r">=", "==", line) for line in wanted))
PYTHON
"$place/venv/bin/pip" install -q -r "$place/lowest.txt" setuptools
"$place/venv/bin/pip" install -q --no-deps --no-build-isolation -e "$root"
cd "$root" && "$place/venv/bin/python" -m pytest -q -m "not gpu"

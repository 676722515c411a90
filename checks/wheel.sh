#!/usr/bin/env bash
# Installs a wheel where the repository is not, and makes a picture: checks/wheel.sh WHEEL [SITE]
# With SITE (a site-packages) the dependencies are taken from there instead of downloaded.
set -euo pipefail
wheel=$(realpath "$1") place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
packages=$("$place/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
"$place/venv/bin/pip" install -q ${2:+--no-deps} "$wheel"
if [ "${2:-}" ]; then echo "$(realpath "$2")" > "$packages/zz_dependencies.pth"; fi
cd "$place"
venv/bin/python -c "import janusflow; assert janusflow.__file__.startswith('$packages'), janusflow"
venv/bin/janusflow generate "a red circle" --steps 4 -o "$place/out.png"
venv/bin/python -c "from PIL import Image; print(Image.open('out.png').size, 'from the wheel')"

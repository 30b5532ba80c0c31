#!/bin/sh
# Usage: install.sh PYTHON VENV. Makes VENV with vLLM's CPU build and what its tests need, once for these pins.
# Exit status 3 where there is no such build.
set -eu
python=$1 venv=$2 here=$(dirname "$0")
case "$(uname -sm)" in
    "Linux x86_64") ;;
    *) echo "There is no CPU build of vLLM here for $(uname -sm), only for Linux x86_64: its tests are skipped." >&2
       exit 3 ;;
esac
pins=$(cat "$here"/* | sha256sum | cut -c1-16)
[ ! -e "$venv/.installed-$pins" ] || exit 0
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$here/torchvision_ops.py" "$packages/"
echo "import torchvision_ops" > "$packages/torchvision_ops.pth"
touch "$venv/.installed-$pins"

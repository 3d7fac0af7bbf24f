#!/bin/sh
# Installs the service, and nothing that it does not need, into a new virtual environment: install.sh FOLDER
# The Dockerfile runs this, and a test does where there is no Docker. Whatever is downloaded has its hash in build.txt or
# service.txt, the build backend too.
set -eu
cd "$(dirname "$0")/.."
build="$1.build/bin/python"
python -m venv "$1.build"
"$build" -m pip install --quiet --no-cache-dir --no-deps --require-hashes --requirement docker/build.txt
"$build" -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --require-hashes --wheel-dir "$1.wheels" \
  --requirement docker/service.txt
"$build" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$1.wheels" .
python -m venv "$1"
"$build" -m pip --python "$1/bin/python" install --quiet --no-index --no-deps "$1.wheels"/*.whl
rm -r "$1.build" "$1.wheels"

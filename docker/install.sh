#!/bin/sh
# Installs the service, and nothing that it does not need, into a new virtual environment: install.sh FOLDER
# The Dockerfile runs this, and a test does where there is no Docker.
set -eu
cd "$(dirname "$0")/.."
python -m venv "$1"
"$1/bin/python" -m pip install --quiet --no-cache-dir 'pip>=25.1' # the first that knows --group
"$1/bin/python" -m pip install --quiet --no-cache-dir --constraint constraints.txt --group service
"$1/bin/python" -m pip install --quiet --no-cache-dir --no-deps .

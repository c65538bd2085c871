#!/bin/sh
# Starts the demo worker with the token that the service hatchet-token left in the shared volume.
set -eu
HATCHET_CLIENT_TOKEN=$(cat "${TOKEN_FILE:-/handover/token}")
export HATCHET_CLIENT_TOKEN
exec python -m mageflow.cli.demo.shop.worker --traffic

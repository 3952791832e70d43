#!/usr/bin/env bash
# Runs other people's test suites, and our own outside view, against our binary in place of nats-server, and compares
# with what nats-server itself passes. `scripts/compat.sh --help` lists the options; scripts/compat/README.md says what
# each suite needs.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/compat/run.py" "$@"

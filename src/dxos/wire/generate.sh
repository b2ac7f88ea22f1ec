#!/bin/sh
# Writes the generated modules beside the .proto files; needs the `dev` extra. The result is checked in.
set -eu
cd "$(dirname "$0")/../.."
python -m grpc_tools.protoc -I . -I "$(python -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')" \
    --python_out=. --pyi_out=. dxos/wire/proto/*.proto

"""Modules generated from the .proto files beside them by `src/dxos/wire/generate.sh`."""

#!/usr/bin/env bash
# nas-bench-graph 1.4.0: the two spellings of one network in its description are two networks, with rows of their own.
#
# Behaviour: the package's description says that "the list can be specified in any order", and that
#   Arch([0, 1, 1, 2], ['gcn', 'cheb', 'gin', 'fc']) is the same as Arch([0, 1, 2, 1], ['gcn', 'gin', 'fc', 'cheb']).
#   In the second fc follows gin, in the first it follows cheb. Who reads the table as the example does gets the row of
#   another network.
# Right value: equal hashes, as Arch([0, 1, 1, 2], ['gcn', 'gin', 'cheb', 'fc']) has: valid_hash is right, the example not.
# Seen: hashes 61237, 61327 and 61237; validation accuracies on Cora that differ for the example's pair.
# This script fails if that changes. The package needs nothing but Python and numpy.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy
"$folder/venv/bin/pip" install --quiet --no-deps nas-bench-graph==1.4.0
"$folder/venv/bin/python" - <<'PY'
from importlib import metadata

from nas_bench_graph import Arch, light_read

described = metadata.metadata("nas-bench-graph").get_payload() or metadata.metadata("nas-bench-graph")["Description"]
assert "arch = Arch([0, 1, 1, 2], ['gcn', 'cheb', 'gin', 'fc'])" in described, "the description has changed"
first = Arch([0, 1, 2, 1], ["gcn", "gin", "fc", "cheb"]).valid_hash()
called_equal = Arch([0, 1, 1, 2], ["gcn", "cheb", "gin", "fc"]).valid_hash()
equal = Arch([0, 1, 1, 2], ["gcn", "gin", "cheb", "fc"]).valid_hash()
rows = light_read("cora")
print("nas-bench-graph", metadata.version("nas-bench-graph"), "hashes:", first, called_equal, equal)
print("validation accuracies:", rows[first]["valid_perf"], rows[called_equal]["valid_perf"], "(right: equal)")
assert first == equal
assert first != called_equal, "the behaviour has changed"
assert rows[first]["valid_perf"] != rows[called_equal]["valid_perf"], "the behaviour has changed"
PY

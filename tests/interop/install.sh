#!/bin/sh
# Installs the JavaScript peers that the interoperability tests and the benchmark talk to.
# Run it as often as you like: it does nothing when the lock file has not changed since the last time.
set -eu
case $0 in */*) cd "${0%/*}" ;; esac

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

command -v node >/dev/null 2>&1 || fail "Node.js is not installed (no 'node' on the PATH); version 20 or later is needed."
command -v npm >/dev/null 2>&1 || fail "npm is not installed (no 'npm' on the PATH); it usually comes with Node.js."
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || fail "Node.js $major is too old; version 20 or later is needed."

# Two test runs may start together, and npm ci begins by deleting what the other has just installed.
if command -v flock >/dev/null 2>&1; then
    exec 9>.install.lock
    flock 9
fi

# The stamp names all that decides what gets installed, so that an update of any of it installs again.
wanted=$(cat package.json package-lock.json stub-sharp/package.json stub-sharp/index.js install.sh | cksum)
wanted="$wanted node-$(node -p 'process.versions.modules')"
stamp=node_modules/.dxos-installed
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

# Install scripts stay off: several of them fetch prebuilt binaries from other places than the registry.
# The lock file names no registry, so npm must not write one back either.
npm ci --ignore-scripts --no-audit --no-fund --omit-lockfile-registry-resolved=true >&2 ||
    fail "npm ci failed; its own words are above."

# The one native module that has to be compiled here: it locks the files of a profile. Needs a C++ compiler.
npm rebuild fs-ext >&2 || fail "npm rebuild fs-ext failed; is a C++ compiler and Python 3 installed?"

# A half-made installation must not pass for a whole one, so the stamp is written last and only after a trial.
node --input-type=module -e 'await import("fs-ext"); await import("@dxos/client")' >/dev/null 2>&1 ||
    fail "the packages are there but the client cannot be loaded; remove node_modules and try again."
echo "$wanted" >"$stamp"

#!/bin/sh
# Writes the manual and the completions for shells into a folder, for packages:
# deploy/extras.sh DIR [ROSTERD]. Without a rosterd, that of the sources writes them.
set -eu
cd "$(dirname "$0")/.."
dir=$1
rosterd=${2:-go run .}
rm -rf "$dir"
mkdir -p "$dir/man"
$rosterd man "$dir/man"
rm -f "$dir"/man/*completion*
for shell in bash zsh fish; do $rosterd completion $shell >"$dir/rosterd.$shell"; done

#!/bin/sh
# Builds dist/rosterd_VERSION_ARCH.deb, of which it prints the name: make deb. Other
# architectures: ARCH=arm64 make deb.
set -eu
cd "$(dirname "$0")/../.."

: "${GO:=go}" "${VERSION:=devel}" "${COMMIT:=unknown}" "${NFPM:?is a module with its version}"
: "${ARCH:=$($GO env GOARCH)}" "${OUT:=dist}" "${MAINTAINER:=rosterd <rosterd@localhost>}"
# Debian's versions begin with a digit, and what comes before a release has a tilde.
DEB_VERSION=$(printf %s "${VERSION#v}" | sed 's/-/+/g')
case $DEB_VERSION in
[0-9]*.[0-9]*) ;;
*) DEB_VERSION=0.0.0~$(printf %s "$VERSION" | tr -c 'A-Za-z0-9.\n' .) ;;
esac

# The same sources give the same package.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH

BUILD=$(mktemp -d)
trap 'rm -rf "$BUILD"' EXIT
build() { # architecture, file
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 $GO build -buildvcs=false -trimpath \
		-ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o "$2" .
}
build "$ARCH" "$BUILD/rosterd"
tool=$BUILD/rosterd # which writes its own manual
if [ "$ARCH" != "$($GO env GOHOSTARCH)" ]; then
	tool=$BUILD/tool
	build "$($GO env GOHOSTARCH)" "$tool"
fi
deploy/extras.sh "$BUILD/extras" "$tool"
gzip -9n "$BUILD"/extras/man/*
gzip -9nc CHANGELOG.md >"$BUILD/changelog.gz"
if [ -e LICENSE ]; then cp LICENSE "$BUILD/copyright"; else echo "License: MIT" >"$BUILD/copyright"; fi
{
	cat deploy/deb/unit-header
	sed -e '1,/^$/d' -e 's|^ExecStart=/usr/local/bin/|ExecStart=/usr/bin/|' -e 's|^DynamicUser=yes|User=rosterd|' deploy/rosterd.service
} >"$BUILD/rosterd.service"

mkdir -p "$OUT"
file=$OUT/rosterd_${DEB_VERSION}_$ARCH.deb
export ARCH BUILD DEB_VERSION MAINTAINER
$GO run "$NFPM" package --config deploy/deb/nfpm.yaml --packager deb --target "$file" >&2
echo "$file"

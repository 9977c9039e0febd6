#!/bin/sh
# Installs what `make test` and `make demo` need on Debian 12, if it is missing,
# and says what it did in one line. It may be run again and again.
#
# Prosody's package starts a server on the default ports: that is prevented, for
# the tests and the demo start servers of their own.
set -eu

say() { echo "install-debian: $*"; }

missing=
have() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^.i'; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	say "not a Debian machine: install Prosody 0.12, its community modules, slixmpp for $([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo Python 3) and a C compiler by hand"
	exit 0
fi
for package in prosody prosody-modules python3-slixmpp; do
	have "$package" || missing="$missing $package"
done
# The race detector needs cgo, and that a C compiler.
cc=${CC:-gcc}
command -v "${cc%% *}" >/dev/null || missing="$missing gcc libc6-dev"
missing=${missing# }

if [ -z "$missing" ]; then
	say "nothing to install"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	say "not root: install by hand: apt-get install --no-install-recommends $missing"
	exit 0
fi

had_prosody=false
if have prosody; then had_prosody=true; fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
own_policy=false
cleanup() {
	if $own_policy; then rm -f "$policy"; fi
	rm -f "$log"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# 101 is "action forbidden by policy", see invoke-rc.d(8). A policy that is
# there already is somebody's will.
if [ ! -e "$policy" ]; then
	own_policy=true
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

# Another apt-get may be running on a machine that has just been started.
apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >>"$log" 2>&1
}
# shellcheck disable=SC2086 # names of packages
if ! { apt update && apt install --no-install-recommends $missing; }; then
	cat "$log" >&2
	say "apt-get failed, see above: could not install $missing" >&2
	exit 1
fi

# What was not there before shall not run, now or at the next start of the
# machine, whatever somebody's policy says.
if ! $had_prosody && have prosody; then
	if [ -d /run/systemd/system ]; then
		systemctl disable --now prosody.service >>"$log" 2>&1 || true
	else
		# COMPAT: the init script of Debian 12 looks for a lua5.2 and stops nothing.
		prosodyctl stop >>"$log" 2>&1 || true
		update-rc.d prosody disable >>"$log" 2>&1 || true
	fi
fi
say "installed $missing"

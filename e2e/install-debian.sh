#!/bin/sh
# Installs what `make test` and `make demo` need on Debian 12, if it is missing,
# and says what it did in one line. It may be run again and again.
#
# The packages of the XMPP servers start them on the default ports: that is
# prevented, for the tests and the demo start servers of their own.
set -eu

say() { echo "install-debian: $*"; }

missing=
have() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^.i'; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	say "not a Debian machine: install Prosody 0.12, its community modules, ejabberd 23.01, slixmpp for $([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo Python 3) and a C compiler by hand"
	exit 0
fi
for package in prosody prosody-modules ejabberd python3-slixmpp; do
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

# What was there before is somebody's, and stays as it is. erlang-base brings
# epmd, which the tests do not need.
fresh=
for package in prosody ejabberd erlang-base; do
	have "$package" || fresh="$fresh $package"
done

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
disable() { # package, its systemd units
	package=$1
	shift
	if [ -d /run/systemd/system ]; then
		systemctl disable --now "$@" || true
		return
	fi
	# Somebody's policy may have let it start.
	$own_policy || case $package in
	# COMPAT: the init script of Debian 12 looks for a lua5.2 and stops nothing.
	prosody) prosodyctl stop || true ;;
	# ejabberdctl itself starts an epmd: only if there is something to stop.
	ejabberd) if pidof beam.smp; then ejabberdctl stop && ejabberdctl stopped || true; fi ;;
	erlang-base) epmd -kill || true ;; # unless another node is registered
	esac
	if [ -e "/etc/init.d/$package" ]; then update-rc.d "$package" disable || true; fi
	# A systemd that does not run now may at the next start: these are links only.
	if command -v systemctl; then systemctl disable "$@" || true; fi
}
for package in $fresh; do
	have "$package" || continue
	case $package in
	prosody) disable prosody prosody.service ;;
	ejabberd) disable ejabberd ejabberd.service ;;
	erlang-base) disable erlang-base epmd.service epmd.socket ;;
	esac >>"$log" 2>&1
done
say "installed $missing"

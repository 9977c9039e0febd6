#!/bin/sh
# Installs what `make test` and `make demo` need on Debian 12, if it is missing,
# with all security updates, and says what it did in one line. With the argument
# "matrix" it prepares what `make matrix` needs besides: the servers of later
# Debian releases, each in a root of its own. It may be run again and again, and
# by several at once.
#
# The packages of the XMPP servers start them on the default ports: that is
# prevented, for the tests and the demo start servers of their own.
set -eu

say() { echo "install-debian: $*"; }
fail() {
	say "$*" >&2
	exit 1
}

matrix=false
case "${1-}" in
"") ;;
matrix) matrix=true ;;
*) fail "the only argument is: matrix" ;;
esac

missing=
have() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^.i'; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	if $matrix; then fail "not a Debian machine: no servers of other releases"; fi
	say "not a Debian machine: install Prosody 0.12, its community modules, ejabberd 23.01, PostgreSQL 13 or later, slixmpp for $([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo Python 3), Chromium, npm, curl, sqlite3, systemd, Prometheus' promtool, Django, Rails, Laravel and a C compiler by hand"
	exit 0
fi

tested="prosody prosody-modules ejabberd erlang-p1-oauth2 python3-slixmpp postgresql-15"
# The status page is looked at in a browser.
for package in $tested chromium fonts-dejavu-core; do
	have "$package" || missing="$missing $package"
done
# The browser's chat, Converse.js, comes from npm.
command -v npm >/dev/null || missing="$missing npm"
# The unit is looked at with systemd-analyze. It does not have to run.
command -v systemd-analyze >/dev/null || missing="$missing systemd"
[ -x /bin/kill ] || missing="$missing procps"
# The commands of the documents.
command -v curl >/dev/null || missing="$missing curl"
command -v sqlite3 >/dev/null || missing="$missing sqlite3"
# The frameworks of docs/backend.md. Express comes from npm.
for package in python3-django php-cli php-sqlite3 php-laravel-framework php-guzzlehttp-guzzle \
	ruby-railties ruby-activerecord ruby-activejob ruby-sqlite3 ruby-webrick; do
	have "$package" || missing="$missing $package"
done
# promtool, which tries the alerts.
command -v promtool >/dev/null || missing="$missing prometheus"
# The race detector needs cgo, and that a C compiler.
cc=${CC:-gcc}
command -v "${cc%% *}" >/dev/null || missing="$missing gcc libc6-dev"
if $matrix; then
	command -v debootstrap >/dev/null || missing="$missing debootstrap debian-archive-keyring"
fi
missing=${missing# }

# outdated are the packages, among those that are tested and those that they
# depend on, for which apt knows a security update. libexpat1 is one of them.
outdated() {
	# shellcheck disable=SC2046,SC2086 # names of packages
	LC_ALL=C apt-get -s install --only-upgrade $(apt-cache depends --recurse --installed --no-recommends --no-suggests \
		--no-conflicts --no-breaks --no-replaces --no-enhances $tested | grep '^[a-z]' | sort -u) |
		sed -n 's/^Inst \([^ ]*\) \[[^]]*\] (.*Debian-Security:.*/\1/p' | tr '\n' ' '
}
# Without apt's lists it knows of none.
listed() { ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; }

updates=
if [ -z "$missing" ] && listed; then updates=$(outdated); fi

if [ "$(id -u)" != 0 ]; then
	if $matrix; then fail "not root, which the servers of other releases need"; fi
	if [ -n "$missing$updates" ]; then
		say "not root: install by hand: apt-get install --no-install-recommends $missing${updates:+ $updates}"
	else
		say "nothing to install"
	fi
	exit 0
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
own_policy=false
unfinished=
cleanup() {
	if $own_policy; then rm -f "$policy"; fi
	if [ -n "$unfinished" ]; then rm -rf --one-file-system "$unfinished"; fi
	rm -f "$log"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs side by side would take each other's policy away, and roots. No program
# that is started here keeps the lock: they get no descriptor 9.
exec 9>/var/lock/rosterd-e2e.lock
flock -n 9 || {
	say "waiting for another run"
	flock 9
}

# 101 is "action forbidden by policy", see invoke-rc.d(8).
forbid() { printf '#!/bin/sh\nexit 101\n' >"$1" && chmod 755 "$1"; }

# The settings of apt-get for who runs it unattended. Another one may be running
# on a machine that has just been started.
apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"

# disable has what was not there before not run, now or at the next start of the
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

# install_packages installs what is missing or outdated on this machine.
install_packages() {
	if [ -z "$missing$updates" ]; then
		if listed; then
			say "nothing to install"
			return
		elif ! $apt update >"$log" 2>&1; then # offline, perhaps
			say "nothing to install, but apt-get update failed: there may be security updates"
			return
		fi
	fi
	# What was there before is somebody's, and stays as it is. erlang-base brings
	# epmd, which the tests do not need.
	fresh=
	for package in prosody ejabberd erlang-base postgresql-15 prometheus; do
		have "$package" || fresh="$fresh $package"
	done
	# A policy that is there already is somebody's will.
	if [ ! -e "$policy" ]; then
		own_policy=true
		forbid "$policy"
	fi
	# shellcheck disable=SC2046,SC2086 # names of packages
	if ! { $apt update && $apt install --no-install-recommends $missing && updates=$(outdated) &&
		$apt install --no-install-recommends --only-upgrade $updates; } >>"$log" 2>&1; then
		cat "$log" >&2
		fail "apt-get failed, see above: could not install $missing $updates"
	fi
	for package in $fresh; do
		have "$package" || continue
		case $package in
		prosody) disable prosody prosody.service ;;
		ejabberd) disable ejabberd ejabberd.service ;;
		erlang-base) disable erlang-base epmd.service epmd.socket ;;
		postgresql-15) disable postgresql postgresql.service ;; # of all versions
		prometheus) disable prometheus prometheus.service ;;
		esac >>"$log" 2>&1
	done
	if [ -z "$missing$updates" ]; then
		say "nothing to install"
		return
	fi
	say "installed${missing:+ $missing}${updates:+ the updates of ${updates% }}"
}

# The roots of other releases, kept between runs. The tests look here, too.
roots=${E2E_ROOTS:-/var/cache/rosterd-e2e}

# mirror is where this machine has a part of Debian from, by apt's label of it.
mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | head -n 1
}

# whole says whether a root is complete: each package installed, no file of them
# missing or changed.
whole() { # suite, packages
	root=$roots/$1
	shift
	[ -d "$root" ] && chroot "$root" dpkg-query -W -f '${db:Status-Abbrev}\n' "$@" >"$log" 2>&1 &&
		! grep -qv '^ii ' "$log" && chroot "$root" dpkg --verify >"$log" 2>&1 && [ ! -s "$log" ]
}

# make_root makes the root of a release anew. It has its name only when it is
# complete.
make_root() { # suite, packages
	suite=$1
	shift
	root=$roots/$suite.new
	debian=$(mirror Debian)
	security=$(mirror Debian-Security)
	rm -rf --one-file-system "$root" "${roots:?}/$suite"
	unfinished=$root
	debootstrap --variant=minbase "$suite" "$root" ${debian:+"$debian"} || return 1
	# sid has no security updates: they are in it.
	if [ "$suite" != sid ] && [ -n "$security" ]; then
		echo "deb $security $suite-security main" >>"$root/etc/apt/sources.list"
	fi
	apt-config dump Acquire | grep -E '^Acquire::(https?|Check-)' >"$root/etc/apt/apt.conf.d/90host" || true
	forbid "$root/usr/sbin/policy-rc.d"
	# Packages of sid want to see /proc when they are configured. Mounted in a
	# namespace of its own, it is gone again whatever happens. Not debootstrap's
	# --include: it does not know what lua-sec provides.
	unshare --mount sh -e -c 'mount -t proc proc "$1/proc"; in="chroot $1"; apt=$2; shift 2
		$in $apt update; $in $apt dist-upgrade; $in $apt install --no-install-recommends "$@"; $in apt-get clean' \
		- "$root" "$apt" "$@" || return 1
	mv "$root" "$roots/$suite"
	unfinished=
}

# prepare_root has a root be there, whole, and says whether it is.
prepare_root() { # suite, packages
	if whole "$@"; then
		say "$1 is in $roots/$1"
	elif make_root "$@" >"$log" 2>&1; then
		say "made $roots/$1"
	else
		return 1
	fi
}

install_packages 9>&-
if $matrix; then
	mkdir -p "$roots"
	prepare_root trixie prosody prosody-modules ejabberd erlang-p1-oauth2 jabberd2 9>&- || {
		tail -n 50 "$log" >&2
		fail "Debian 13 could not be installed, see above"
	}
	# What is in sid today may not be installable tomorrow.
	prepare_root sid prosody prosody-modules ejabberd erlang-p1-oauth2 9>&- || say "sid could not be installed: $(tail -n 1 "$log")"
fi

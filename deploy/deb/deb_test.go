// Package deb tests the Debian package: it is built, installed, started, upgraded and removed
// in a copy of this machine's file system that ends with the test.
package deb

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rosterd/internal/freeport"
)

// inside is run in a chroot of the copy. $1 is the package, $2 and $3 are free addresses.
const inside = `
set -eu
deb=$1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
step() { echo "== $*"; }
is() { # what it is, what it has to be
	[ "$1" = "$2" ] || { echo "$1, want $2"; exit 1; }
}
mode() { stat -c '%a %U:%G' "$1"; }

step install
dpkg -i "$deb"
is "$(dpkg --verify rosterd)" ""
is "$(mode /etc/rosterd/config.yaml)" "640 root:rosterd"
is "$(mode /usr/bin/rosterd)" "755 root:root"
is "$(getent passwd rosterd | cut -d: -f6,7)" "/var/lib/rosterd:/usr/sbin/nologin"
rosterd version
[ -s /usr/share/bash-completion/completions/rosterd ]
bash -n /usr/share/bash-completion/completions/rosterd
for page in rosterd rosterd-check rosterd-user rosterd-refresh rosterd-approve rosterd-reject; do
	zcat /usr/share/man/man8/$page.8.gz | grep -q '^\.TH'
done
unit=/usr/lib/systemd/system/rosterd.service
! grep -E '^(DynamicUser|ExecStart=/usr/local)' $unit
grep -q '^User=rosterd$' $unit
is "$(systemd-analyze verify --man=no $unit 2>&1)" ""
[ ! -e /etc/systemd/system/multi-user.target.wants/rosterd.service ] # it has no secret yet

step start # as the unit says, by hand: there is no systemd in a chroot
echo "xmpp: {address: '127.0.0.1:1', domain: contacts.example.org, secret_file: /etc/rosterd/xmpp-secret, hosts: [example.org]}
contacts: {url: 'http://127.0.0.1:1/contacts/%s'}
refresh: {listen: '$2'}
metrics: {listen: '$3'}" >/etc/rosterd/config.yaml
is "$(mode /etc/rosterd/config.yaml)" "640 root:rosterd"
mkdir -p /run/credentials
echo change-me >/run/credentials/xmpp-secret
chown -R rosterd: /run/credentials
install -d -m 700 -o rosterd /var/lib/rosterd
command=$(sed -n 's/^ExecStart=//p' $unit)
setpriv --reuid rosterd --regid rosterd --clear-groups \
	env STATE_DIRECTORY=/var/lib/rosterd ROSTERD_XMPP_SECRET_FILE=/run/credentials/xmpp-secret $command 2>/tmp/log &
echo change-me >/etc/rosterd/xmpp-secret # for root, who asks
until rosterd health; do
	kill -0 $! || { cat /tmp/log; exit 1; }
	sleep 0.1
done
rosterd user juliet | grep 'says the rosterd that runs'
kill $!
wait $! # with exit code 0
rosterd user juliet | grep 'says the state file' # which is in the place that root looks at

step upgrade
echo '# mine' >>/etc/rosterd/config.yaml
dpkg -i "$deb"
tail -n 1 /etc/rosterd/config.yaml | grep mine

step remove
dpkg -r rosterd
[ ! -e /usr/bin/rosterd ] && [ ! -e $unit ]
[ -e /etc/rosterd/config.yaml ] && [ -e /var/lib/rosterd/rosterd.db ]
dpkg -P rosterd
[ ! -e /etc/rosterd ] && [ ! -e /var/lib/rosterd ]
`

// copied runs a command in a copy of the file system. It is laid over the real one, in a
// mount namespace of its own, and its changes are in memory.
const copied = `
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
root=$1/root
shift
exec chroot "$root" sh -c "$@"
`

func TestPackage(t *testing.T) {
	for _, program := range []string{"dpkg", "unshare", "make", "systemd-analyze", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, err.Error())
		}
	}
	if os.Geteuid() != 0 {
		skip(t, "wants root, who may chroot")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute) // nfpm may have to be compiled
	defer cancel()
	dist := t.TempDir()
	build := exec.CommandContext(ctx, "make", "--no-print-directory", "-s", "deb")
	build.Dir, build.Env = "../..", append(os.Environ(), "OUT="+dist, "VERSION=v9.8.7", "MAKEFLAGS=") // not those of make test
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built, err := filepath.Glob(filepath.Join(dist, "rosterd_9.8.7_*.deb"))
	if err != nil || len(built) != 1 {
		t.Fatalf("built %v, %v", built, err)
	}
	test := exec.CommandContext(ctx, "unshare", "--mount", "--fork", "--pid", "--kill-child", "sh", "-c", copied, "-", t.TempDir(), inside, "-", built[0], freeport.Of(t), freeport.Of(t))
	out, err := test.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(string(out))
	if !strings.Contains(string(out), "rosterd v9.8.7, commit ") {
		t.Errorf("no version:\n%s", out)
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("E2E") == "required" {
		t.Fatal(why)
	}
	t.Skip(why)
}

package e2e

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
	"rosterd/internal/locked"
	"rosterd/internal/testcert"
)

// nobody is who the service runs as in these tests, if they may choose.
const nobody = 65534

// installation is what the documents have an administrator install, in a folder that stands
// for the root of the file system.
type installation struct {
	root string
	unit string
}

// block is the first block of code of a language behind a text in a document.
func block(t *testing.T, document, behind, language string) string {
	t.Helper()
	_, rest, found := strings.Cut(read(t, document), behind)
	_, rest, begun := strings.Cut(rest, "```"+language+"\n")
	code, _, ended := strings.Cut(rest, "```")
	if !found || !begun || !ended {
		t.Fatalf("%s has no block of %s behind %q", document, language, behind)
	}
	return code
}

// install does what docs/install.md and docs/prosody.md say, but for systemctl, whose calls it returns.
func install(t *testing.T) (i installation, calls string) {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	i.root = t.TempDir()
	if err := os.Chmod(filepath.Dir(i.root), 0o755); err != nil { // for who the service runs as
		t.Fatal(err)
	}
	sources := t.TempDir()
	for _, dir := range []string{"usr/local/bin", "etc/systemd/system", "bin"} {
		if err := os.MkdirAll(filepath.Join(i.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, file := range map[string]string{"rosterd": program, "deploy": "../deploy", "config.example.yaml": "../config.example.yaml"} {
		absolute, err := filepath.Abs(file)
		if err == nil {
			err = os.Symlink(absolute, filepath.Join(sources, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(i.root, "bin/systemctl"), []byte("#!/bin/sh\necho \"$@\"\n"))
	if err := os.Chmod(filepath.Join(i.root, "bin/systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	commands := block(t, "../docs/install.md", "## systemd", "sh") + block(t, "../docs/prosody.md", "3. **rosterd.**", "sh") +
		block(t, "../docs/prosody.md", "5. **Start and check.**", "sh")
	commands = regexp.MustCompile(` /(usr|etc)/`).ReplaceAllString(commands, " "+i.root+"/$1/")
	commands = strings.ReplaceAll(commands, "rosterd check", ": rosterd check")
	sh := exec.CommandContext(bounded(t), "sh", "-eu", "-c", commands)
	sh.Dir, sh.Env = sources, append(os.Environ(), "PATH="+filepath.Join(i.root, "bin")+":"+os.Getenv("PATH"))
	out, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands of the documents: %v\n%s", err, out)
	}
	i.unit = read(t, filepath.Join(i.root, "etc/systemd/system/rosterd.service"))
	return i, string(out)
}

// TestUnit has systemd look at the unit, and the files at their places.
func TestUnit(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	i, calls := install(t)
	if calls != "daemon-reload\nenable --now rosterd\n" {
		t.Errorf("called systemctl:\n%s", calls)
	}
	for name, mode := range map[string]os.FileMode{"etc/rosterd/config.yaml": 0o644, "etc/rosterd/xmpp-secret": 0o600, "usr/local/bin/rosterd": 0o755} {
		if info, err := os.Stat(filepath.Join(i.root, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, unit := range map[string]string{"as it is": i.unit, "with all that it offers": offered(i.unit)} {
		file := filepath.Join(t.TempDir(), "rosterd.service")
		write(t, file, []byte(strings.Replace(unit, "=/usr/local/", "="+i.root+"/usr/local/", 1)))
		out, err := exec.CommandContext(bounded(t), "systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if after := setting(i.unit, "After"); !strings.Contains(after[0], "prosody.service") || !strings.Contains(after[0], "ejabberd.service") {
		t.Errorf("After=%s", after)
	}
}

// offered is a unit with the lines that are for those who need them.
func offered(unit string) string {
	return regexp.MustCompile(`(?m)^#(LoadCredential|Environment)=`).ReplaceAllString(unit, "$1=")
}

// setting are the values of a setting in a unit.
func setting(unit, name string) (values []string) {
	for line := range strings.Lines(unit) {
		if value, is := strings.CutPrefix(line, name+"="); is {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// service is a rosterd that runs as systemd would have it run.
type service struct {
	cmd     *exec.Cmd
	ended   chan error
	metrics string
	log     locked.Buffer
}

// launch starts a rosterd whose metrics are at an address.
func launch(t *testing.T, cmd *exec.Cmd, metrics string) *service {
	t.Helper()
	s := &service{cmd: cmd, ended: make(chan error, 1), metrics: metrics}
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	return s
}

// start does by hand what a unit says: the credentials, the variables, the state
// directory, the command, and the user who owns nothing.
func (i installation) start(t *testing.T, unit string, environment ...string) *service {
	t.Helper()
	credentials, state := t.TempDir(), t.TempDir()
	for _, c := range setting(unit, "LoadCredential") {
		name, file, _ := strings.Cut(c, ":")
		write(t, filepath.Join(credentials, name), []byte(read(t, i.root+file)))
	}
	command := strings.Fields(strings.ReplaceAll(setting(unit, "ExecStart")[0], "/etc/", i.root+"/etc/"))
	cmd, metrics := exec.CommandContext(bounded(t), i.root+command[0], command[1:]...), freeport.Of(t)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "CREDENTIALS_DIRECTORY=" + credentials, "STATE_DIRECTORY=" + state,
		"ROSTERD_METRICS_LISTEN=" + metrics, "GORACE=" + os.Getenv("GORACE")}, environment...)
	for _, e := range setting(unit, "Environment") {
		cmd.Env = append(cmd.Env, strings.Fields(strings.ReplaceAll(e, "%d", credentials))...)
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		for _, dir := range []string{credentials, state} {
			err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chown(path, nobody, nobody)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return launch(t, cmd, metrics)
}

// ready waits until it is, and then stops it.
func (s *service) ready(ctx context.Context, t *testing.T, meanwhile func()) {
	t.Helper()
	poll(ctx, t, func() bool {
		resp, err := http.Get("http://" + s.metrics + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, func() string { return "it is not ready:\n" + s.log.String() })
	meanwhile()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("%v:\n%s", err, s.log.String())
	}
}

// TestInstalled follows docs/install.md and docs/prosody.md, from the commands to a rosterd that is connected:
// with the example, with the four keys of step 3, and with what people do who put the
// secret into config.yaml all the same.
func TestInstalled(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	prosody := runProsody(t, harness.ProsodyOptions{GlobalLua: read(t, "../deploy/prosody.cfg.lua"), Files: readOnlyModule(t),
		ServerOptions: harness.ServerOptions{Host: "unused.example", Users: users("juliet@example.org"), Grants: harness.Grants{Plain: true}}})
	i, _ := install(t)
	config := filepath.Join(i.root, "etc/rosterd/config.yaml")
	keys := block(t, "../docs/prosody.md", "3. **rosterd.**", "yaml")
	for name, yaml := range map[string]string{
		"the example":            read(t, config),
		"four keys":              keys,
		"the secret in the file": strings.Replace(keys, "secret_file: /etc/rosterd/xmpp-secret ", `secret: "wrong" `, 1),
	} {
		write(t, config, []byte(yaml))
		i.start(t, i.unit, "ROSTERD_XMPP_ADDRESS="+prosody.ComponentAddress(), "ROSTERD_REFRESH_LISTEN="+freeport.Of(t)).ready(ctx, t, func() {})
		if t.Failed() {
			t.Fatalf("with %s", name)
		}
	}
	// As root, by hand, with the same file, of which the path alone is another here.
	write(t, config, []byte(strings.Replace(keys, "/etc/", i.root+"/etc/", 1)))
	byHand := regexp.MustCompile(`(?m)^(LoadCredential|Environment)=.*`).ReplaceAllString(i.unit, "")
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(i.root, "etc/rosterd/xmpp-secret"), nobody, nobody); err != nil { // who is root here
			t.Fatal(err)
		}
	}
	i.start(t, byHand, "ROSTERD_XMPP_ADDRESS="+prosody.ComponentAddress(), "ROSTERD_REFRESH_LISTEN="+freeport.Of(t)).ready(ctx, t, func() {})

	// All credentials that the unit offers.
	write(t, config, []byte(keys))
	ca := testcert.New(t, "authority")
	pair := ca.Issue(t, "endpoint", time.Now().Add(time.Hour))
	backend := startBackend(t)
	backend.RequireHeader("Authorization", "Bearer of the backend")
	backend.Set("juliet", contacts("Romeo"))
	for name, content := range map[string]string{"contacts-token": "of the backend\n", "refresh-token": "of the callers\n", "ejabberd-token": "of ejabberd\n", "refresh.crt": string(pair.Cert), "refresh.key": string(pair.Key)} {
		write(t, filepath.Join(i.root, "etc/rosterd", name), []byte(content))
	}
	refresh := freeport.Of(t)
	withToken := regexp.MustCompile(`(?m)^.*ejabberd-password.*$`).ReplaceAllString(offered(i.unit), "") // one of the two
	s := i.start(t, withToken, "ROSTERD_XMPP_ADDRESS="+prosody.ComponentAddress(), "ROSTERD_REFRESH_LISTEN="+refresh, "ROSTERD_CONTACTS_URL="+backend.URL(),
		"ROSTERD_EJABBERD_API_URL=http://127.0.0.1:1/api", "ROSTERD_XMPP_SERVER_ROSTER=off")
	s.ready(ctx, t, func() {
		w := &world{server: prosody, backend: backend}
		wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
		for token, want := range map[string]int{"of the callers": http.StatusOK, "of the backend": http.StatusUnauthorized} {
			wantCode(ctx, t, &tls.Config{RootCAs: ca.Pool}, "https://"+refresh+refreshPath, token, want)
		}
	})
	if log := s.log.String(); strings.Contains(log, "of the backend") || strings.Contains(log, "of ejabberd") || strings.Contains(log, "change-me") {
		t.Errorf("a secret in the log:\n%s", log)
	}
}

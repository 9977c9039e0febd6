package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// jabberdOptions say how a jabberd2 is set up. It knows no grants, and everybody
// may log in with every password.
type jabberdOptions struct{ ServerOptions }

// StartJabberd starts a jabberd2 and waits until it takes connections. ctx bounds
// the start alone; the caller has to Close what is returned.
func StartJabberd(ctx context.Context, opts ServerOptions) (*Server, error) {
	opts.setDefaults()
	return startServer(ctx, jabberdOptions{opts}, opts)
}

// jabberdAccounts is asked for accounts and passwords, and knows them all.
const jabberdAccounts = "#!/bin/sh\necho OK USER-EXISTS CHECK-PASSWORD\nwhile read -r question; do echo OK; done\n"

func (o jabberdOptions) name() string { return "jabberd2" }

// setUp writes the configurations of its processes: those of Debian's package,
// but for what a test has of its own.
func (o jabberdOptions) setUp(s *Server) error {
	if err := os.Mkdir(filepath.Join(s.dir, "fs"), 0o700); err != nil {
		return err
	}
	if err := s.write("accounts", jabberdAccounts); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(s.dir, "accounts"), 0o700); err != nil {
		return err
	}
	var ids strings.Builder
	for _, host := range o.Hosts() {
		fmt.Fprintf(&ids, "<id>%s</id>", escape(host))
	}
	etc := filepath.Join(string(s.root), "etc/jabberd2")
	for file, changes := range map[string][]string{
		"router.xml": {"<ip>0.0.0.0</ip>", "<ip>127.0.0.1</ip>", "<secret>secret</secret>", "<secret>" + escape(o.Secret) + "</secret>"},
		"sm.xml": {"<id>localhost.localdomain</id>", ids.String(), "<driver>sqlite</driver>", "<driver>fs</driver>",
			"/var/lib/jabberd2/fs", s.path("fs"), "<user>\n", "<user><auto-create/>\n"},
		"c2s.xml": {"<id register-enable='mu'>localhost.localdomain</id>", ids.String(), "<ip>0.0.0.0</ip>", "<ip>127.0.0.1</ip>",
			"<port>5222</port>", fmt.Sprintf("<port>%d</port>", s.c2s), "<module>sqlite</module>", "<module>pipe</module>", "/usr/sbin/pipe-auth.pl", s.path("accounts")},
	} {
		stock, err := os.ReadFile(filepath.Join(etc, file))
		if err != nil {
			return err
		}
		changes = append(changes, "<log type='file'>", "<log type='stdout'>", "<port>5347</port>", fmt.Sprintf("<port>%d</port>", s.service),
			"/var/run/jabberd2", s.path(""))
		if err := s.write(file, strings.NewReplacer(changes...).Replace(string(stock))); err != nil {
			return err
		}
	}
	return nil
}

// command runs the three that it takes, which end with the first.
func (o jabberdOptions) command(s *Server) (*exec.Cmd, error) {
	return s.root.command("root", s.dir, "sh", "-c", `for part in router sm c2s; do
		setpriv --pdeathsig KILL -- jabberd2-$part -c $part.xml &
	done; wait`)
}

func (o jabberdOptions) ready(ctx context.Context, log *feed[string]) error {
	for _, line := range []string{"ready for sessions", "listening for connections"} {
		if _, _, err := log.wait(ctx, 0, containsAny(line)); err != nil {
			return err
		}
	}
	return nil
}

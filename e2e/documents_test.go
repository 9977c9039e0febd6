package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rosterd/e2e/harness"
	"rosterd/e2e/webdemo"
	"rosterd/internal/freeport"
	"rosterd/internal/testcert"
)

// shell runs commands of a document, in a folder.
func shell(t *testing.T, dir, commands string) string {
	t.Helper()
	sh := exec.CommandContext(bounded(t), "sh", "-eu", "-c", commands)
	sh.Dir, sh.WaitDelay = dir, time.Second // which ends what sh has started
	var complaints strings.Builder
	sh.Stderr = &complaints
	out, err := sh.Output()
	if err != nil {
		t.Fatalf("%s\n%v\n%s%s", commands, err, out, complaints.String())
	}
	return string(out)
}

// exampleBackend runs deploy/examples/backend.py, as docs/prosody.md has it.
func exampleBackend(t *testing.T, listen, refresh string) {
	t.Helper()
	backend := exec.Command("sh", "-c", "exec env "+block(t, "../docs/prosody.md", "4. **A backend.**", "sh"))
	backend.Dir = ".." // the folder of the sources
	backend.Env = append(os.Environ(), "LISTEN="+listen, "REFRESH=http://"+refresh+refreshPath)
	if err := backend.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = backend.Process.Kill()
		_ = backend.Wait()
	})
	poll(bounded(t), t, func() bool {
		answer, err := http.Get("http://" + listen + "/contacts/juliet")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil
	}, func() string { return "the example backend does not answer" })
}

// The ten lines of README.md, and its configuration, are enough: two users have each
// other in their rosters, and see each other come.
func TestReadme(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	prosody := runProsody(t, harness.ProsodyOptions{GlobalLua: block(t, "../README.md", "## Prosody in ten lines", "lua"), Files: readOnlyModule(t),
		ServerOptions: harness.ServerOptions{Host: "unused.example", Users: users("juliet@example.org", "romeo@example.org"), Grants: harness.Grants{Plain: true}}})
	backend, refresh := freeport.Of(t), freeport.Of(t)
	exampleBackend(t, backend, refresh)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), []byte(block(t, "../README.md", "And rosterd's configuration", "yaml")))
	cmd, metrics := exec.CommandContext(ctx, program), freeport.Of(t)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ROSTERD_XMPP_ADDRESS="+prosody.ComponentAddress(), "ROSTERD_CONTACTS_URL=http://"+backend+"/contacts/%s",
		"ROSTERD_REFRESH_LISTEN="+refresh, "ROSTERD_METRICS_LISTEN="+metrics)
	s := launch(t, cmd, metrics)
	s.ready(ctx, t, func() {
		w := &world{server: prosody}
		juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
		wantRoster(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"}})
		romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
		wantRoster(ctx, t, romeo, item("Juliet"))
		show(t, juliet, "")
		waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "available")
	})
}

// What a reader may paste of docs/prosody.md, docs/backend.md and docs/reliability.md does
// what they say.
func TestPasted(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	// docs/prosody.md, step 2: the files are copied, and Prosody looks at them.
	root := t.TempDir()
	for _, dir := range []string{"etc/prosody/conf.d", "usr/local/lib/prosody/modules"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copies := regexp.MustCompile(` /(usr|etc)/`).ReplaceAllString(block(t, "../docs/prosody.md", "2. **Prosody.**", "sh"), " "+root+"/$1/")
	if os.Geteuid() != 0 {
		copies = strings.ReplaceAll(copies, "-g prosody", "")
	}
	shell(t, "..", copies)
	prosody := runProsody(t, harness.ProsodyOptions{
		GlobalLua:     read(t, filepath.Join(root, "etc/prosody/conf.d/rosterd.cfg.lua")),
		Files:         map[string]string{"mod_rosterd_readonly.lua": read(t, filepath.Join(root, "usr/local/lib/prosody/modules/mod_rosterd_readonly.lua"))},
		ServerOptions: harness.ServerOptions{Host: "unused.example", Users: users("juliet@example.org"), Grants: harness.Grants{Plain: true}}})
	backend, refresh, state := freeport.Of(t), freeport.Of(t), filepath.Join(t.TempDir(), "rosterd.db")
	exampleBackend(t, backend, refresh)
	w := &world{server: prosody}
	w.rosterd = run(t, harness.RosterdOptions{Server: prosody, ContactsURL: "http://" + backend + "/contacts/%s",
		Settings: map[string]any{"xmpp.domain": domain, "xmpp.secret": "change-me", "xmpp.hosts": []string{"example.org"}, "refresh.listen": refresh, "state.path": state}})
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("127.0.0.1:8000", backend, "127.0.0.1:5290", refresh, "curl ", "curl -sS --fail-with-body ").Replace

	// Step 6: the name changes while one looks.
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"}})
	shell(t, ".", here(block(t, "../docs/prosody.md", "6. **A client.**", "sh")))
	wantPushes(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "Romeo, my love", Subscription: "both"})

	// Each command of docs/backend.md, and the answer below it. What the example backend is
	// to answer, it is told before.
	document := read(t, "../docs/backend.md")
	pairs := regexp.MustCompile("(?s)```sh\n([^`]*)```\n(?:\n```json\n([^`]*)```)?").FindAllStringSubmatch(document, -1)
	for _, one := range regexp.MustCompile("`(curl [^`\n]*)`").FindAllStringSubmatch(document, -1) {
		pairs = append(pairs, []string{"", one[1], ""})
	}
	if len(pairs) < 7 {
		t.Errorf("%d commands", len(pairs))
	}
	for _, pair := range pairs {
		command, want := pair[1], pair[2]
		if strings.Contains(command, "https://") {
			continue // see TestPastedTLS
		}
		switch {
		case strings.Contains(command, "8000/contacts/"):
			tell(ctx, t, backend, "juliet", json.RawMessage(want))
			wantPushes(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends", "Verona"}}, harness.Item{JID: "nurse@example.org", Subscription: "both"})
		case strings.Contains(command, "8000/bulk"):
			var users map[string]json.RawMessage
			if err := json.Unmarshal([]byte(want), &users); err != nil {
				t.Fatal(err)
			}
			for user, contacts := range users {
				tell(ctx, t, backend, user, contacts)
			}
		}
		var got, wanted any
		out := shell(t, ".", here(command))
		if want == "" {
			continue
		}
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s\ngot %s, want %s", command, out, want)
		}
	}

	// docs/reliability.md: a person can look into the state.
	if _, err := exec.LookPath("sqlite3"); err != nil && os.Getenv("E2E") != "required" {
		t.Skip(err)
	}
	look := strings.ReplaceAll(block(t, "../docs/reliability.md", "**Looking into it.**", "sh"), "/var/lib/rosterd/rosterd.db", state)
	if out := shell(t, ".", look); !strings.Contains(out, "juliet@example.org|") {
		t.Errorf("%s\n%s", look, out)
	}
}

// tell has the example backend know other contacts of a user, and report them.
func tell(ctx context.Context, t *testing.T, backend, user string, contacts json.RawMessage) {
	t.Helper()
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+backend+"/contacts/"+user, strings.NewReader(string(contacts)))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status)
	}
}

// A caller with a certificate, as docs/backend.md has it, is let in, and told that there is
// no connection; one without is not.
func TestPastedTLS(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	dir := t.TempDir()
	ca := testcert.New(t, "authority")
	server, caller := ca.Issue(t, "rosterd.example.org", time.Now().Add(time.Hour)), ca.Issue(t, "backend", time.Now().Add(time.Hour))
	for name, content := range map[string][]byte{"ca.pem": ca.PEM, "server.crt": server.Cert, "server.key": server.Key, "backend.crt": caller.Cert, "backend.key": caller.Key} {
		write(t, filepath.Join(dir, name), content)
	}
	address := freeport.Of(t)
	rosterd := run(t, harness.RosterdOptions{ContactsURL: "http://127.0.0.1:1/%s", Settings: map[string]any{
		"xmpp.address": freeport.Of(t), "xmpp.domain": domain, "xmpp.secret": "change-me", "xmpp.hosts": []string{"example.org"}, "refresh.listen": address,
		"refresh.tls": map[string]string{"cert": filepath.Join(dir, "server.crt"), "key": filepath.Join(dir, "server.key"), "client_ca": filepath.Join(dir, "ca.pem")},
	}})
	if err := rosterd.WaitStarted(bounded(t)); err != nil {
		t.Fatal(err)
	}
	_, commands, _ := strings.Cut(block(t, "../docs/backend.md", "### Who may call", "sh"), "\n")
	commands = strings.NewReplacer("rosterd.example.org:5290", address, "curl ", "curl -sS ").Replace(commands)
	if out := shell(t, dir, commands); !strings.Contains(out, `"status":"error"`) || !strings.Contains(out, "connect") {
		t.Errorf("%s\n%s", commands, out)
	}
	if out := shell(t, dir, strings.Replace(strings.TrimSpace(commands), "--cert backend.crt --key backend.key", "", 1)+" || echo refused"); !strings.Contains(out, "refused") {
		t.Errorf("without a certificate: %s", out)
	}
}

// Converse.js on a Prosody as docs/clients.md has it: somebody logs in and sees a contact.
func TestConverse(t *testing.T) {
	t.Parallel()
	if suite := os.Getenv("E2E_SUITE"); suite != "" && suite != "machine" {
		t.Skip("a server in a root of its own does not see the files of Converse.js on this machine")
	}
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	converse, err := webdemo.Converse(ctx)
	if errors.Is(err, webdemo.ErrNoNPM) && os.Getenv("E2E") != "required" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	const document = "../docs/clients.md"
	if !strings.Contains(block(t, document, "1. Get Converse.js", "sh"), filepath.Base(filepath.Dir(filepath.Dir(converse)))) {
		t.Errorf("%s does not get %s", document, converse)
	}
	browser := newBrowser(t)
	site := t.TempDir()
	if err := os.CopyFS(site, os.DirFS(converse)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(site, "index.html"), []byte(block(t, document, "index.html", "html")))
	_, modules, _ := strings.Cut(block(t, document, "2. In the VirtualHost", "lua"), "modules_enabled")
	deployed := read(t, "../deploy/prosody.cfg.lua")
	config := strings.Replace(deployed, `modules_enabled = { "delegation", "privilege", "rosterd_readonly" }`,
		"modules_enabled"+strings.Replace(modules, "/var/www/chat", site, 1), 1)
	if config == deployed {
		t.Fatal("there is no such line in deploy/prosody.cfg.lua")
	}
	prosody := runProsody(t, harness.ProsodyOptions{GlobalLua: config, Files: readOnlyModule(t), WebSocket: true,
		ServerOptions: harness.ServerOptions{Host: "unused.example", Users: users("juliet@example.org"), Grants: harness.Grants{Plain: true}}})
	backend, refresh := freeport.Of(t), freeport.Of(t)
	exampleBackend(t, backend, refresh)
	rosterd := run(t, harness.RosterdOptions{Server: prosody, ContactsURL: "http://" + backend + "/contacts/%s",
		Settings: map[string]any{"xmpp.domain": domain, "xmpp.secret": "change-me", "xmpp.hosts": []string{"example.org"}, "refresh.listen": refresh}})
	if err := rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	page := strings.NewReplacer("ws://127.0.0.1", "http://localhost", "/xmpp-websocket", "/files/").Replace(prosody.WebSocketURL())
	err = browser.Run(chromedp.Navigate(page), chromedp.WaitVisible(`input[name="jid"]`), chromedp.SendKeys(`input[name="jid"]`, "juliet@example.org"),
		chromedp.SendKeys(`input[name="password"]`, password), chromedp.Click(`.converse-form [type=submit], form [type=submit]`),
		chromedp.Poll(`document.querySelector('converse-roster-contact a[data-jid="romeo@example.org"]')?.innerText.includes("Romeo")`, nil,
			chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(time.Minute)))
	screenshot(t, browser, "converse")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, browser.Errors(), tail(prosody.Log()))
	}
}

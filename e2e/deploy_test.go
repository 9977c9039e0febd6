package e2e

import (
	"maps"
	"os"
	"strings"
	"testing"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
	"rosterd/serverroster"
)

// What an administrator installs works: deploy/prosody.cfg.lua as it is, and
// deploy/ejabberd.yml but for the port, with the lines that a newer ejabberd is to
// have. Names and secret are those of both.
func TestDeployedFiles(t *testing.T) {
	t.Parallel()
	options := harness.ServerOptions{
		Host:  "unused.example", // the harness wants one; the snippet of Prosody brings example.org
		Users: users("juliet@example.org"), Grants: harness.Grants{Plain: true},
	}
	settings := map[string]any{"xmpp.domain": domain, "xmpp.secret": "change-me", "xmpp.hosts": []string{"example.org"}}
	t.Run("prosody", func(t *testing.T) {
		t.Parallel()
		harness.Require(t.Context(), t)
		prosody := runProsody(t, harness.ProsodyOptions{ServerOptions: options, GlobalLua: read(t, "../deploy/prosody.cfg.lua"), Files: readOnlyModule(t)})
		testDeployed(t, prosody, settings, "privileged", "privilege", "prosody.md")
		juliet := (&world{server: prosody}).login(bounded(t), t, gosrc, "juliet@example.org/hall")
		send(t, juliet, "<presence type='subscribe' to='romeo@example.org' id='s'/>")
		answer, err := juliet.WaitStanza(bounded(t), func(s harness.Stanza) bool { return s.Name == "presence" && s.ID == "s" })
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, answer, "not-allowed")
	})
	t.Run("ejabberd", func(t *testing.T) {
		t.Parallel()
		harness.Require(t.Context(), t)
		address := freeport.Of(t)
		_, port, _ := strings.Cut(address, ":")
		file := strings.Replace(read(t, "../deploy/ejabberd.yml"), "5347", port, 1)
		apiAddress := freeport.Of(t)
		_, port, _ = strings.Cut(apiAddress, ":")
		file = strings.Replace(file, "port: 5281", "port: "+port, 1)
		if ejabberd.privilegedIQ {
			commented := "    # iq:\n    #   \"jabber:iq:roster\":\n    #     set: rosterd\n"
			if !strings.Contains(file, commented) {
				t.Fatal("deploy/ejabberd.yml has no lines for ejabberd 24.10 and later")
			}
			file = strings.Replace(file, commented, strings.ReplaceAll(commented, "# ", ""), 1)
		}
		options := options
		options.ExtraHosts = []string{"example.org"}
		server, err := harness.StartEjabberd(bounded(t), harness.EjabberdOptions{
			ServerOptions: options, IncludedYAML: file, ReadOnlyRosters: true,
			ModulesYAML: "  mod_admin_extra: {}\n  mod_http_api: {}", // as in Debian's ejabberd.yml
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		settings := maps.Clone(settings)
		settings["xmpp.address"], settings["ejabberd.api"] = address, map[string]string{"url": "http://" + apiAddress + "/api"}
		push := "server"
		if ejabberd.privilegedIQ {
			push = "privileged"
		}
		testDeployed(t, server, settings, push, "api", "ejabberd.md")
		api := apiAt(t, "http://"+apiAddress+"/api", serverroster.EjabberdLogin{}, "example.org")
		if works, why := api.State("example.org"); !works {
			t.Error(why)
		}
	})
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// testDeployed runs rosterd on a server, which has to serve as a document says.
func testDeployed(t *testing.T, server *harness.Server, settings map[string]any, push, serverRoster, document string) {
	ctx := bounded(t)
	backend := startBackend(t)
	backend.Set("juliet", contacts("Romeo"))
	// Before rosterd runs, nothing is to be fixed.
	checked := maps.Clone(settings)
	checked["contacts.url"], checked["refresh.listen"], checked["metrics.listen"] = backend.URL(), freeport.Of(t), freeport.Of(t)
	if checked["xmpp.address"] == nil {
		checked["xmpp.address"] = server.ComponentAddress()
	}
	if output, code := check(t, checked, "--user", "juliet"); code != 0 || !strings.Contains(output, "rosterd can do its job: 0 failed, 0 to look at") {
		t.Errorf("rosterd check: exit code %d\n%s", code, output)
	}
	w := &world{server: server, backend: backend}
	w.rosterd = run(t, harness.RosterdOptions{Server: server, ContactsURL: backend.URL(), Settings: settings})
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Romeo")) // ejabberd also pushes what is written to its own roster
	// The ways are those of the document. Of ejabberd, it is those of 23.01.
	waitMetric(ctx, t, w.rosterd, way("example.org", "delegated", push, "server", serverRoster), 1)
	words := "msg=ways host=example.org query=delegated push=" + push + " presence=server server_roster=" + serverRoster
	if text := read(t, "../docs/"+document); !strings.Contains(text, words) && !(document == "ejabberd.md" && strings.Contains(text, "`push="+push+"`")) {
		t.Errorf("%s does not say %s", document, words)
	}
	// The end of a session is told.
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 1)
	show(t, juliet, "unavailable")
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
}

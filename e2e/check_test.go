package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
)

// planted is part of every secret of these tests: in the configuration, in the
// query of the contacts URL, in what the backend answers.
const planted = "pl4nted"

// site is a server and a backend on which installations are checked.
type site struct {
	server  *harness.Server
	backend *harness.Backend
}

// newSite starts a server, and a backend that has a contact of juliet's.
func newSite(t *testing.T, start func(context.Context, harness.ServerOptions) (*harness.Server, error), options harness.ServerOptions) *site {
	t.Helper()
	server, err := start(bounded(t), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	s := &site{server, startBackend(t)}
	s.backend.Set("juliet", contacts("Romeo"))
	return s
}

// misconfiguration is one way to get it wrong, and what check has to say.
type misconfiguration struct {
	name     string
	settings func(s *site) map[string]any // over a good configuration, by dotted keys; may be nil
	plant    func(t *testing.T, s *site, settings map[string]any)
	user     string // default juliet
	works    bool   // rosterd could do its job all the same

	// complaints are how the lines begin that are not "ok", all of them, in
	// their order; lines are in the output besides, absent is not.
	complaints    []string
	lines, absent []string
}

func fixed(settings map[string]any) func(*site) map[string]any {
	return func(*site) map[string]any { return settings }
}

// answers has the backend answer for juliet.
func answers(status int, body string) func(*testing.T, *site, map[string]any) {
	return func(t *testing.T, s *site, _ map[string]any) {
		s.backend.SetFault("juliet", harness.Fault{Status: status, Body: []byte(body)})
		t.Cleanup(func() { s.backend.ClearFault("juliet") })
	}
}

// taken has another program listen on what a key names.
func taken(key string) func(*testing.T, *site, map[string]any) {
	return func(t *testing.T, _ *site, settings map[string]any) {
		other := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(other.Close)
		settings[key] = other.Listener.Addr().String()
	}
}

// What can be wrong on every server that is itself set up as it should be.
var (
	wrongSecret = misconfiguration{
		name: "wrong secret", settings: fixed(map[string]any{"xmpp.secret": planted + " wrong"}),
		complaints: []string{"FAIL handshake: the server refused the handshake: not-authorized"},
		lines:      []string{"the secrets differ: xmpp.secret"},
	}
	nothingListens = misconfiguration{
		name: "wrong port", settings: fixed(map[string]any{"xmpp.address": "127.0.0.1:1"}),
		complaints: []string{"FAIL server: connection refused, nothing listens on 127.0.0.1:1"},
	}
	clientPort = misconfiguration{
		name:       "client port",
		settings:   func(s *site) map[string]any { return map[string]any{"xmpp.address": s.server.ClientAddress()} },
		complaints: []string{"FAIL server: 127.0.0.1:"}, lines: []string{"is the server's port for clients"},
	}
	foreignHost = misconfiguration{
		name: "a domain the server does not have", settings: fixed(map[string]any{"xmpp.hosts": []string{"example.org", "exmaple.org"}}),
		complaints: []string{"FAIL exmaple.org: the server does not have this domain"},
	}
	refreshTaken = misconfiguration{
		name: "refresh.listen is taken", plant: taken("refresh.listen"),
		complaints: []string{"FAIL refresh.listen: 127.0.0.1:"}, lines: []string{"is taken by another program"},
	}
)

var onGoodProsody = []misconfiguration{
	{name: "nothing is wrong", works: true, lines: []string{
		"ok   handshake: connected as contacts.example.org", "ok   contacts of juliet@example.org: http://127.0.0.1:",
		"status 200, 1 item", "roster queries are delegated; changes are pushed by privileged IQ"}},
	wrongSecret, nothingListens, clientPort, foreignHost, refreshTaken,
	{name: "unknown component", settings: fixed(map[string]any{"xmpp.domain": "nobody.example.org"}),
		complaints: []string{"FAIL handshake: the server refused the handshake: host-unknown"},
		lines:      []string{`Component "nobody.example.org"`}},
	{name: "HTTP port", settings: func(s *site) map[string]any {
		return map[string]any{"xmpp.address": strings.TrimPrefix(s.backend.BaseURL(), "http://")}
	}, complaints: []string{"FAIL server: 127.0.0.1:"}, lines: []string{"is an HTTP server, no XMPP server"}},
	{name: "no such name", settings: fixed(map[string]any{"xmpp.address": "xmpp.invalid:5347"}),
		complaints: []string{"FAIL server: the name in xmpp.address xmpp.invalid:5347 has no address (DNS)"}},
	{name: "unrestricted, and the server is not", settings: onEjabberd,
		complaints: []string{"FAIL xmpp.unrestricted is on, and the server ends the stream", seenOffline}, lines: []string{"validate_from_addresses = false"}},
	{name: "users change the server's own rosters", settings: fixed(map[string]any{"xmpp.presence": "auto", "xmpp.server_roster": "auto"}), works: true,
		complaints: []string{"warn example.org: takes subscription requests"},
		lines:      []string{"ok   example.org: its own rosters can be kept in step (privilege roster, both)", `in modules_enabled: "rosterd_readonly"`}},
	{name: "nobody relays presence", settings: fixed(map[string]any{"xmpp.presence": "auto"}), works: true,
		complaints: []string{seenOffline}, lines: []string{"xmpp.unrestricted: true", "validate_from_addresses = false", "presence is the server's affair"}},
	{name: "a secret that ends in a space", settings: fixed(map[string]any{"xmpp.secret": planted + " component secret ", "xmpp.address": "127.0.0.1:1"}),
		complaints: []string{"warn configuration: xmpp.secret: begins or ends in white space", "FAIL server: "}},
	{name: "unknown key", settings: fixed(map[string]any{"xmpp.secert": planted}),
		complaints: []string{"FAIL configuration: "}, lines: []string{"xmpp.secert: unknown key"}},
	{name: "contacts refused", settings: fixed(map[string]any{"contacts.url": "http://127.0.0.1:1/contacts/%s?key=" + planted}),
		complaints: []string{"FAIL contacts of juliet@example.org: http://127.0.0.1:1/contacts/juliet: connection refused"}},
	{name: "contacts refused, no user", user: "none", settings: fixed(map[string]any{"contacts.url": "http://127.0.0.1:1/contacts/%s?key=" + planted}),
		complaints: []string{"FAIL contacts: http://127.0.0.1:1/contacts/rosterd-check: connection refused"}},
	{name: "no user", user: "none", works: true, complaints: []string{"warn contacts: http://127.0.0.1:"},
		lines: []string{"no user was asked for"}},
	{name: "contacts 404", plant: answers(http.StatusNotFound, planted),
		complaints: []string{"FAIL contacts of juliet@example.org: http://127.0.0.1:"}, lines: []string{"the backend answered 404", "answer 200 and {}"}},
	{name: "contacts HTML", plant: answers(http.StatusOK, "<!DOCTYPE html><title>"+planted+"</title>"),
		complaints: []string{"FAIL contacts of juliet@example.org: http://127.0.0.1:"}, lines: []string{"/contacts/juliet: not JSON"}},
	{name: "contacts of another form", plant: answers(http.StatusOK, `{"error": {"message": "`+planted+`"}}`),
		complaints: []string{"FAIL contacts of juliet@example.org: http://127.0.0.1:", "warn contacts: 1 entry skipped"},
		lines:      []string{"none of 1 entries is usable", "error: is no JID"}},
	{name: "contacts skipped", works: true, plant: answers(http.StatusOK, `{"romeo@example.org": {}, "nurse@example.org/kitchen": {},
		"tybalt@example.org": "`+planted+`", "paris@example.org": {"ask": 7, "subscription": "friend"}}`),
		complaints: []string{"warn contacts: 1 entry skipped", "warn contacts: 2 fields ignored"}, lines: []string{"status 200, 3 items", "nurse@example.org/kitchen: is a JID with a resource",
			"tybalt@example.org: entry is a text, and not an object", `paris@example.org: subscription is "friend", and not none, to, from or both`}},
	{name: "contacts 404, which is nobody's", works: true, plant: answers(http.StatusNotFound, planted), settings: fixed(map[string]any{"contacts.not_found": "empty"}),
		complaints: []string{"warn contacts of juliet@example.org: http://127.0.0.1:"}, lines: []string{"status 404, which contacts.not_found makes an empty roster"}, absent: []string{"status 200"}},
	{name: "somebody else's user", user: "juliet@example.net",
		complaints: []string{`FAIL contacts: --user "juliet@example.net" is of a domain that xmpp.hosts lacks`}},
	{name: "metrics.listen is taken", plant: taken("metrics.listen"),
		complaints: []string{"FAIL metrics.listen: 127.0.0.1:"}, lines: []string{"is taken by another program"}},
	{name: "another rosterd", plant: func(t *testing.T, s *site, _ map[string]any) {
		other := run(t, harness.RosterdOptions{Server: s.server, ContactsURL: s.backend.URL()})
		if err := other.WaitReady(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}, complaints: []string{"FAIL handshake: the server refused the handshake: conflict"}, lines: []string{"stop the other rosterd"}},
	{name: "another configuration", plant: func(t *testing.T, s *site, settings map[string]any) {
		other := run(t, harness.RosterdOptions{Server: s.server, ContactsURL: s.backend.URL(),
			Settings: map[string]any{"refresh.listen": settings["refresh.listen"], "metrics.listen": settings["metrics.listen"]}})
		if err := other.WaitReady(bounded(t)); err != nil {
			t.Fatal(err)
		}
		settings["xmpp.hosts"] = []string{"example.org", "example.net"}
	}, complaints: []string{"FAIL a rosterd runs as contacts.example.org with another configuration"}, lines: []string{"restart it"}},
}

const (
	linesDelegations = `    delegations = { ["jabber:iq:roster"] = { jid = "contacts.example.org" } }`
	linesHost        = `  VirtualHost "example.org"`
	linesComponent   = `  Component "contacts.example.org"`
	linesPushes      = `    in privileged_entities, in ["contacts.example.org"]: iq = { ["jabber:iq:roster"] = "set" };`
	linesPresence    = `    in privileged_entities, in ["contacts.example.org"]: presence = "managed_entity";`
	linesEntities    = `    privileged_entities = { ["contacts.example.org"] = { roster = "both"; presence = "managed_entity"; iq = { ["jabber:iq:roster"] = "set" } } }`
	linesModDelegate = `    mod_delegation: {namespaces: {"jabber:iq:roster": {access: rosterd}}}`
	linesModPresence = `    mod_privilege: {presence: {managed_entity: rosterd}}`
	linesCheckFrom   = `on the listener ejabberd_service, check_from: false`
)

// onEjabberd is the setting that goes with check_from: false.
var onEjabberd = fixed(map[string]any{"xmpp.unrestricted": true, "xmpp.presence": "auto"})

const seenOffline = "warn example.org: users see every contact offline"

// TestCheck plants misconfigurations on real servers.
func TestCheck(t *testing.T) {
	harness.Require(t.Context(), t)
	t.Parallel()
	grants := func(g harness.Grants) harness.ServerOptions { return harness.ServerOptions{Grants: g} }
	pushedOnEjabberd := map[string]string{"privileged": "by privileged IQ", "direct": "from the user's address"}[ejabberd.push()]
	var notSaid []string // ejabberd lets nobody ask before 24.10
	if !ejabberd.privilegedIQ {
		notSaid = []string{"warn example.org: does not say whom users have blocked"}
	}
	ofProsody := []string{"prosody.cfg.lua"} // which are not for ejabberd
	if ejabberdVersion >= "24.10" && ejabberdVersion < "25.03" {
		ofProsody = nil // it drops what a privileged component asks a host, and does not say what it is
	}
	announcesNothing := "warn example.org: announces nothing to contacts.example.org, neither delegation nor privileges"
	for _, where := range []struct {
		name    string
		start   func(context.Context, harness.ServerOptions) (*harness.Server, error)
		options harness.ServerOptions
		cases   []misconfiguration
	}{
		{"prosody", startProsody, harness.ServerOptions{}, onGoodProsody},
		{"prosody without delegation", startProsody, grants(harness.Grants{NoDelegation: true}), []misconfiguration{{
			name: "delegation missing", works: true,
			complaints: []string{"warn example.org: does not delegate jabber:iq:roster to contacts.example.org"},
			lines:      []string{linesHost, linesDelegations, "clients have to ask the component"},
			absent:     []string{"privileged_entities", "ejabberd.yml"}}, {
			name: "the server answers", works: true, settings: fixed(map[string]any{"xmpp.server_roster": "auto"}), complaints: []string{"warn example.org: takes subscription requests"},
			lines: []string{"ok   example.org: its own rosters can be kept in step (privilege roster, both)", "the server answers roster queries"}}}},
		{"prosody as recommended", kept(prosody).start, harness.ServerOptions{}, []misconfiguration{{
			name: "nothing is wrong", works: true, settings: fixed(map[string]any{"xmpp.presence": "auto", "xmpp.server_roster": "auto"}),
			lines: []string{"ok   example.org: its own rosters can be kept in step (privilege roster, both)", "ok   example.org: refuses subscription requests"}}}},
		{"prosody as recommended, without delegation", kept(prosody).start, grants(harness.Grants{NoDelegation: true}), []misconfiguration{{
			name: "the server answers", works: true, settings: fixed(map[string]any{"xmpp.presence": "auto", "xmpp.server_roster": "auto"}),
			lines: []string{"the server answers roster queries", "ok   example.org: refuses subscription requests"}}}},
		{"prosody without iq", startProsody, grants(harness.Grants{NoPrivilegeIQ: true}), []misconfiguration{{
			name: "privilege iq missing", works: true,
			complaints: []string{"warn example.org: does not permit roster pushes"},
			lines:      []string{linesHost, linesPushes, "roster item exchange"},
			absent:     []string{linesDelegations, linesComponent, linesEntities, linesPresence, "ejabberd.yml"}}}},
		{"prosody without presence", startProsody, grants(harness.Grants{NoPresence: true}), []misconfiguration{{
			name: "privilege presence missing", works: true,
			complaints: []string{"warn example.org: does not report who comes and goes"},
			lines:      []string{linesHost, linesPresence},
			absent:     []string{linesDelegations, linesComponent, linesPushes, "ejabberd.yml"}}}},
		{"prosody, plain component", func(ctx context.Context, o harness.ServerOptions) (*harness.Server, error) {
			return harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: o, ComponentLua: "  modules_enabled = {}"})
		}, harness.ServerOptions{}, []misconfiguration{{
			name: "modules missing on the component", works: true, complaints: []string{announcesNothing},
			lines: []string{linesHost, linesComponent, linesDelegations, linesEntities, "clients have to ask the component"}, absent: []string{"ejabberd.yml"}}}},
		{"ejabberd", startEjabberd, harness.ServerOptions{AnyFromAddress: true}, []misconfiguration{
			{name: "nothing is wrong", settings: onEjabberd, works: true, complaints: notSaid,
				lines: []string{"roster queries are delegated; changes are pushed " + pushedOnEjabberd + "; presence between contacts is relayed",
					"ok   the server takes stanzas from the users' addresses"}},
			wrongSecret, nothingListens, clientPort,
			{name: "unknown component", settings: fixed(map[string]any{"xmpp.domain": "nobody.example.org"}),
				complaints: []string{"FAIL handshake: the server refused the handshake: not-authorized"},
				lines:      []string{"it answers the same if nobody.example.org is not in hosts"}},
			{name: "a domain the server does not have", complaints: []string{"FAIL exmaple.org: the server does not have this domain"},
				settings: fixed(map[string]any{"xmpp.hosts": []string{"example.org", "exmaple.org"}, "xmpp.unrestricted": true})},
		}},
		{"ejabberd without iq", startEjabberd, harness.ServerOptions{AnyFromAddress: true, Grants: harness.Grants{NoPrivilegeIQ: true}}, []misconfiguration{
			{name: "unrestricted is off", works: true, complaints: []string{"warn example.org: does not permit roster pushes"},
				lines: []string{linesCheckFrom, "xmpp.unrestricted: true", `in mod_privilege: iq: {"jabber:iq:roster": {set: rosterd}}`}, absent: append([]string{linesModDelegate, linesModPresence}, ofProsody...)},
		}},
		{"ejabberd that checks addresses", startEjabberd, grants(harness.Grants{NoPrivilegeIQ: true}), []misconfiguration{{
			name: "unrestricted, and the server is not", settings: onEjabberd,
			complaints: []string{"FAIL xmpp.unrestricted is on, and the server ends the stream", "warn example.org: does not permit roster pushes", seenOffline},
			lines:      []string{"check_from: false"}}}},
		{"ejabberd without delegation", startEjabberd, harness.ServerOptions{AnyFromAddress: true, Grants: harness.Grants{NoDelegation: true}}, []misconfiguration{{
			name: "delegation missing", settings: onEjabberd, works: true,
			complaints: append([]string{"warn example.org: does not delegate jabber:iq:roster to contacts.example.org"}, notSaid...),
			lines:      []string{linesModDelegate}, absent: append([]string{linesModPresence + ":", linesCheckFrom + ";"}, ofProsody...)}}},
		{"plain ejabberd", startEjabberd, grants(harness.Grants{Plain: true}), []misconfiguration{{
			name: "modules missing", works: true, complaints: []string{announcesNothing},
			lines: []string{linesModDelegate, linesModPresence, linesCheckFrom, "access_rules: {rosterd: {allow: rosterd}}"}, absent: []string{"prosody.cfg.lua"}}}},
	} {
		t.Run(where.name, func(t *testing.T) {
			t.Parallel()
			where.options.Secret = planted + " component secret"
			s := newSite(t, where.start, where.options)
			s.backend.RequireHeader("Authorization", "Bearer "+planted+"-contacts-token")
			for _, m := range where.cases {
				t.Run(m.name, func(t *testing.T) { s.try(t, m) })
			}
		})
	}
}

// try plants a misconfiguration and checks.
func (s *site) try(t *testing.T, m misconfiguration) {
	settings := s.settings(t)
	if m.settings != nil {
		for key, value := range m.settings(s) {
			settings[key] = value
		}
	}
	if m.plant != nil {
		m.plant(t, s, settings)
	}
	args := []string{"--user", "juliet"}
	switch m.user {
	case "":
	case "none":
		args = nil
	default:
		args[1] = m.user
	}
	output, code := check(t, settings, args...)
	want := 1
	if m.works {
		want = 0
	}
	var complaints []string
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "FAIL ") || strings.HasPrefix(line, "warn ") {
			complaints = append(complaints, line)
		}
	}
	right := len(complaints) == len(m.complaints)
	for i := range min(len(complaints), len(m.complaints)) {
		right = right && strings.HasPrefix(complaints[i], m.complaints[i])
	}
	for _, line := range m.lines {
		right = right && strings.Contains(output, line)
	}
	for _, line := range m.absent {
		right = right && !strings.Contains(output, line)
	}
	if !right || code != want {
		t.Errorf("exit code %d, want %d with the complaints %q, the lines %q, and not %q:\n%s", code, want, m.complaints, m.lines, m.absent, output)
	}
	if strings.Contains(output, planted) {
		t.Errorf("tells a secret:\n%s", output)
	}
}

// settings are a configuration that works, with a secret wherever there can be
// one.
func (s *site) settings(t *testing.T) map[string]any {
	options := s.server.Options()
	return map[string]any{
		"xmpp.address": s.server.ComponentAddress(), "xmpp.domain": options.Component,
		"xmpp.secret": options.Secret, "xmpp.hosts": options.Hosts(), "xmpp.presence": "off", "xmpp.server_roster": "off",
		"contacts.url": s.backend.URL() + "?key=" + planted, "contacts.token": planted + "-contacts-token",
		"contacts.headers": map[string]string{"x-api-key": planted},
		"refresh.listen":   freeport.Of(t), "refresh.token": planted + "-refresh-token", "metrics.listen": freeport.Of(t),
	}
}

// check runs `rosterd check` with settings.
func check(t *testing.T, settings map[string]any, args ...string) (output string, code int) {
	t.Helper()
	return checkIn(t, nil, settings, args...)
}

// checkIn is check with variables added to the environment.
func checkIn(t *testing.T, env []string, settings map[string]any, args ...string) (output string, code int) {
	t.Helper()
	sections := map[string]map[string]any{}
	for key, value := range settings {
		section, name, _ := strings.Cut(key, ".")
		if sections[section] == nil {
			sections[section] = map[string]any{}
		}
		sections[section][name] = value
	}
	data, err := json.Marshal(sections) // which is YAML, too
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(bounded(t), program, append([]string{"check", "--config", file}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// While a rosterd of the same configuration runs, it is asked, and is not
// disturbed: nothing else connects to the server.
func TestCheckWhileRunning(t *testing.T) { onServers(t, testCheckWhileRunning) }

func testCheckWhileRunning(t *testing.T, srv server) {
	ctx := bounded(t)
	listen := map[string]any{"refresh.listen": freeport.Of(t), "metrics.listen": freeport.Of(t)}
	w := start(t, setup{server: srv, link: true, settings: listen})
	s := &site{w.server, w.backend}
	w.backend.Set("juliet", contacts("Romeo"))
	settings := s.settings(t)
	settings["xmpp.address"], settings["xmpp.unrestricted"] = w.link.address(), srv.unrestricted
	for key, value := range listen {
		settings[key] = value
	}
	output, code := check(t, settings, "--user", "juliet")
	for _, line := range []string{"ok   a rosterd of this configuration runs", "ok   handshake: connected as " + domain,
		"example.org: roster queries are delegated", "ok   refresh.listen: " + listen["refresh.listen"].(string) + ", held by the rosterd that runs",
		"ok   metrics.listen: " + listen["metrics.listen"].(string) + ", held by the rosterd that runs"} {
		if !strings.Contains(output, line) {
			t.Errorf("lacks %q", line)
		}
	}
	if code != 0 || strings.Contains(output, "\nFAIL") || strings.Contains(output, planted) {
		t.Errorf("exit code %d", code)
	}
	w.link.mu.Lock()
	if n := len(w.link.conns); n != 2 { // both ends of one
		t.Errorf("%d ends of connections, want 2", n)
	}
	w.link.mu.Unlock()
	wantOneStream(ctx, t, w)
	if t.Failed() {
		t.Log(output)
	}
}

// A server that checks addresses, and xmpp.unrestricted on: the answer is the same
// while rosterd runs and while it does not.
func TestCheckOfWhatTheServerRefuses(t *testing.T) { onServers(t, testCheckOfWhatTheServerRefuses) }

func testCheckOfWhatTheServerRefuses(t *testing.T, srv server) {
	ctx := bounded(t)
	listen := map[string]any{"refresh.listen": freeport.Of(t), "metrics.listen": freeport.Of(t)}
	s := newSite(t, srv.start, harness.ServerOptions{Users: everybody})
	settings := s.settings(t)
	settings["xmpp.unrestricted"], settings["xmpp.presence"], settings["xmpp.server_roster"] = true, "auto", "off"
	for key, value := range listen {
		settings[key] = value
	}
	answers := func() string {
		t.Helper()
		output, code := check(t, settings, "--user", "juliet")
		if code != 1 {
			t.Errorf("exit code %d:\n%s", code, output)
		}
		var lines []string
		for line := range strings.Lines(output) {
			if !strings.HasPrefix(line, " ") && !strings.Contains(line, ".listen: ") && !strings.Contains(line, "server: ") && !strings.Contains(line, "configuration: ") &&
				!strings.Contains(line, "a rosterd of this configuration runs") && !strings.Contains(line, "contacts of ") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	down := answers()
	if !strings.Contains(down, "FAIL xmpp.unrestricted is on, and the server ends the stream at the first stanza") ||
		!strings.Contains(down, "presence is the server's affair") || !strings.Contains(down, "warn example.org: users see every contact offline") {
		t.Errorf("while rosterd is down:\n%s", down)
	}
	rosterd := run(t, harness.RosterdOptions{Server: s.server, ContactsURL: s.backend.URL(), Settings: settings})
	if err := rosterd.WaitStarted(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 { // at once, and then
		if runs := answers(); runs != down {
			t.Errorf("while rosterd runs:\n%s\nwant\n%s", runs, down)
		}
	}
}

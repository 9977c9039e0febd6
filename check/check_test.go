package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/config"
	"rosterd/fetcher"
	"rosterd/internal/freeport"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/refresh"
)

const secret = "pl4nted"

// program is something that listens. It reads the first lines of each
// connection and then writes an answer.
type program struct {
	net.Listener
	taken atomic.Int32 // connections
}

func listen(t *testing.T, serve func(net.Conn)) *program {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &program{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.taken.Add(1)
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return p
}

func (p *program) address() string { return p.Listener.Addr().String() }

// says answers the first line with text, and then reads on.
func says(text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, conn)
	}
}

const header = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' id='1' from='contacts.example.org'>"

// speaks is a server that announces something after the handshake, or answers
// the handshake with that if it is an error.
func speaks(stanzas string) func(net.Conn) {
	return func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if _, err := r.ReadString('>'); err != nil { // the declaration
			return
		}
		if _, err := r.ReadString('>'); err != nil {
			return
		}
		_, _ = io.WriteString(conn, header)
		if first, err := r.ReadString('>'); err != nil || !strings.Contains(first, "<handshake>") {
			return
		}
		if !strings.HasPrefix(stanzas, "<stream:error>") {
			stanzas = "<handshake/>" + stanzas
		}
		_, _ = io.WriteString(conn, stanzas)
		for { // requests are answered as by a server without federation, but for example.org
			tag, err := r.ReadString('>')
			if err != nil || strings.Contains(tag, "</stream:stream>") {
				_, _ = io.WriteString(conn, "</stream:stream>")
				return
			}
			id, to := attribute(tag, "id"), attribute(tag, "to")
			if strings.HasPrefix(tag, "<iq type='result'") && to == "contacts.example.org/rosterd" {
				_, _ = io.WriteString(conn, tag+"</iq>") // as servers do that take every address
			}
			if strings.HasPrefix(tag, "<presence type='subscribe'") {
				answer := "<presence type='unavailable' from='%s' to='contacts.example.org'/>"
				if strings.HasSuffix(stanzas, readOnly) {
					answer = "<presence type='error' from='%s' to='contacts.example.org'><error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
				}
				fmt.Fprintf(conn, answer, to)
			}
			if id == "" || !strings.HasPrefix(tag, "<iq type='get'") {
				continue
			}
			payload, _ := r.ReadString('>')
			answer, from := "<iq type='result' id='%s' from='%s' to='contacts.example.org'/>", to
			switch host := strings.TrimSuffix(to[strings.LastIndex(to, "@")+1:], "/nowhere"); {
			case !strings.HasSuffix(host, "example.org"):
				answer = refusal("not-allowed")
			case strings.Contains(payload, nsRoster) && strings.HasSuffix(stanzas, dropping):
				continue
			case strings.Contains(payload, nsRoster) && attribute(tag, "from") == "contacts.example.org":
				answer = "<iq type='result' id='%s' from='%s' to='contacts.example.org'><query xmlns='jabber:iq:roster'/></iq>"
			case strings.Contains(payload, nsRoster) && delegates(stanzas, host): // a probe comes back
				fmt.Fprintf(conn, "<iq type='set' id='D' from='%s' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>"+
					"<iq xmlns='jabber:client' type='get' id='%s' from='%s' to='%s'><query xmlns='jabber:iq:roster'/></iq></forwarded></delegation></iq>", host, id, attribute(tag, "from"), to)
				answer = refusal("not-allowed")
			case strings.Contains(payload, nsRoster):
				answer = refusal("service-unavailable")
			case strings.Contains(payload, "jabber:iq:version"):
				if _, software, says := strings.Cut(stanzas, "id='runs "); says {
					software, _, _ = strings.Cut(software, "'")
					answer = "<iq type='result' id='%s' from='%s' to='contacts.example.org'><query xmlns='jabber:iq:version'><name>" + software + "</name><version>2.6.1</version></query></iq>"
				}
			}
			fmt.Fprintf(conn, answer, id, from)
		}
	}
}

func refusal(condition string) string {
	return "<iq type='error' id='%s' from='%s' to='contacts.example.org'><error type='cancel'><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
}

// delegates reports whether a host announces that it does, see announced.
func delegates(stanzas, host string) bool {
	return strings.Contains(stanzas, "<message from='"+host+"' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/>")
}

// runs is what a server announces that says which software it is: nothing.
func runs(software string) string {
	return "<presence from='example.org' to='contacts.example.org' id='runs " + software + "'/>"
}

// dropping is what a server announces at last that drops probes: nothing.
const dropping = "<presence from='example.org/dropping' to='contacts.example.org'/>"

// readOnly is what a server announces at last that refuses subscription requests: nothing.
const readOnly = "<presence from='example.org/read-only' to='contacts.example.org'/>"

// older is the probe of another rosterd, which has been connected for long.
const older = "<iq type='set' id='D0' from='example.org' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
	"<iq xmlns='jabber:client' type='get' id='1-ABCDEFGHIJKLM-1' from='contacts.example.org/rosterd' to='example.org'><query xmlns='jabber:iq:roster'/></iq></forwarded></delegation></iq>"

// strict is such a server that ends the stream at another address than the
// component's.
func strict(stanzas string) func(net.Conn) {
	return func(conn net.Conn) { speaks(stanzas)(&strictConn{Conn: conn}) }
}

type strictConn struct{ net.Conn }

func (c *strictConn) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("<iq type='result'")) && bytes.HasSuffix(p, []byte("></iq>")) && attribute(string(p), "from") == "example.org" && attribute(string(p), "to") == "contacts.example.org/rosterd" {
		_, _ = io.WriteString(c.Conn, refused("invalid-from"))
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

func attribute(tag, name string) string {
	_, rest, _ := strings.Cut(tag, " "+name+"='")
	value, _, _ := strings.Cut(rest, "'")
	return value
}

func refused(condition string) string {
	return "<stream:error><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
}

func announced(host, delegated, permissions string) string {
	from := "<message from='" + host + "' to='contacts.example.org'>"
	stanzas := from + "<privilege xmlns='urn:xmpp:privilege:2'>" + permissions + "</privilege></message>"
	if delegated != "" {
		stanzas += from + "<delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='" + delegated + "'/></delegation></message>"
	}
	return stanzas
}

const (
	permBlocking = "<perm access='iq'><namespace ns='urn:xmpp:blocking' type='get'/></perm>"
	permIQ       = "<perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm>"
	permRoster   = "<perm access='roster' type='both'/>"
	permPresence = "<perm access='presence' type='managed_entity'/>"
	nsRoster     = "jabber:iq:roster"
)

// settings are a configuration whose backend answers.
func settings(t *testing.T, server string) map[string]map[string]any {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/contacts/juliet":
			io.WriteString(w, `{"romeo@example.org": {}}`)
		case "/contacts/nobody":
			w.WriteHeader(http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(backend.Close)
	return map[string]map[string]any{
		"xmpp":     {"address": server, "domain": "contacts.example.org", "secret": secret, "hosts": []string{"example.org"}, "presence": "off", "server_roster": "off"},
		"contacts": {"url": backend.URL + "/contacts/%s?key=" + secret, "token": secret},
		"refresh":  {"listen": freeport.Of(t), "token": secret}, "metrics": {"listen": freeport.Of(t)},
	}
}

// run checks a configuration.
func run(t *testing.T, settings map[string]map[string]any, user string) (output string, ok bool) {
	t.Helper()
	data, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ok = Run(t.Context(), Options{File: file, User: user, Version: "1.0", Out: &out,
		Timing: component.Timing{Announce: 300 * time.Millisecond, Arrive: 50 * time.Millisecond}, Fetcher: newFetcher})
	if strings.Contains(out.String(), secret) {
		t.Errorf("tells a secret:\n%s", out.String())
	}
	return out.String(), ok
}

// newFetcher makes a fetcher as it is configured.
func newFetcher(cfg config.Config, log *slog.Logger) (*fetcher.Fetcher, error) {
	m := metrics.New(prometheus.NewRegistry())
	return fetcher.New(fetcher.Options{
		URL: func(user jid.JID) (string, error) {
			template, err := cfg.Contacts.TemplateFor(user.Domain())
			if err != nil {
				return "", err
			}
			return template.Expand(user.Local(), user.Domain())
		},
		BulkURL: func(domain string) (string, bool) {
			url, err := cfg.Contacts.BulkURLFor(domain)
			return url, url != "" && err == nil
		},
		BulkSize: cfg.Contacts.BulkSize, Timeout: cfg.Contacts.Timeout, MaxInFlight: 4, MaxBytes: cfg.Contacts.MaxBytes, Logger: log,
		NotFoundEmpty: cfg.Contacts.NotFound == "empty",
		Metrics: fetcher.Metrics{Fetches: m.Fetches, Duration: m.FetchDuration, InFlight: m.FetchInFlight, Skipped: m.ItemsSkipped, Ignored: m.FieldsIgnored,
			CircuitsOpen: m.CircuitsOpen, BulkFetches: m.BulkFetches},
	}), nil
}

// complaints are the lines that are not ok.
func complaints(output string) (list []string) {
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "ok   ") && !strings.HasPrefix(line, "     ") && !strings.HasPrefix(line, "rosterd can") {
			list = append(list, line)
		}
	}
	return list
}

func TestServer(t *testing.T) {
	all := announced("example.org", nsRoster, permIQ+permPresence)
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		xmpp  map[string]any
		ok    bool
		want  []string // how the complaints begin
		lines []string
		not   []string // lines that are not there
	}{
		{name: "everything", serve: speaks(all), ok: true, lines: []string{"changes are pushed by privileged IQ"}},
		{name: "client port", serve: says(strings.Replace(header, "jabber:component:accept", "jabber:client", 1)),
			want: []string{"FAIL server: "}, lines: []string{"is the server's port for clients"}},
		{name: "server port", serve: says(strings.Replace(header, "jabber:component:accept", "jabber:server", 1)),
			want: []string{"FAIL server: "}, lines: []string{"is the server's port for other servers"}},
		{name: "HTTP", serve: says("HTTP/1.1 400 Bad Request\r\n\r\n"), want: []string{"FAIL server: "}, lines: []string{"is an HTTP server"}},
		{name: "TLS", serve: says("\x15\x03\x01\x00\x02\x02\x46"), want: []string{"FAIL server: "}, lines: []string{"wants TLS"}},
		{name: "SSH", serve: func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n") }, want: []string{"FAIL server: "}, lines: []string{"is no XMPP server"}},
		{name: "endless", serve: says(strings.Repeat("x", 1<<20)), want: []string{"FAIL server: "}, lines: []string{"is no XMPP server"}},
		{name: "wrong secret", serve: speaks(refused("not-authorized")), want: []string{"FAIL handshake: the server refused the handshake: not-authorized"}},
		{name: "unknown", serve: speaks(refused("host-unknown")), want: []string{"FAIL handshake: the server refused the handshake: host-unknown"}},
		{name: "conflict", serve: speaks(refused("conflict")), want: []string{"FAIL handshake: the server refused the handshake: conflict"}},
		{name: "another error", serve: speaks(refused("resource-constraint")), want: []string{"FAIL handshake: "}, lines: []string{"what does the server's log say?"}},
		{name: "no delegation", serve: speaks(announced("example.org", "", permIQ+permPresence)), ok: true,
			want: []string{"warn example.org: does not delegate"}, lines: []string{"delegations = {", "mod_delegation"}},
		{name: "delegation that cannot be proven", serve: speaks(all + dropping), ok: true,
			want: []string{"warn example.org: says that it delegates"}, lines: []string{"roster queries are delegated"}},
		{name: "other delegation", serve: speaks(announced("example.org", "urn:x", permIQ+permPresence)), ok: true,
			want: []string{"warn example.org: does not delegate"}},
		{name: "no push", serve: speaks(announced("example.org", nsRoster, permPresence)), ok: true,
			want: []string{"warn example.org: does not permit roster pushes"}, lines: []string{`iq = { ["jabber:iq:roster"] = "set" };`, `in mod_privilege: iq: {"jabber:iq:roster": {set: rosterd}}`}},
		{name: "block lists unknown", serve: speaks(announced("example.org", nsRoster, permIQ+permPresence)), ok: true, xmpp: map[string]any{"unrestricted": true, "presence": "auto"},
			want:  []string{"warn example.org: does not say whom users have blocked"},
			lines: []string{`in privileged_entities, in ["contacts.example.org"], in iq: ["urn:xmpp:blocking"] = "get";`, `{get: rosterd}`}},
		{name: "block lists known", serve: speaks(announced("example.org", nsRoster, permPresence+permBlocking)), ok: true, xmpp: map[string]any{"unrestricted": true, "presence": "auto"},
			lines: []string{"ok   example.org: permits to ask whom users have blocked"}},
		{name: "no push, unrestricted", serve: speaks(announced("example.org", nsRoster, permPresence+permBlocking)), ok: true,
			xmpp: map[string]any{"unrestricted": true, "presence": "auto"}, lines: []string{"changes are pushed from the user's address", "presence between contacts is relayed",
				"ok   the server takes stanzas from the users' addresses"}},
		{name: "unrestricted, and the server is not", serve: strict(all), ok: false, xmpp: map[string]any{"unrestricted": true, "presence": "auto"},
			want:  []string{"FAIL xmpp.unrestricted is on, and the server ends the stream at the first stanza", "warn example.org: users see every contact offline"},
			lines: []string{"ok   example.org: permits roster pushes", "presence is the server's affair", "validate_from_addresses = false"}},
		{name: "unrestricted, and the server is not, no push", serve: strict(announced("example.org", nsRoster, permPresence)), ok: false, xmpp: map[string]any{"unrestricted": true},
			want:  []string{"FAIL xmpp.unrestricted is on", "warn example.org: does not permit roster pushes (privilege iq, set, jabber:iq:roster), and takes no stanzas from the users' addresses"},
			lines: []string{"changes are suggested by roster item exchange"}},
		{name: "every stream ends", serve: speaks(all + refused("invalid-from")), ok: false, xmpp: map[string]any{"unrestricted": true},
			want: []string{"FAIL handshake: the server ended the stream: invalid-from"}},
		{name: "nobody relays presence", serve: speaks(all), ok: true, xmpp: map[string]any{"presence": "auto"},
			want: []string{"warn example.org: users see every contact offline"}, lines: []string{"xmpp.unrestricted: true", "xmpp.presence: off"}},
		{name: "nobody can relay presence", serve: speaks(announced("example.org", nsRoster, permIQ)), ok: true, xmpp: map[string]any{"unrestricted": true, "presence": "relay"},
			want: []string{"warn example.org: does not report who comes and goes", "warn example.org: users see every contact offline"}, lines: []string{`presence = "managed_entity"`}},
		{name: "own rosters", serve: speaks(announced("example.org", nsRoster, permIQ+permPresence+permRoster) + readOnly), ok: true, xmpp: map[string]any{"presence": "auto", "server_roster": "auto"},
			lines: []string{"ok   example.org: its own rosters can be kept in step (privilege roster, both)", "ok   example.org: refuses subscription requests"}},
		{name: "own rosters, without delegation", serve: speaks(announced("example.org", "", permPresence+permRoster) + readOnly), ok: true, xmpp: map[string]any{"presence": "auto", "server_roster": "auto"},
			lines: []string{"the server answers roster queries, pushes changes"}},
		{name: "own rosters that users change", serve: speaks(announced("example.org", nsRoster, permIQ+permPresence+permRoster)), ok: true, xmpp: map[string]any{"presence": "auto", "server_roster": "auto"},
			want: []string{"warn example.org: takes subscription requests"}, lines: []string{`"rosterd_readonly"`}},
		{name: "own rosters that cannot be kept", serve: speaks(all), ok: true, xmpp: map[string]any{"presence": "auto", "server_roster": "auto"},
			want: []string{"warn example.org: does not let its own rosters be kept in step", "warn example.org: users see every contact offline"}, lines: []string{`roster = "both"`, "ejabberd.api.url"}},
		{name: "no presence", serve: speaks(announced("example.org", nsRoster, permIQ)), ok: true,
			want: []string{"warn example.org: does not report who comes and goes"}},
		{name: "nothing", serve: speaks(""), ok: true, want: []string{"warn example.org: announces nothing"},
			lines: []string{`Component "contacts.example.org"`, "clients have to ask the component"}},
		{name: "nothing, Prosody", serve: speaks(runs("Prosody")), ok: true, want: []string{"warn example.org: announces nothing"},
			lines: []string{"prosody.cfg.lua:", `Component "contacts.example.org"`}, not: []string{"ejabberd.yml:", "mod_delegation"}},
		{name: "nothing, ejabberd", serve: speaks(runs("ejabberd")), ok: true, want: []string{"warn example.org: announces nothing"},
			lines: []string{"ejabberd.yml:", "mod_delegation"}, not: []string{"prosody.cfg.lua:", "privileged_entities"}},
		{name: "own rosters that cannot be kept, ejabberd", serve: speaks(all + runs("ejabberd")), ok: true, xmpp: map[string]any{"presence": "auto", "server_roster": "auto"},
			want: []string{"warn example.org: does not let its own rosters be kept in step", "warn example.org: users see every contact offline"}, lines: []string{`{port: 5281, ip: "127.0.0.1", module: ejabberd_http`, "api_permissions", "ejabberd.api.url"}, not: []string{`roster = "both";`}},
		{name: "no query can come", serve: speaks(runs("jabberd")), want: []string{`FAIL example.org runs "jabberd 2.6.1", which answers every roster query from its own rosters`}},
		{name: "another rosterd", serve: speaks(older), want: []string{"FAIL handshake: another rosterd is connected as contacts.example.org"},
			lines: []string{"stop the other rosterd"}},
		{name: "one of two hosts", serve: speaks(all), ok: false, xmpp: map[string]any{"hosts": []string{"example.org", "example.net"}},
			want: []string{"FAIL example.net: the server does not have this domain"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := listen(t, tt.serve)
			s := settings(t, server.address())
			for key, value := range tt.xmpp {
				s["xmpp"][key] = value
			}
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			right := ok == tt.ok && len(got) == len(tt.want)
			for i := range min(len(got), len(tt.want)) {
				right = right && strings.HasPrefix(got[i], tt.want[i])
			}
			for _, line := range tt.lines {
				right = right && strings.Contains(output, line)
			}
			for _, line := range tt.not {
				right = right && !strings.Contains(output, line)
			}
			if !right {
				t.Errorf("%v, want %v, %q and %q:\n%s", ok, tt.ok, tt.want, tt.lines, output)
			}
		})
	}
}

// Where ejabberd's API is to keep the server's own rosters, check says what follows if it does
// not work, in place of other ways, and each line that mends it once; and what is missing
// although it works.
func TestServerWithAPI(t *testing.T) {
	works := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/get_roster":
			io.WriteString(w, "[]")
		case "/api/delete_rosteritem":
			io.WriteString(w, "0")
		case "/api/add_rosteritem":
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `"Invalid 'localuser'/'localserver'"`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(works.Close)
	const fails, nobody = "FAIL example.org: ejabberd's API does not work: delete_rosteritem: connection refused", "warn example.org: does not report who comes and goes"
	const delegation = "<message from='example.org' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>"
	const unkept = "warn example.org: its own rosters are not kept in step, as ejabberd's API does not work"
	for _, tt := range []struct {
		name, announces string
		works           bool
		want            []string // how the complaints begin
		lines           map[string]int
	}{
		{"works", announced("example.org", nsRoster, permPresence), true, nil, map[string]int{"ok   example.org: pushes what is written to its own rosters": 1}},
		{"works, without privileges", delegation, true, []string{nobody}, map[string]int{"mod_privilege: {presence: {managed_entity: rosterd}}": 1}},
		{"works, and nothing is announced", readOnly, true, []string{nobody, "warn example.org: answers roster queries and edits by itself: contacts.edit_url is not used"},
			map[string]int{"users are looked up at the backend only when it reports them": 1, "edits: what users": 0}},
		{"does not work", announced("example.org", nsRoster, permPresence), false,
			[]string{fails, "warn example.org: does not push what is written to its own rosters, as ejabberd's API does not work", unkept, "warn example.org: users see every contact offline"},
			map[string]int{"add_rosteritem": 1, "roster item exchange": 0, "the server pushes changes": 0, "prosody.cfg.lua": 0}},
		{"does not work, and need not push", announced("example.org", nsRoster, permIQ+permPresence), false,
			[]string{fails, unkept, "warn example.org: users see every contact offline"}, map[string]int{"ok   example.org: permits roster pushes": 1, "prosody.cfg.lua": 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, listen(t, speaks(tt.announces)).address())
			s["xmpp"]["presence"], s["xmpp"]["server_roster"] = "auto", "auto"
			s["contacts"]["edit_url"] = "http://127.0.0.1:1/edit"
			s["ejabberd"] = map[string]any{"api": map[string]any{"url": "http://127.0.0.1:1/api"}}
			if tt.works {
				s["ejabberd"] = map[string]any{"api": map[string]any{"url": works.URL + "/api"}}
			}
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			right := ok == tt.works && len(got) == len(tt.want)
			for i := range min(len(got), len(tt.want)) {
				right = right && strings.HasPrefix(got[i], tt.want[i])
			}
			for line, n := range tt.lines {
				right = right && strings.Count(output, line) == n
			}
			if !right {
				t.Errorf("%v, want %q and %v:\n%s", ok, tt.want, tt.lines, output)
			}
		})
	}
}

// The lines for ejabberd's API are those of the API that is configured.
func TestAPILines(t *testing.T) {
	const byAddress, token = "who: {ip: ", "oauth_issue_token rosterd@example.org 31536000 'get_roster;add_rosteritem;delete_rosteritem'"
	for _, tt := range []struct {
		name       string
		api        config.EjabberdAPI
		lines, not []string
	}{
		{"none yet", config.EjabberdAPI{}, []string{`{port: 5281, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {"/api": mod_http_api}}`,
			"who: {ip: 127.0.0.0/8}", "ejabberd.api.url: http://127.0.0.1:5281/api"}, []string{"oauth"}},
		{"a token", config.EjabberdAPI{URL: "http://[::1]:1/x/", Token: secret}, []string{`{port: 1, ip: "::1", module: ejabberd_http, request_handlers: {"/x": mod_http_api}}`,
			"oauth_access: {allow: {user: rosterd@example.org}}", token,
			"who: {oauth: {scope: [get_roster, add_rosteritem, delete_rosteritem], access: {allow: {user: rosterd@example.org}}}}"}, []string{byAddress, "ejabberd.api.url", secret}},
		{"a user", config.EjabberdAPI{URL: "https://xmpp.example.net", User: "admin@example.net", Password: secret}, []string{`{port: 443, tls: true, module: ejabberd_http, request_handlers: {"/": mod_http_api}}`,
			"who: {access: {allow: {user: admin@example.net}}}"}, []string{byAddress, "oauth", "ejabberd.api.url", secret}},
		{"an address", config.EjabberdAPI{URL: "http://[::1]/api"}, []string{`{port: 80, ip: "::1", `, `who: {ip: "::1"}`}, nil},
		{"a name", config.EjabberdAPI{URL: "http://localhost:80/a%%b"}, []string{`ip: "127.0.0.1"`, "who: {ip: 127.0.0.0/8}", `{"/a%25b": `}, nil},
		{"another machine", config.EjabberdAPI{URL: "http://192.0.2.1:5281/api"}, []string{"{port: 5281, module", "who: {ip: ADDRESS}", "in place of ADDRESS"}, []string{"127.0.0"}},
	} {
		var cfg config.Config
		cfg.XMPP.Hosts, cfg.Ejabberd.API = []string{"example.org", "example.net"}, tt.api
		got := strings.Join(apiLines(cfg), "\n")
		for _, line := range tt.lines {
			if strings.Count(got, line) != 1 {
				t.Errorf("%s: no %s in\n%s", tt.name, line, got)
			}
		}
		for _, line := range tt.not {
			if strings.Contains(got, line) {
				t.Errorf("%s: %s in\n%s", tt.name, line, got)
			}
		}
	}
}

// With two hosts, and all that follows, the lines of the API are said once.
func TestAPILinesOnce(t *testing.T) {
	c := &checker{}
	c.cfg.XMPP.Domain, c.cfg.XMPP.Hosts, c.cfg.XMPP.ServerRoster = "contacts.example.org", []string{"example.org", "example.net"}, "auto"
	var lines []string
	for _, host := range c.cfg.XMPP.Hosts {
		for _, f := range c.host(component.Routes{Host: host, Software: "ejabberd 23.01", Delegation: true, Privileges: "presence", Query: component.QueryDelegated,
			Presence: component.PresenceServer, ServerRoster: component.ServerRosterNone}, component.Status{}, false) {
			lines = append(append(lines, f.text), f.mends...)
		}
	}
	output := strings.Join(lines, "\n")
	for line, n := range map[string]int{"api_permissions:": 1, "the lines of the API, above": 1, "users see every contact offline": 2} {
		if got := strings.Count(output, line); got != n {
			t.Errorf("%q %d times, want %d:\n%s", line, got, n, output)
		}
	}
}

// A program that only takes the connection is given up in time, and a check
// that is interrupted ends.
func TestInterrupted(t *testing.T) {
	server := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	s := settings(t, server.address())
	data, _ := json.Marshal(s)
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var out strings.Builder
	began := time.Now()
	ok := Run(ctx, Options{File: file, User: "juliet", Out: &out, Fetcher: newFetcher})
	if ok || time.Since(began) > portWait || !strings.Contains(out.String(), "FAIL the check was interrupted") {
		t.Errorf("%v after %v:\n%s", ok, time.Since(began), out.String())
	}
}

// status is a rosterd that runs.
func status(t *testing.T, s component.Status) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(s)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestRunning(t *testing.T) {
	good := component.Routes{Host: "example.org", Query: component.QueryDelegated, Push: component.PushPrivileged, Presence: component.PresenceServer,
		Delegation: true, Privileges: "urn:xmpp:privilege:2", PushPermitted: true, PresencePermitted: true, ServerRoster: component.ServerRosterOff}
	other, relayed := good, good
	other.Host = "example.net"
	relayed.Presence, relayed.BlockingPermitted = component.PresenceRelayed, true
	mine := component.Status{Connected: true, Domain: "contacts.example.org", Hosts: []component.Routes{good}}
	with := func(any string, w component.Routes) component.Status {
		s := mine
		s.Any, s.Hosts = any, []component.Routes{w}
		return s
	}
	for _, tt := range []struct {
		name     string
		status   component.Status // the address is that of the server
		ok       bool
		want     []string
		connects bool
		any      bool // xmpp.unrestricted
	}{
		{"of this configuration", mine, true, nil, false, false},
		{"whose server takes every address", with(component.AnyTaken, relayed), true, nil, false, true},
		{"whose server does not", with(component.AnyRefused, good), false, []string{"FAIL xmpp.unrestricted is on, and the server ends the stream at the first stanza"}, false, true},
		{"started without xmpp.unrestricted", mine, false, []string{"FAIL xmpp.unrestricted is true, and not so in the rosterd that runs"}, false, true},
		{"started with xmpp.unrestricted", with(component.AnyTaken, relayed), false, []string{"FAIL xmpp.unrestricted is false, and not so in the rosterd that runs"}, false, false},
		{"without a stream", component.Status{Domain: "contacts.example.org", Reason: "the server refused the handshake: conflict", Condition: "conflict"},
			false, []string{"FAIL handshake: the server refused the handshake: conflict"}, false, false},
		{"of other hosts", component.Status{Connected: true, Domain: "contacts.example.org", Hosts: []component.Routes{good, other}},
			false, []string{"FAIL a rosterd runs as contacts.example.org with another configuration"}, false, false},
		{"of another component", component.Status{Connected: true, Domain: "contacts.example.net", Hosts: []component.Routes{other}},
			false, []string{"FAIL metrics.listen: "}, true, false},
		{"none", component.Status{}, false, []string{"FAIL metrics.listen: "}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := listen(t, speaks(announced("example.org", nsRoster, permIQ+permPresence)))
			s := settings(t, server.address())
			s["xmpp"]["unrestricted"] = tt.any
			tt.status.Address = server.address()
			s["metrics"]["listen"] = status(t, tt.status)
			endpoint := httptest.NewServer(refresh.Handler(refresh.Options{Tokens: refresh.NewTokens(secret), Logger: slog.New(slog.DiscardHandler),
				Requests: metrics.New(prometheus.NewRegistry()).RefreshRequests}, nil))
			t.Cleanup(endpoint.Close)
			if !tt.connects {
				s["refresh"]["listen"] = endpoint.Listener.Addr().String()
			}
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			if ok != tt.ok || len(got) != len(tt.want) || len(got) > 0 && !strings.HasPrefix(got[0], tt.want[0]) {
				t.Errorf("%v, want %v and %q:\n%s", ok, tt.ok, tt.want, output)
			}
			if connects := server.taken.Load() > 0; connects != tt.connects {
				t.Errorf("connected to the server: %v, want %v", connects, tt.connects)
			}
		})
	}
}

func TestContacts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		user string
		ok   bool
		want string // the complaint, or part of the output
	}{
		{"juliet", true, "ok   contacts of juliet@example.org: "},
		{"JULIET@Example.ORG", true, "ok   contacts of juliet@example.org: "},
		{"", true, "answers, no user was asked for"},
		{"romeo", false, "the backend answered 404"},
		{"nobody", false, "is contacts.token, or contacts.headers, what the backend wants?"},
		{"juliet@example.net", false, "is of a domain that xmpp.hosts lacks"},
		{"juliet@example.org/balcony", false, "is no user's name"},
		{"@", false, "is no user's name"},
	} {
		t.Run(tt.user, func(t *testing.T) {
			t.Parallel()
			server := listen(t, speaks(announced("example.org", nsRoster, permIQ+permPresence)))
			output, ok := run(t, settings(t, server.address()), tt.user)
			if ok != tt.ok || !strings.Contains(output, tt.want) {
				t.Errorf("%v, want %v and %q:\n%s", ok, tt.ok, tt.want, output)
			}
		})
	}
}

func TestSkipReasons(t *testing.T) {
	for _, reason := range fetcher.SkipReasons {
		if skipReasons[reason] == "" {
			t.Errorf("no words for %s", reason)
		}
	}
}

// What other programs say is neither two lines nor a terminal's commands.
func TestClean(t *testing.T) {
	var out strings.Builder
	c := checker{Options: Options{Out: &out}}
	ok := c.report(fail("a\n\x1b[31m%s", "\xff"+strings.Repeat("x", 2*maxLine)).mend("b\r\nok   c"))
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || strings.ContainsAny(out.String(), "\x1b\r") || !utf8.ValidString(out.String()) || len(lines[0]) > maxLine+20 || c.failures != 1 || ok {
		t.Errorf("%q", out.String())
	}
}

package refresh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/jid"
	"rosterd/roster"
)

// refresher notes who was refreshed.
type refresher struct {
	asked  []string
	failed map[string]error
	err    error
	later  []string // who is to be refreshed later
}

func (r *refresher) RefreshLater(_ context.Context, users []jid.JID) error {
	for _, user := range users {
		r.later = append(r.later, user.String())
	}
	return r.err
}

func (r *refresher) RefreshAll(_ context.Context, domain string) (int, error) {
	r.later = append(r.later, domain)
	return 3, r.err
}

func (r *refresher) Refresh(_ context.Context, users []jid.JID) (map[jid.JID]error, error) {
	failed := make(map[jid.JID]error)
	for _, user := range users {
		r.asked = append(r.asked, user.String())
		if err := r.failed[user.String()]; err != nil {
			failed[user] = err
		}
	}
	return failed, r.err
}

// rig is a handler behind a real HTTP server.
type rig struct {
	*refresher
	t     *testing.T
	url   string
	log   strings.Builder
	codes *prometheus.CounterVec
	users *prometheus.CounterVec
}

func start(t *testing.T, change ...func(*Options)) *rig {
	r := &rig{t: t, refresher: &refresher{}}
	r.codes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "codes"}, []string{"code"})
	r.users = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "users"}, []string{"result"})
	o := Options{Hosts: []string{"example.org"}, MaxBytes: 1000, Logger: slog.New(slog.NewTextHandler(&r.log, nil)), Requests: r.codes, Users: r.users}
	for _, f := range change {
		f(&o)
	}
	server := httptest.NewServer(Handler(o, r.refresher))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// ask sends a request and returns the answer; every answer has the one form.
func (r *rig) ask(method, path, body string, header ...string) (int, Answer, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	var raw map[string]any
	var answer Answer
	if json.Unmarshal(data, &raw) != nil || json.Unmarshal(data, &answer) != nil || resp.Header.Get("Content-Type") != "application/json" {
		r.t.Fatalf("%s %s: not the one form: %s", method, path, data)
	}
	for _, key := range []string{"status", "message", "updated", "errors", "retry"} {
		if _, ok := raw[key]; !ok {
			r.t.Errorf("%s %s: no %s in %s", method, path, key, data)
		}
	}
	if n := testutil.ToFloat64(r.codes.WithLabelValues(fmt.Sprint(resp.StatusCode))); n < 1 {
		r.t.Errorf("code %d not counted", resp.StatusCode)
	}
	return resp.StatusCode, answer, resp.Header
}

func TestAnswerIsTheModules(t *testing.T) {
	r := start(t)
	resp, err := http.Post(r.url+Path, "application/json", strings.NewReader(`["juliet", "romeo"]`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	if want := `{"status":"ok","message":"roster update complete","updated":2,"errors":0,"retry":false}` + "\n"; string(data) != want || resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, data)
	}
}

func TestNames(t *testing.T) {
	failing := errors.New("the backend answered 500")
	tests := []struct {
		name    string
		hosts   []string
		body    string
		fails   string // this user
		asked   []string
		code    int
		updated int
		failed  map[string]string
	}{
		{"localparts", nil, `["juliet", "romeo"]`, "", []string{"juliet@example.org", "romeo@example.org"}, 200, 2, nil},
		{"bare JID", nil, `["juliet@example.org"]`, "", []string{"juliet@example.org"}, 200, 1, nil},
		{"none", nil, `[]`, "", nil, 200, 0, nil},
		{"prepared, once", nil, `["John", "john", "JOHN@Example.ORG", "john@example.org"]`, "", []string{"john@example.org"}, 200, 1, nil},
		{"escapes", nil, `["\u006auliet", "ο\u0394"]`, "", []string{"juliet@example.org", "οδ@example.org"}, 200, 2, nil},
		{"another domain", nil, `["juliet@evil.example", "romeo"]`, "", []string{"romeo@example.org"}, 200, 1,
			map[string]string{"juliet@evil.example": errForeign.Error()}},
		{"no names", nil, `["", "a b", "x/y", "@example.org", "x@example.org/r", "x@", "\u0000", "ok"]`, "", []string{"ok@example.org"}, 200, 1,
			map[string]string{"": errNoJID.Error(), "a b": errNoJID.Error(), "x/y": errNoJID.Error(), "@example.org": errNoJID.Error(),
				"x@example.org/r": errNoJID.Error(), "x@": errNoJID.Error(), "\x00": errNoJID.Error()}},
		{"all wrong", nil, `["a b"]`, "", nil, 500, 0, map[string]string{"a b": errNoJID.Error()}},
		{"one fails", nil, `["Juliet", "romeo"]`, "juliet@example.org", []string{"juliet@example.org", "romeo@example.org"}, 200, 1,
			map[string]string{"Juliet": failing.Error()}},
		{"all fail", nil, `["juliet"]`, "juliet@example.org", []string{"juliet@example.org"}, 500, 0, map[string]string{"juliet": failing.Error()}},
		{"numbers", nil, `[ 1001 , "romeo",-7.50 ]`, "", []string{"1001@example.org", "romeo@example.org", "-7.50@example.org"}, 200, 3, nil},
		{"a number and its text", nil, `[42, "42"]`, "", []string{"42@example.org"}, 200, 1, nil},
		{"no names at all", nil, `["juliet", null, {"name": "romeo"}, ["nurse"], false, true, null]`, "", []string{"juliet@example.org"}, 200, 1,
			map[string]string{"[1]": "null is no name", "[2]": "an object or array is no name", "[3]": "an object or array is no name", "[4]": "false is no name",
				"[5]": "true is no name", "[6]": "null is no name"}},
		{"only null", nil, `[null]`, "", nil, 500, 0, map[string]string{"[0]": "null is no name"}},
		{"a byte order mark", nil, "\ufeff[\"juliet\"]", "", []string{"juliet@example.org"}, 200, 1, nil},
		{"several domains", []string{"example.org", "example.net"}, `["juliet", "juliet@example.net", "juliet@example.org"]`, "",
			[]string{"juliet@example.net", "juliet@example.org"}, 200, 2, map[string]string{"juliet": errDomain.Error()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, func(o *Options) {
				if tt.hosts != nil {
					o.Hosts = tt.hosts
				}
			})
			r.failed = map[string]error{tt.fails: failing}
			code, a, _ := r.ask("POST", Path, tt.body)
			if code != tt.code || a.Updated != tt.updated || a.Errors != len(tt.failed) || !reflect.DeepEqual(a.Failed, tt.failed) {
				t.Errorf("%d %+v", code, a)
			}
			if (a.Status == "ok") != (tt.code == 200) {
				t.Errorf("status %s", a.Status)
			}
			if !reflect.DeepEqual(r.asked, tt.asked) {
				t.Errorf("refreshed %v", r.asked)
			}
			if u, e := testutil.ToFloat64(r.users.WithLabelValues("updated")), testutil.ToFloat64(r.users.WithLabelValues("error")); int(u) != tt.updated || int(e) != len(tt.failed) {
				t.Errorf("counted %v updated, %v errors", u, e)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name, method, path, body string
		code                     int
	}{
		{"empty body", "POST", Path, "", 400},
		{"not JSON", "POST", Path, "juliet", 400},
		{"cut off", "POST", Path, `["juliet"`, 400},
		{"object", "POST", Path, `{"juliet": true}`, 400},
		{"string", "POST", Path, `"juliet"`, 400},
		{"null", "POST", Path, `null`, 400},
		{"something follows", "POST", Path, `["juliet"] x`, 400},
		{"another array follows", "POST", Path, `["juliet"]["romeo"]`, 400},
		{"a comma too much", "POST", Path, `["juliet",]`, 400},
		{"another bracket", "POST", Path, `["juliet"}`, 400},
		{"deep", "POST", Path, strings.Repeat("[", 900), 400},
		{"too large", "POST", Path, `["` + strings.Repeat("x", 2000) + `"]`, 413},
		{"too large behind the array", "POST", Path, `["juliet"]` + strings.Repeat(" ", 2000), 413},
		{"GET", "GET", Path, "", 405},
		{"PUT", "PUT", Path, `["juliet"]`, 405},
		{"DELETE", "DELETE", Path, "", 405},
		{"POST of one", "POST", Path + "/juliet", `["juliet"]`, 405},
		{"elsewhere", "POST", "/", `["juliet"]`, 404},
		{"one without name", "GET", Path + "/", "", 404},
		{"nearby", "POST", Path + "s", `["juliet"]`, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t)
			code, a, header := r.ask(tt.method, tt.path, tt.body)
			if code != tt.code || a.Status != "error" || a.Message == "" || a.Updated != 0 {
				t.Errorf("%d %+v", code, a)
			}
			if (header.Get("Allow") != "") != (tt.code == 405) {
				t.Errorf("Allow: %q", header.Get("Allow"))
			}
			if r.asked != nil {
				t.Errorf("refreshed %v", r.asked)
			}
		})
	}
}

func TestSingle(t *testing.T) {
	for path, want := range map[string]string{
		"juliet":               "juliet@example.org",
		"Juliet@example.org":   "juliet@example.org",
		"jul%69et":             "juliet@example.org",
		"%CE%BF%CE%B4":         "οδ@example.org",
		"juliet%40example.org": "juliet@example.org",
		"a/b":                  "",
		"a%2Fb":                "",
		"..":                   "..@example.org",
		"juliet@evil.example":  "",
	} {
		r := start(t)
		code, a, _ := r.ask("GET", Path+"/"+path, "")
		if ok := want != ""; ok != (code == 200) || ok && (a.Updated != 1 || r.asked[0] != want) || !ok && (code != 500 || a.Errors != 1 || r.asked != nil) {
			t.Errorf("%s: %d %+v, refreshed %v", path, code, a, r.asked)
		}
	}
}

func TestToken(t *testing.T) {
	const token = "s3cr3t-t0ken"
	r := start(t, func(o *Options) { o.Tokens = NewTokens(token) })
	for authorization, want := range map[string]int{
		"Bearer " + token: 200, "bearer " + token: 200,
		"": 401, token: 401, "Bearer": 401, "Bearer ": 401, "Bearer wrong": 401, "Bearer " + token + "x": 401,
		"Bearer " + token[:5]: 401, "Basic " + token: 401,
	} {
		for _, path := range []string{Path, Path + "/juliet"} {
			method := "POST"
			if path != Path {
				method = "GET"
			}
			r.asked = nil
			code, _, header := r.ask(method, path, `["juliet"]`, "Authorization", authorization)
			if code != want || (r.asked != nil) != (want == 200) {
				t.Errorf("%q: %d, refreshed %v", authorization, code, r.asked)
			}
			if (header.Get("WWW-Authenticate") != "") != (want == 401) {
				t.Errorf("WWW-Authenticate: %q", header.Get("WWW-Authenticate"))
			}
		}
	}
	if strings.Contains(r.log.String(), token) {
		t.Error("the token is in the log")
	}
}

func TestNotConnected(t *testing.T) {
	r := start(t)
	r.err = roster.ErrNotConnected
	code, a, _ := r.ask("POST", Path, `["juliet", "romeo"]`)
	if code != 503 || a.Status != "error" || a.Updated != 0 || a.Errors != 2 || !strings.Contains(a.Message, "not connected") {
		t.Errorf("%d %+v", code, a)
	}
	if code, a, _ := r.ask("POST", Path, `[]`); code != 200 || a.Status != "ok" { // nothing to do is done
		t.Errorf("%d %+v", code, a)
	}
}

// The answer and the log say what a body is that is no array.
func TestNoArrayInWords(t *testing.T) {
	for body, want := range map[string]string{
		"":                     "none, or a part",
		" \n":                  "none, or a part",
		"\ufeff":               "none, or a part",
		"users=juliet":         "no JSON: invalid character",
		"\xff\xfe[\x00]\x00":   "no JSON: invalid character",
		`["juliet", romeo]`:    "no JSON: invalid character",
		`["juliet", "rom`:      "none, or a part",
		`["juliet",`:           "none, or a part",
		`["juliet"`:            "none, or a part",
		`{"users": ["juliet"]`: "an object",
		`"juliet"`:             "a single value",
		"1001":                 "a single value",
		"1e999":                "a single value",
		"true":                 "a single value",
		"null":                 "a single value",
		`["juliet"] romeo`:     "no JSON: invalid character",
		`["juliet"][`:          "something behind it",
	} {
		r := start(t)
		code, a, _ := r.ask("POST", Path, body)
		if want = "wants a JSON array of usernames, got " + want; code != 400 || !strings.HasPrefix(a.Message, want) || r.asked != nil {
			t.Errorf("%q: %d %s, want %s", body, code, a.Message, want)
		}
		if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, want) || !strings.Contains(log, "caller=127.0.0.1") || strings.Contains(log, "juliet") {
			t.Errorf("%q: logged %s", body, log)
		}
	}
}

func TestFailedIsBounded(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxBytes = 1 << 20 })
	names := make([]string, 500)
	for i := range names {
		names[i] = fmt.Sprintf("%d@evil.example", i)
	}
	names = append(names, strings.Repeat("ü", 5000))
	body, _ := json.Marshal(names)
	code, a, _ := r.ask("POST", Path, string(body))
	if code != 500 || a.Errors != 501 || len(a.Failed) != 100 {
		t.Errorf("%d, %d errors, %d named", code, a.Errors, len(a.Failed))
	}
	code, a, _ = r.ask("POST", Path, `["juliet"`+strings.Repeat(",null", 300)+`,"a b"]`)
	if code != 200 || a.Updated != 1 || a.Errors != 301 || len(a.Failed) != 100 {
		t.Errorf("%d, %d errors, %d named", code, a.Errors, len(a.Failed))
	}
	_, a, _ = r.ask("POST", Path, `["`+strings.Repeat("ü", 5000)+`"]`)
	for name := range a.Failed {
		if len(name) > 2100 {
			t.Errorf("a name of %d bytes", len(name))
		}
	}
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 20_000 {
			t.Errorf("a log line of %d bytes", len(line))
		}
	}
}

func TestRespondAsync(t *testing.T) {
	for prefer, async := range map[string]bool{
		"respond-async": true, "Respond-Async": true, "wait=10, respond-async": true, "respond-async; x=y": true,
		"": false, "respond-asynchronous": false, "handling=lenient": false,
	} {
		for method, path := range map[string]string{"POST": Path, "GET": Path + "/juliet"} {
			r := start(t)
			code, a, header := r.ask(method, path, `["juliet", "romeo@evil.example"]`, "Prefer", prefer)
			want := 200
			if async {
				want = 202
			}
			if code != want || a.Status != "ok" || a.Retry || (a.Accepted == 1) != async || (a.Updated == 1) == async ||
				(header.Get("Preference-Applied") == "respond-async") != async || (len(r.later) == 1) != async || (len(r.asked) == 1) == async {
				t.Errorf("%q: %s: %d %+v, %v", prefer, method, code, a, header)
			}
			if n := testutil.ToFloat64(r.users.WithLabelValues("accepted")); (n == 1) != async {
				t.Errorf("%q: %s: counted %v", prefer, method, n)
			}
		}
	}
	r := start(t)
	r.err = errors.New("the disk is full")
	if code, a, _ := r.ask("POST", Path, `["juliet", "a b"]`, "Prefer", "respond-async"); code != 503 || !a.Retry || a.Errors != 2 || a.Accepted != 0 || strings.Contains(a.Message, "disk") {
		t.Errorf("%d %+v", code, a)
	}
	r = start(t)
	if code, a, _ := r.ask("POST", Path, `["a b"]`, "Prefer", "respond-async"); code != 500 || a.Retry || a.Accepted != 0 {
		t.Errorf("%d %+v", code, a)
	}
}

func TestAll(t *testing.T) {
	for query, want := range map[string]int{
		"all=example.org": 202, "all=Example.ORG.": 202, "all=example.org&x=y": 202, "x=y": 200,
		"all=": 400, "all": 400, "all=example.net": 400, "all=example.org&all=example.org": 400, "all=*": 400,
	} {
		r := start(t)
		code, a, _ := r.ask("POST", Path+"?"+query, `["juliet"]`)
		if code != want || a.Retry || (want == 202) != (a.Accepted == 3 && reflect.DeepEqual(r.later, []string{"example.org"})) || (want == 200) != (r.asked != nil) {
			t.Errorf("%s: %d %+v, %v", query, code, a, r.later)
		}
	}
}

// That everybody was reported is accepted when it is kept.
func TestAllThatCannotBeKept(t *testing.T) {
	r := start(t)
	r.err = roster.ErrNotKept
	if code, a, _ := r.ask("POST", Path+"?all=example.org", ""); code != 503 || !a.Retry || a.Accepted != 0 {
		t.Errorf("%d %+v", code, a)
	}
}

// Only what rosterd does not remember is to be sent again.
func TestRetry(t *testing.T) {
	for _, tt := range []struct {
		err, failed error
		body        string
		code        int
		retry       bool
	}{
		{roster.ErrNotConnected, nil, `["juliet"]`, 503, false}, // all are refreshed when the stream is back
		{roster.ErrStopping, nil, `["juliet"]`, 503, true},
		{nil, errors.New("the backend answered 500"), `["juliet"]`, 500, false}, // is tried again
		{nil, roster.ErrStopping, `["juliet"]`, 500, true},
		{roster.ErrNotKept, nil, `["juliet"]`, 503, true},
		{nil, fmt.Errorf("the backend answered 500, and %w", roster.ErrNotKept), `["juliet"]`, 500, true},
		{nil, roster.ErrNotKept, `["juliet","romeo"]`, 200, true},
		{nil, roster.ErrNotKept, `["juliet",[]]`, 500, true},
		{roster.ErrManyOffline, nil, `["juliet"]`, 503, true},
		{nil, roster.ErrManyOffline, `["juliet","romeo"]`, 200, true},
	} {
		active := start(t)
		active.err, active.failed = tt.err, map[string]error{"juliet@example.org": tt.failed}
		for name, r := range map[string]*rig{
			"directly":                       active,
			"by the instance that stands by": start(t, standby(t, "", func() string { return active.url })),
		} {
			if code, a, _ := r.ask("POST", Path, tt.body); code != tt.code || a.Retry != tt.retry {
				t.Errorf("%s, %s, %v, %v: %d %+v", name, tt.body, tt.err, tt.failed, code, a)
			}
		}
		// In several requests, of which the last one fails no more.
		several := start(t, standby(t, "", func() string { return active.url }), func(o *Options) { o.MaxBytes = 60 })
		if code, a, _ := several.ask("POST", Path, `["juliet","romeo","paris","nurse","tybalt"]`); tt.err == nil && (code != 200 || a.Retry != tt.retry) {
			t.Errorf("in several requests, %v: %d %+v", tt.failed, code, a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`["juliet"]`, `[]`, `null`, `[null]`, `["a"]x`, `{"a":1}`, `[[`, "\xff", `["\ud800"]`, `[1, -2.5e3,{"a":[]} ]`, "\ufeff[true]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decode(strings.NewReader(string(data)))
		data = bytes.TrimPrefix(data, []byte(bom))
		var want []any
		numbers := json.NewDecoder(bytes.NewReader(data))
		numbers.UseNumber() // they may be too large for any type
		if ok := json.Valid(data) && numbers.Decode(&want) == nil && want != nil; ok != (err == nil) || len(list) != len(want) {
			t.Fatalf("got %+v, %v, want %q", list, err, want)
		}
		for i, n := range list {
			name, isName := want[i].(string)
			if number, isNumber := want[i].(json.Number); isNumber {
				name, isName = number.String(), true
			}
			if (n.err == nil) != isName || isName && n.name != name {
				t.Errorf("%d: got %+v, want %v", i, n, want[i])
			}
		}
	})
}

// A name in the application's spelling means the user that the server would find
// under it, or fails.
func TestNamesAsTheApplicationSpellsThem(t *testing.T) {
	for name, want := range map[string]string{
		"Hei\u00DF": "heiss@example.org", "b\u00B2": "b2@example.org", "\u20AC": "\u20AC@example.org", "\u2665@EXAMPLE.org": "\u2665@example.org",
		"jose\u0301": "jos\u00E9@example.org", "\uFB03": "ffi@example.org", "\u023A": "\u023A@example.org", "a\u00ADb": "ab@example.org",
		"a b": "", "\u2100": "", "\u00AD": "", "\u05D0a": "", "\uFF20": "",
	} {
		r := start(t)
		body, _ := json.Marshal([]string{name})
		code, answer, _ := r.ask("POST", Path, string(body))
		if want == "" {
			if code != 500 || answer.Failed[name] != errNoJID.Error() || len(r.asked) > 0 {
				t.Errorf("%+q: %d, %+v, asked %q", name, code, answer, r.asked)
			}
			continue
		}
		if code != 200 || answer.Updated != 1 || !reflect.DeepEqual(r.asked, []string{want}) {
			t.Errorf("%+q: %d, %+v, asked %q", name, code, answer, r.asked)
		}
	}
	r := start(t, func(o *Options) { o.Hosts = []string{"b\u00FCcher.example", "example.org"} })
	code, answer, _ := r.ask("POST", Path, `["Juliet@xn--bcher-kva.example", "juliet@B\u00DCCHER.example"]`)
	if code != 200 || answer.Updated != 1 || !reflect.DeepEqual(r.asked, []string{"juliet@b\u00FCcher.example"}) {
		t.Errorf("%d, %+v, asked %q", code, answer, r.asked)
	}
}

package e2e

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

const refreshPath = "/roster_admin/refresh"

// Every answer of the endpoint is JSON of the same form, whatever was asked.
func TestRefreshRequests(t *testing.T) {
	t.Parallel()
	ok := func(updated, errors int, failed map[string]string) harness.RefreshAnswer {
		return harness.RefreshAnswer{Code: 200, Status: "ok", Message: "roster update complete", Updated: updated, Errors: errors, Failed: failed}
	}
	none := func(errors int, failed map[string]string) harness.RefreshAnswer {
		return harness.RefreshAnswer{Code: 500, Status: "error", Message: "no roster could be updated", Errors: errors, Failed: failed}
	}
	malformed := func(got string) harness.RefreshAnswer {
		return harness.RefreshAnswer{Code: 400, Status: "error", Message: "wants a JSON array of usernames, got " + got}
	}
	foreign, noName := "not a user of a served domain", "not a username or bare JID"
	cases := []struct {
		name, method, path, body string
		want                     harness.RefreshAnswer
	}{
		{"nobody", "POST", refreshPath, `[]`, ok(0, 0, nil)},
		{"localparts", "POST", refreshPath, `["juliet","romeo"]`, ok(2, 0, nil)},
		{"bare JIDs", "POST", refreshPath, `["juliet@example.org"]`, ok(1, 0, nil)},
		{"one user in many ways", "POST", refreshPath, `["juliet","JULIET","Juliet@Example.ORG","juliet"]`, ok(1, 0, nil)},
		{"unknown and known domain", "POST", refreshPath, `["juliet","romeo@example.net"]`, ok(1, 1, map[string]string{"romeo@example.net": foreign})},
		{"unknown domain alone", "POST", refreshPath, `["romeo@example.net"]`, none(1, map[string]string{"romeo@example.net": foreign})},
		{"the component's domain", "POST", refreshPath, `["juliet@contacts.example.org"]`, none(1, map[string]string{"juliet@contacts.example.org": foreign})},
		{"names that are none", "POST", refreshPath, `["", "a b", "juliet@example.org/balcony", "@example.org"]`,
			none(4, map[string]string{"": noName, "a b": noName, "juliet@example.org/balcony": noName, "@example.org": noName})},
		{"one user by GET", "GET", refreshPath + "/juliet", "", ok(1, 0, nil)},
		{"one user by GET, encoded", "GET", refreshPath + "/j%C3%BCrgen%40example.org", "", ok(1, 0, nil)},
		{"a bad name by GET", "GET", refreshPath + "/a%2Fb", "", none(1, map[string]string{"a/b": noName})},
		{"no name by GET", "GET", refreshPath + "/", "", harness.RefreshAnswer{Code: 404, Status: "error", Message: "there is only " + refreshPath}},
		{"an empty body", "POST", refreshPath, ``, malformed("none, or a part")},
		{"not JSON", "POST", refreshPath, `juliet`, malformed("no JSON: invalid character 'j' looking for beginning of value")},
		{"cut off", "POST", refreshPath, `["juliet"`, malformed("none, or a part")},
		{"an object", "POST", refreshPath, `{"juliet":true}`, malformed("an object")},
		{"a string", "POST", refreshPath, `"juliet"`, malformed("a single value")},
		{"null", "POST", refreshPath, `null`, malformed("a single value")},
		{"null in the array", "POST", refreshPath, `["juliet",7,null]`, ok(2, 1, map[string]string{"[2]": "null is no name"})},
		{"a byte order mark and numbers", "POST", refreshPath, "\ufeff[1,2]", ok(2, 0, nil)},
		{"nested arrays", "POST", refreshPath, `[["juliet"],{}]`, none(2, map[string]string{"[0]": "an object or array is no name", "[1]": "an object or array is no name"})},
		{"two arrays", "POST", refreshPath, `["juliet"]["romeo"]`, malformed("something behind it")},
		{"too large", "POST", refreshPath, `["` + strings.Repeat("x", 1000) + `"]`,
			harness.RefreshAnswer{Code: 413, Status: "error", Message: "larger than 1000 bytes"}},
		{"too large, of white space", "POST", refreshPath, `["juliet"]` + strings.Repeat(" ", 1000),
			harness.RefreshAnswer{Code: 413, Status: "error", Message: "larger than 1000 bytes"}},
		{"wrong method", "GET", refreshPath, "", harness.RefreshAnswer{Code: 405, Status: "error", Message: "wants POST"}},
		{"another wrong method", "PUT", refreshPath, `["juliet"]`, harness.RefreshAnswer{Code: 405, Status: "error", Message: "wants POST"}},
		{"wrong method for one user", "POST", refreshPath + "/juliet", "", harness.RefreshAnswer{Code: 405, Status: "error", Message: "wants GET"}},
		{"another path", "POST", "/", "", harness.RefreshAnswer{Code: 404, Status: "error", Message: "there is only " + refreshPath}},
	}
	w := start(t, setup{settings: map[string]any{"refresh.max_bytes": 1000}})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			call := w.rosterd.Refresh(c.path)
			call.Method, call.Body = c.method, []byte(c.body)
			wantAnswer(t, call, c.want)
		})
	}
}

func wantAnswer(t *testing.T, call *harness.Call, want harness.RefreshAnswer) {
	t.Helper()
	answer, err := call.Do(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := answer.Refresh()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("answer %+v, %v, want %+v", got, err, want)
	}
	if kind := answer.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("content type %q", kind)
	}
}

// With a token set, callers have to send it.
func TestRefreshToken(t *testing.T) {
	t.Parallel()
	w := start(t, setup{settings: map[string]any{"refresh.token": "refresh token"}})
	unauthorized := harness.RefreshAnswer{Code: 401, Status: "error", Message: "bad or missing token"}
	updated := harness.RefreshAnswer{Code: 200, Status: "ok", Message: "roster update complete", Updated: 1}
	for _, c := range []struct {
		name, authorization string
		want                harness.RefreshAnswer
	}{
		{"right", "Bearer refresh token", updated},
		{"scheme in lower case", "bearer refresh token", updated},
		{"missing", "", unauthorized},
		{"empty", "Bearer ", unauthorized},
		{"wrong", "Bearer refresh tokem", unauthorized},
		{"half of it", "Bearer refresh", unauthorized},
		{"more than it", "Bearer refresh token x", unauthorized},
		{"other scheme", "Basic refresh token", unauthorized},
		{"no scheme", "refresh token", unauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, call := range []*harness.Call{w.rosterd.Refresh(refreshPath), w.rosterd.Refresh(refreshPath + "/juliet")} {
				call.Method = http.MethodGet
				if strings.HasSuffix(call.URL, refreshPath) {
					call.Method, call.Body = http.MethodPost, []byte(`["juliet"]`)
				}
				if c.authorization != "" {
					call.Header.Set("Authorization", c.authorization)
				}
				wantAnswer(t, call, c.want)
			}
		})
	}
}

// What a backend that was written for the module sends, refreshes: one user by
// GET, with a client that sees it.
func TestRefreshOne(t *testing.T) { onServers(t, testRefreshOne) }

func testRefreshOne(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, slixmpp, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Nurse"))
	call := w.rosterd.Refresh(refreshPath + "/juliet")
	call.Method = http.MethodGet
	wantAnswer(t, call, harness.RefreshAnswer{Code: 200, Status: "ok", Message: "roster update complete", Updated: 1})
	wantPushes(ctx, t, juliet, item("Nurse"), removed("Romeo"))
}

// Several virtual hosts are served side by side; a localpart alone means nobody.
func TestTwoHosts(t *testing.T) { onServers(t, testTwoHosts) }

func testTwoHosts(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{
		server: srv,
		options: harness.ServerOptions{
			ExtraHosts: []string{"example.net"}, Users: users("juliet@example.org", "juliet@example.net"),
		},
		path: "/contacts/%d/%s",
	})
	w.backend.Set("example.org/juliet", contacts("Romeo"))
	w.backend.Set("example.net/juliet", contacts("Nurse"))
	org := w.login(ctx, t, gosrc, "juliet@example.org/home")
	wantRoster(ctx, t, org, item("Romeo"))
	net := w.login(ctx, t, slixmpp, "juliet@example.net/home")
	wantRoster(ctx, t, net, item("Nurse"))

	// A user of one domain is nobody in the other, also with the same name.
	wantError(t, request(ctx, t, net, "other", iq("get", "other", "juliet@example.org", rosterQuery)), "forbidden")
	wantError(t, request(ctx, t, org, "other", iq("get", "other", "juliet@example.net", rosterQuery)), "forbidden")

	w.backend.Set("example.org/juliet", contacts("Romeo", "Paris"))
	w.backend.Set("example.net/juliet", contacts("Nurse", "Tybalt"))
	w.refresh(ctx, t, "juliet@example.net")
	wantPushes(ctx, t, net, item("Tybalt"))
	wantQuiet(ctx, t, org)
	w.refresh(ctx, t, "juliet@example.org", "juliet@example.net")
	wantPushes(ctx, t, org, item("Paris"))
	wantQuiet(ctx, t, net)
	if reason := w.wantFailedRefresh(ctx, t, "juliet"); reason != "wants a bare JID, several domains are served" {
		t.Errorf("reason %q", reason)
	}
}

// Of many failed users an answer names 100.
func TestRefreshManyFailed(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{})
	var names []string
	for i := range 150 {
		names = append(names, strings.Repeat("x", i+1)+"@example.net")
	}
	answer, err := w.post(ctx, append(names, "juliet")...)
	if err != nil || answer.Code != http.StatusOK || answer.Updated != 1 || answer.Errors != 150 || len(answer.Failed) != 100 {
		t.Errorf("answer %+v, %v", answer, err)
	}
}

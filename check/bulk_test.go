package check

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rosterd/config"
)

// What is said of contacts.bulk_url, which the program can do without.
func TestBulk(t *testing.T) {
	const one, two = `{"romeo@example.org": {}}`, `{"romeo@example.org": {}, "nurse@example.org": {}}`
	for _, test := range []struct {
		name   string
		user   string
		status int
		body   string
		want   []string
	}{
		{"as alone", "juliet", 200, `{"juliet": ` + one + `}`, []string{"ok   contacts in bulk: ", "/bulk/example.org: 1 item, in "}},
		{"not as alone", "juliet", 200, `{"juliet": ` + two + `}`, []string{"warn contacts in bulk: ", "juliet@example.org has 2 items here, but 1 alone"}},
		{"missing", "juliet", 200, `{}`, []string{"warn contacts in bulk: ", "has no contacts of juliet@example.org", "with a member juliet"}},
		{"no contacts", "juliet", 200, `{"juliet": "none"}`, []string{"warn contacts in bulk: ", "has no contacts of juliet@example.org"}},
		{"not there", "juliet", 404, "", []string{"warn contacts in bulk: ", "the backend answered 404: all users will be asked for alone", "POST of a JSON array"}},
		{"HTML", "juliet", 200, "<html>", []string{"warn contacts in bulk: ", "not JSON", "a JSON object of user names"}},
		{"forbidden", "juliet", 403, "", []string{"warn contacts in bulk: ", "is contacts.token"}},
		{"unknown alone and here", "romeo", 200, `{}`, []string{"ok   contacts in bulk: ", "status 200"}},
		{"nobody named", "", 200, `{}`, []string{"ok   contacts in bulk: ", "/bulk/example.org: status 200, in "}},
		{"nobody named, not there", "", 405, "", []string{"warn contacts in bulk: ", "405"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPost && r.URL.Path == "/bulk/example.org":
					w.WriteHeader(test.status)
					io.WriteString(w, test.body)
				case r.URL.Path == "/contacts/juliet":
					io.WriteString(w, one)
				default:
					http.NotFound(w, r)
				}
			}))
			defer backend.Close()
			cfg := config.Default()
			cfg.XMPP.Hosts = []string{"example.org", "example.net"}
			cfg.Contacts.URL, cfg.Contacts.BulkURL = backend.URL+"/contacts/%s?key="+secret, backend.URL+"/bulk/%d?key="+secret
			cfg.Contacts.Hosts = map[string]config.ContactsHost{"example.net": {URL: backend.URL + "/contacts/%s"}}
			var out strings.Builder
			c := checker{Options: Options{User: test.user, Fetcher: newFetcher, Out: &out}, cfg: cfg}
			c.contacts(t.Context())
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in\n%s", want, &out)
				}
			}
			if n := strings.Count(out.String(), "contacts in bulk"); n != 1 || strings.Contains(out.String(), secret) {
				t.Errorf("%d lines in\n%s", n, &out)
			}
		})
	}
	var out strings.Builder
	cfg := config.Default()
	cfg.XMPP.Hosts, cfg.Contacts.URL = []string{"example.org"}, "http://127.0.0.1:1/%s"
	c := checker{Options: Options{User: "juliet", Fetcher: newFetcher, Out: &out}, cfg: cfg}
	if c.contacts(t.Context()); strings.Contains(out.String(), "bulk") {
		t.Errorf("without bulk_url:\n%s", &out)
	}
	// Nor of contacts.edit_url, which is not tried.
	if strings.Contains(out.String(), "edits") {
		t.Errorf("without edit_url:\n%s", &out)
	}
	c.cfg.Contacts.EditURL = "http://127.0.0.1:1/edit?key=" + secret
	if c.contacts(t.Context()); !strings.Contains(out.String(), "ok   edits: what users of example.org change") || strings.Contains(out.String(), secret) {
		t.Errorf("with edit_url:\n%s", &out)
	}
}

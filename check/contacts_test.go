package check

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"rosterd/config"
	"rosterd/fetcher"
)

// asked is what is said of a user whose page a handler answers.
func asked(t *testing.T, page http.HandlerFunc) string {
	t.Helper()
	backend := httptest.NewServer(page)
	t.Cleanup(backend.Close)
	cfg := config.Default()
	cfg.XMPP.Hosts, cfg.Contacts.URL, cfg.Contacts.NotFound = []string{"example.org"}, backend.URL+"/%s?key="+secret, "empty"
	var out strings.Builder
	c := checker{Options: Options{User: "juliet", Fetcher: newFetcher, Out: &out}, cfg: cfg}
	c.contacts(t.Context())
	if strings.Contains(out.String(), secret) {
		t.Errorf("tells a secret:\n%s", &out)
	}
	return out.String()
}

// What cannot be understood is named: the contact, the field and what is there.
func TestFindings(t *testing.T) {
	output := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"romeo@example.org": {"approved": {"since": 2020}, "name": 12}, "nurse@example.org": {"subscription": "friend"},
			"paris@example.org": 0, "peter@example.org": {"name": "`+strings.Repeat("x", 40_000)+`", "groups": "Servants"}, "nobody": {},`+
			"\"tybalt@example.org\": {\"name\": \"Tyb\xe4lt\"}}")
	})
	for _, want := range []string{
		": status 200, 5 items, in ",
		"warn contacts: 1 entry skipped, mend the backend\n     nobody: is no JID\n",
		"warn contacts: 4 fields ignored, the contacts are served without, mend the backend\n",
		`     romeo@example.org: approved is {"since": 2020}, and not true or false` + "\n",
		`     nurse@example.org: subscription is "friend", and not none, to, from or both` + "\n",
		"     paris@example.org: entry is a number, and not an object\n",
		"     peter@example.org: name is more than 32 KiB, and not a text of up to 32 KiB\n",
		"warn contacts: 1 entry not in UTF-8, of which clients see U+FFFD, mend the backend\n     tybalt@example.org: is not in UTF-8\n",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("%q is not in\n%s", want, output)
		}
	}
	many := asked(t, func(w http.ResponseWriter, _ *http.Request) {
		entries := []string{}
		for i := range 130 {
			entries = append(entries, fmt.Sprintf(`"c%d@example.org": {"ask": "x"}`, i))
		}
		io.WriteString(w, "{"+strings.Join(entries, ",")+"}")
	})
	if !strings.Contains(many, "130 fields ignored") || !strings.Contains(many, "     and 30 more\n") {
		t.Errorf("%s", many)
	}
}

// A 404 is said to be one: what it means is configured, but it may be the wrong page.
func TestNotFoundIsSaid(t *testing.T) {
	output := asked(t, http.NotFound)
	if !strings.HasPrefix(output, "warn contacts of juliet@example.org: ") || !strings.Contains(output, ": status 404, which contacts.not_found makes an empty roster, in ") ||
		!strings.Contains(output, "is contacts.url right?") || strings.Contains(output, "200") {
		t.Errorf("%s", output)
	}
}

func TestFieldsHaveWords(t *testing.T) {
	for _, field := range fetcher.Fields {
		if wanted[field] == "" {
			t.Errorf("no words for %s", field)
		}
	}
}

// What went through a proxy may have ended there.
func TestMendProxy(t *testing.T) {
	err := &fetcher.Error{Result: "refused", Proxy: "proxy.example.org:3128 (HTTP_PROXY)"}
	if lines := mendFetch(err, "contacts.url"); !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, err.Proxy) && strings.Contains(l, "NO_PROXY") }) {
		t.Errorf("%q", lines)
	}
}

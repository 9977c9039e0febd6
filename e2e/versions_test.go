package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// A client that names the version of the roster it has gets the empty result if
// that is the current one, also after a restart of rosterd, and the differences
// as pushes if it is an older one that is known (RFC 6121, section 2.6).
func TestVersions(t *testing.T) { onServers(t, testVersions) }

func testVersions(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "state.db")}})
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	n := 0
	login := func() harness.Client { return w.login(ctx, t, gosrc, "juliet@example.org/balcony") }
	ask := func(client harness.Client, version string) harness.Stanza {
		n++
		id := fmt.Sprint("v", n)
		return request(ctx, t, client, id, iq("get", id, "", "<query xmlns='jabber:iq:roster' ver='"+version+"'/>"))
	}
	versionOf := func(xml string) string {
		if found := regexp.MustCompile(`ver=['"]([^'"]+)['"]`).FindStringSubmatch(xml); found != nil {
			return found[1]
		}
		return ""
	}
	wantSame := func(answer harness.Stanza) {
		t.Helper()
		if answer.Type != "result" || strings.Contains(answer.XML, "query") || len(answer.XML) > 300 {
			t.Errorf("answer %s, want the empty result", answer.XML)
		}
	}

	juliet := login()
	whole := ask(juliet, "")
	first := versionOf(whole.XML)
	if first == "" || !strings.Contains(whole.XML, "romeo@example.org") {
		t.Fatalf("answer %s", whole.XML)
	}
	wantSame(ask(juliet, first))
	if answer := ask(juliet, "nobodys"); versionOf(answer.XML) != first || !strings.Contains(answer.XML, "paris@example.org") {
		t.Errorf("answer %s", answer.XML)
	}

	// A push tells the new version, and only the last of several does.
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Paris"))
	var pushed []string
	for _, s := range juliet.Stanzas() {
		if s.Type == "set" && s.Name == "iq" {
			pushed = append(pushed, versionOf(s.XML))
		}
	}
	if len(pushed) != 2 || pushed[0] == pushed[1] || pushed[0] == first {
		t.Fatalf("pushed the versions %q", pushed)
	}
	second := pushed[1]
	wantSame(ask(juliet, second))
	if answer := ask(juliet, pushed[0]); !strings.Contains(answer.XML, "romeo@example.org") {
		t.Errorf("answer to a version between two: %s", answer.XML)
	}

	// It stays the name of the same contacts.
	juliet.Close()
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	w.connect(ctx, t)
	juliet = login()
	var answer harness.Stanza
	poll(ctx, t, func() bool { // ejabberd has not reported that she was gone: she is told everything first
		answer = ask(juliet, second)
		return !strings.Contains(answer.XML, "query")
	}, func() string { return "the answer is still " + answer.XML })
	wantSame(answer)

	// Who was away while something changed gets the difference.
	juliet.Close()
	w.backend.Set("juliet", contacts("Nurse", "Tybalt"))
	juliet = login()
	wantSame(ask(juliet, second))
	waitBrought(ctx, t, juliet, item("Tybalt"), removed("Romeo"))

	// Who names no version is told none.
	if answer := request(ctx, t, juliet, "plain", iq("get", "plain", "", rosterQuery)); versionOf(answer.XML) != "" {
		t.Errorf("answer %s", answer.XML)
	}
}

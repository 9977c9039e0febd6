package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// pushed is the last push of a contact that a client has got; "": there was none.
func pushed(client harness.Client, contact string) (last string) {
	for _, s := range client.Stanzas() {
		if s.Name == "iq" && s.Type == "set" && strings.Contains(s.XML, "jid='"+contact+"'") {
			last = s.XML
		}
	}
	return last
}

// waitPushed waits until the last push of a contact has all of this, from a moment on when
// the client had got n stanzas.
func waitPushed(ctx context.Context, t *testing.T, client harness.Client, n int, contact string, has ...string) {
	t.Helper()
	poll(ctx, t, func() bool {
		last := pushed(client, contact)
		for _, part := range has {
			if !strings.Contains(last, part) {
				return false
			}
		}
		for _, s := range client.Stanzas()[n:] {
			if s.XML == last {
				return true
			}
		}
		return false
	}, func() string {
		return fmt.Sprintf("%s: the last push of %s is %q, want %q", client.JID(), contact, pushed(client, contact), has)
	})
}

// Where ejabberd alone can push, by what is written to its own roster, it is made to: who was
// refused a change is told what is true, and nothing is written in circles.
func TestEjabberdPushesItself(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := startKept(t, setup{server: stock(ejabberd), own: true, options: harness.ServerOptions{Grants: harness.Grants{NoPrivilegeIQ: true}}})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, julietFull)
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.waitOwn(ctx, t, "juliet", own("Romeo"))
	waitMetric(ctx, t, w.rosterd, way("example.org", "delegated", "server", "server", "api"), 1)
	for id, c := range map[string]struct{ set, contact, true string }{
		"rename": {"<item jid='romeo@example.org' name='R'/>", "romeo@example.org", "name='Romeo'"},
		"remove": {"<item jid='romeo@example.org' subscription='remove'/>", "romeo@example.org", "name='Romeo'"},
		"add":    {"<item jid='nurse@example.org' name='Nurse'/>", "nurse@example.org", "subscription='remove'"},
	} {
		n := len(juliet.Stanzas())
		wantError(t, request(ctx, t, juliet, id, iq("set", id, "", "<query xmlns='jabber:iq:roster'>"+c.set+"</query>")), "not-allowed")
		waitPushed(ctx, t, juliet, n, c.contact, c.true)
	}
	w.settled(ctx, t)
	w.wantOwn(ctx, t, "juliet", own("Romeo"))
	n := len(juliet.Stanzas())
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	waitPushed(ctx, t, juliet, n, "romeo@example.org", "subscription='remove'")
	waitPushed(ctx, t, juliet, n, "nurse@example.org", "subscription='both'", "name='Nurse'")
	w.waitOwn(ctx, t, "juliet", own("Nurse"))
	w.wantNoWrites(ctx, t)
}

// What ejabberd pushes by itself when its own roster is written is not all: what the backend
// says besides is pushed after it.
func TestEjabberdPushIsCorrected(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := startKept(t, setup{server: unrestricted(ejabberd), own: true})
	asks := func(name string) harness.Contacts {
		return harness.Contacts{"romeo@example.org": {Name: name, Subscription: "none", Ask: "subscribe"}}
	}
	w.backend.Set("juliet", asks("Romeo"))
	juliet := w.enter(ctx, t, gosrc, julietFull)
	for _, name := range []string{"R", "Romeo", "R"} {
		n := len(juliet.Stanzas())
		w.backend.Set("juliet", asks(name))
		w.refresh(ctx, t, "juliet")
		w.waitOwn(ctx, t, "juliet", harness.Item{JID: "romeo@example.org", Name: name, Subscription: "none"})
		waitPushed(ctx, t, juliet, n, "romeo@example.org", "name='"+name+"'", "ask='subscribe'")
	}
	w.settled(ctx, t)
	waitPushed(ctx, t, juliet, 0, "romeo@example.org", "name='R'", "ask='subscribe'")
}

// Where rosterd may relay presence beside what ejabberd sends by its own rosters, the two do
// together what one of them does alone.
func TestEjabberdPresenceKeptAndRelayed(t *testing.T) {
	t.Parallel()
	srv := unrestricted(kept(ejabberd))
	for name, test := range map[string]func(*testing.T, server){
		"come and go": testPresence, "listed later": testPresenceListedLater, "several resources": testPresenceResources, "asymmetric": testPresenceAsymmetric,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, srv) })
	}
}

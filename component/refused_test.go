package component

import (
	"errors"
	"strings"
	"testing"

	"rosterd/jid"
	"rosterd/roster"
)

// Whoever tries to change a contact reads why that is not possible, and the manager
// hears of all contacts that were named, whichever way the set came.
func TestRefusedSet(t *testing.T) {
	r := start(t, func(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 2, 0.0001 })
	r.rosters.refused = make(chan string, 8)
	k := r.server.serve()
	r.announced(t, k)
	set := "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' name='N'/><x xmlns='urn:x' jid='x@example.org'/>" +
		"<item jid='Paris@Example.org/hall' subscription='remove'/><item/><item jid='@'/></query>"
	const named = "[nurse@example.org paris@example.org/hall]"
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='1' from='tybalt@example.org/street'>"+set+"</iq>"))
	got := k.next()
	if !strings.Contains(got, "<not-allowed ") || !strings.Contains(got, "xml:lang='en'>"+managedElsewhere+"</text>") {
		t.Errorf("got %s", got)
	}
	if got, want := receive(t, r.rosters.refused), "tybalt@example.org/street "+named; got != want {
		t.Errorf("refused %s, not %s", got, want)
	}
	k.send("<iq type='set' id='2' from='tybalt@example.org/tomb' to='contacts.example.org'>%s</iq>", set)
	if got := k.next(); !strings.Contains(got, managedElsewhere) {
		t.Errorf("got %s", got)
	}
	if got, want := receive(t, r.rosters.refused), "tybalt@example.org/tomb "+named; got != want {
		t.Errorf("refused %s, not %s", got, want)
	}
	// Nor does a client know better whose user has used up his budget.
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='3' from='tybalt@example.org/street'>"+set+"</iq>"))
	k.refused("resource-constraint")
	if got, want := receive(t, r.rosters.refused), "tybalt@example.org/street "+named; got != want {
		t.Errorf("refused %s, not %s", got, want)
	}
	// What names somebody else's roster concerns nobody.
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='4' from='paris@example.org/x' to='tybalt@example.org'>"+set+"</iq>"))
	k.refused("forbidden")
	if len(r.rosters.refused) > 0 {
		t.Errorf("refused %s", <-r.rosters.refused)
	}
}

// A client that names a version, be it none, is told to go on with what it has when
// there is no roster for it, now or at all: there are some that never come online
// after an error. It has to be told everything later, which a rosterd that stops
// cannot promise.
func TestFailureWhereAVersionIsNamed(t *testing.T) {
	for name, fail := range map[string]func(r *rig){
		"the backend fails": func(r *rig) {
			r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return nil, errors.New("the backend answered 502") }
		},
		"it is late": func(r *rig) {
			r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return nil, roster.ErrOverdue }
		},
		"too many wait": func(r *rig) { r.rosters.busy = roster.ErrBusy },
	} {
		for _, version := range []string{"", "an-older-one", strings.Repeat("x", 2*maxVersion)} {
			t.Run(name+" "+version, func(t *testing.T) {
				r := start(t)
				fail(r)
				k := r.server.serve()
				k.send("%s", delegate(nsDelegation1, "<iq xmlns='jabber:client' type='get' id='v' from='nurse@example.org/hall'><query xmlns='jabber:iq:roster' ver='"+version+"'/></iq>"))
				k.expect(answered(nsDelegation1, "<iq xmlns='jabber:client' type='result' id='v' to='nurse@example.org/hall'></iq>"))
				if r.counted(t, "rosterd_queries_total", "ok") != 0 {
					t.Error("counted as ok")
				}
			})
		}
	}
	t.Run("rosterd stops", func(t *testing.T) {
		r := start(t)
		r.rosters.busy = roster.ErrStopping
		k := r.server.serve()
		k.send("%s", delegate(nsDelegation1, "<iq xmlns='jabber:client' type='get' id='v' from='nurse@example.org/hall'><query xmlns='jabber:iq:roster' ver=''/></iq>"))
		k.refused("internal-server-error")
	})
	t.Run("no room", func(t *testing.T) {
		r := start(t)
		r.rosters.answer = func(jid.JID) (*roster.Roster, error) {
			return roster.New([]roster.Item{item(t, "paris@example.org", "P")}), nil
		}
		r.rosters.later = true
		k := r.server.serve()
		k.quiet()
		s, _ := r.Component.current()
		full(s)
		k.send("%s", delegate(nsDelegation1, "<iq xmlns='jabber:client' type='get' id='v' from='nurse@example.org/hall'><query xmlns='jabber:iq:roster' ver=''/></iq>"))
		if full := receive(t, r.rosters.lost); full != mustJID(t, "nurse@example.org/hall") {
			t.Errorf("lost %v", full)
		}
		k.expect(answered(nsDelegation1, "<iq xmlns='jabber:client' type='result' id='v' to='nurse@example.org/hall'></iq>"))
	})
}

// A set that is refused before the host has announced what it permits is made up for
// when it has; only where changes are known to be suggestions, nothing is suggested.
func TestRefusedSetBeforeAnnouncements(t *testing.T) {
	set := delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='1' from='tybalt@example.org/street'><query xmlns='jabber:iq:roster'><item jid='nurse@example.org' subscription='remove'/></query></iq>")
	r := start(t, only)
	r.rosters.refused = make(chan string, 8)
	k := r.server.serve()
	k.send("%s", set)
	k.refused("not-allowed")
	if got, want := receive(t, r.rosters.refused), "tybalt@example.org/street [nurse@example.org]"; got != want {
		t.Errorf("refused %s, not %s", got, want)
	}
	k.send("%s", delegationOnly+noPrivilege+set)
	k.refused("not-allowed")
	k.quiet()
	if len(r.rosters.refused) > 0 {
		t.Errorf("refused %s", <-r.rosters.refused)
	}
}

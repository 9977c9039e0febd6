package component

import (
	"strings"
	"testing"
	"time"

	"rosterd/presence"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// blocking is what Prosody announces that lets block lists be asked for: in any
// order, and each namespace in the one before.
func blocking(first, firstType, second, secondType string) string {
	return "<message from='example.org' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/>" +
		"<perm access='iq'><namespace ns='" + first + "' type='" + firstType + "'><namespace ns='" + second + "' type='" + secondType + "'/></namespace></perm></privilege></message>"
}

func TestPermissionsThatAreNested(t *testing.T) {
	for _, tt := range []struct {
		announced    string
		push, blocks bool
	}{
		{blocking(nsRoster, "set", nsBlocking, "get"), true, true},
		{blocking(nsBlocking, "both", nsRoster, "both"), true, true},
		{blocking(nsBlocking, "set", nsRoster, "get"), false, false},
		{blocking("urn:x", "both", nsBlocking, "get"), false, true},
	} {
		r := start(t)
		k := r.server.serve()
		k.send("%s", delegationOnly+tt.announced)
		k.quiet()
		if got := r.Status().Hosts[0]; got.PushPermitted != tt.push || got.BlockingPermitted != tt.blocks {
			t.Errorf("%s: %+v", tt.announced, got)
		}
	}
}

// A presence waits for the server to say whom its user has blocked, and is not sent
// to them. What a server says otherwise stops nothing.
func TestBlockListIsAskedFor(t *testing.T) {
	result := func(payload string) string {
		return "<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='result' id='i' to='tybalt@example.org'>" +
			payload + "</iq></forwarded></privilege>"
	}
	inner := func(condition string) string {
		return "<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='i' to='tybalt@example.org'>" +
			"<error type='cancel'><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></privilege>"
	}
	for name, tt := range map[string]struct {
		answer  string // of the server; "": none
		blocked bool
		logged  bool
	}{
		"blocked":           {result("<blocklist xmlns='urn:xmpp:blocking'><item jid='mercutio@example.org'/><item jid='Paris@example.org'/></blocklist>"), true, false},
		"the whole domain":  {result("<blocklist xmlns='urn:xmpp:blocking'><item/><item jid='example.org'/></blocklist>"), true, false},
		"somebody else":     {result("<blocklist xmlns='urn:xmpp:blocking'><item jid='mercutio@example.org'/></blocklist>"), false, false},
		"nobody":            {result("<blocklist xmlns='urn:xmpp:blocking'/>"), false, false},
		"no block lists":    {inner("service-unavailable"), false, false},
		"an error":          {inner("forbidden"), false, true},
		"no payload":        {result(""), false, true},
		"too many elements": {result("<blocklist xmlns='urn:xmpp:blocking'>" + strings.Repeat("<item jid='a@b.example'/>", 2*xmlstream.MaxElements) + "</blocklist>"), false, true},
		"no answer":         {"", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := presence.New([]string{"example.org"}, known{
				"tybalt@example.org": roster.New([]roster.Item{item(t, "paris@example.org", "")}), "paris@example.org": roster.New(nil),
			}, presence.Limits{Settle: time.Hour})
			r := start(t, only, func(o *Options) {
				if o.Unrestricted, o.Presence, o.Timing.Blocks = true, "auto", time.Hour; tt.answer == "" {
					o.Timing.Blocks = time.Millisecond
				}
			})
			r.Relay(hub)
			k := r.server.serve()
			k.send("%s", delegationOnly+blocking(nsBlocking, "get", nsRoster, "set"))
			k.quiet()
			k.send("<presence from='paris@example.org/tomb' to='contacts.example.org'/><presence from='tybalt@example.org/street' to='contacts.example.org'><status>secret</status></presence>")
			shown := false
			for asked := 0; ; {
				e := k.nextElement()
				if e.Is("jabber:component:accept", "presence") {
					shown = true
					break
				}
				if p := e.Child(nsPrivilege2, "privileged_iq"); p != nil {
					if q := p.Child("jabber:client", "iq"); q == nil || q.Get("type") != "get" || e.Get("type") != "get" || q.Child(nsBlocking, "blocklist") == nil || q.Get("to") != e.Get("to") {
						t.Fatalf("asked %+v", e)
					}
					asked++
					answer := result("<blocklist xmlns='urn:xmpp:blocking'/>") // of paris
					if e.Get("to") == "tybalt@example.org" {
						answer = tt.answer
					} else if tt.answer == "" {
						continue
					}
					if answer != "" {
						k.send("<iq type='result' id='%s' from='%s' to='contacts.example.org'>%s</iq>", e.Get("id"), e.Get("to"), answer)
					}
					if asked == 2 && tt.blocked {
						break
					}
				}
			}
			if tt.blocked {
				k.send("<iq type='set' id='p' from='tybalt@example.org' to='contacts.example.org'><unblock xmlns='urn:xmpp:blocking'/></iq>")
				for e := k.nextElement(); ; e = k.nextElement() {
					if e.Is("jabber:component:accept", "presence") {
						t.Errorf("sent %+v", e)
					}
					if e.Child(nsPrivilege2, "privileged_iq") != nil { // as it has changed
						break
					}
				}
			}
			if shown == tt.blocked {
				t.Errorf("shown %v", shown)
			}
			if got := strings.Contains(r.log.String(), "does not say whom a user has blocked"); got != tt.logged {
				t.Errorf("logged %v", got)
			}
		})
	}
}

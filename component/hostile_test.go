package component

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
)

// strangers are senders that are neither a served host nor juliet's account,
// whatever they look like.
var strangers = []string{
	"romeo@example.org/street", "romeo@example.org", // a user
	"other.example.org", "bot@other.example.org/x", // another component of the server
	"evil.example", "mallory@evil.example", "mallory@evil.example/example.org", // federated
	"contacts.example.org", "contacts.example.org/rosterd", "juliet@contacts.example.org/balcony", // rosterd itself
	"juliet@example.org/balcony/2", "Juliet@example.org", "juliet@example.org.", "juliet@EXAMPLE.org", "juliet@example.com",
	"example.org/", "example.org/x", "@example.org", "EXAMPLE.ORG", "Example.org", "example.org.", ".example.org", " example.org",
	"example.org ", "x.example.org", "example.org.evil.example", "example.org:5347", "example.org@example.org", "example.org%00",
	"\u0435xample.org", "example\u3002org", "example.org\u200b", "\ufeffexample.org", "xn--example-.org", "example.org&#10;", "",
}

// from is the attribute of a sender.
func from(sender string) string {
	if sender == "" {
		return ""
	}
	return " from='" + sender + "'"
}

// hostile is a component with a link on which all is announced, and one push to
// juliet is under way.
func hostile(t *testing.T, change ...func(*Options)) (r *rig, k *link, id string, outcome chan roster.Outcome) {
	t.Helper()
	leak.Check(t)
	return hostiles(t, change...)
}

// hostiles is hostile for one of several tests that run in parallel, see faulty.
func hostiles(t *testing.T, change ...func(*Options)) (r *rig, k *link, id string, outcome chan roster.Outcome) {
	t.Helper()
	patient := func(o *Options) { o.Timing.Answer = time.Hour } // the push is under way all the time
	r = faulty(t, append([]func(*Options){patient, only}, change...)...)
	k = r.server.serve()
	r.announced(t, k)
	k.watch(t)
	outcome = r.push(t, "balcony")
	return r, k, k.nextElement().Get("id"), outcome
}

// unmoved checks that nothing is other than hostile has left it.
func (r *rig) unmoved(t *testing.T, k *link, outcome chan roster.Outcome) {
	t.Helper()
	if len(outcome) != 0 {
		t.Errorf("the push has ended: %+v", <-outcome)
	}
	if got := r.Status().Hosts[0]; got.Query != QueryDelegated || got.Push != PushPrivileged {
		t.Errorf("now %+v", got)
	}
	if got := r.sessions.InterestedOf(mustJID(t, "juliet@example.org")); len(got) != 1 {
		t.Errorf("juliet's resources: %v", got)
	}
	if len(r.rosters.resumed) != 0 {
		t.Errorf("%s resumed", <-r.rosters.resumed)
	}
	r.lives(t, k)
}

const unavailable = "service-unavailable"

// Delegated queries that do not come from the server.
func TestForgedDelegation(t *testing.T) {
	r, k, _, outcome := hostile(t)
	for _, sender := range strangers {
		for _, ns := range []string{nsDelegation1, nsDelegation2} {
			for _, kind := range []string{"get", "set"} {
				forged := delegate(ns, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>")
				k.send("%s", strings.NewReplacer(" from='example.org'", from(sender), "<iq type='set'", "<iq type='"+kind+"'").Replace(forged))
				k.refused(unavailable)
			}
		}
	}
	r.unmoved(t, k, outcome)
}

// Privileged IQs, and what comes back for them, that do not come from the
// server.
func TestForgedPrivilege(t *testing.T) {
	r, k, id, outcome := hostile(t)
	for _, sender := range strangers {
		for _, ns := range []string{nsPrivilege1, nsPrivilege2} {
			k.send("<iq type='set' id='1'%s to='contacts.example.org'><privileged_iq xmlns='%s'><iq xmlns='jabber:client' type='get' id='2' to='%s'>%s</iq></privileged_iq></iq>",
				from(sender), ns, "juliet@example.org", rosterGet)
			k.refused(unavailable)
			k.send("<message%s to='contacts.example.org'><privilege xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='%s' from='%s'/></forwarded></privilege></message>",
				from(sender), ns, id, juliet)
			k.send("<message%s to='contacts.example.org'><privilege xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client' type='unavailable' from='%s'/></forwarded></privilege></message>",
				from(sender), ns, juliet)
		}
	}
	k.quiet()
	r.unmoved(t, k, outcome)
}

// Results and errors from who was not asked.
func TestForgedResults(t *testing.T) {
	r, k, id, outcome := hostile(t)
	for _, sender := range append([]string{"example.org", juliet}, strangers...) {
		for _, kind := range []string{"result", "error"} {
			k.send("<iq type='%s' id='%s'%s to='contacts.example.org'/>", kind, id, from(sender))
			k.send("<iq type='%s' id='%s'%s><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>", kind, id, from(sender), nsStanzas)
			k.send("<iq type='%s' id='%s'%s><privilege xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='%s' from='%s'/></forwarded></privilege></iq>",
				kind, id, from(sender), nsPrivilege2, id, juliet)
			k.send("<iq type='%s'%s/><iq type='%s' id=''%s/>", kind, from(sender), kind, from(sender))
		}
	}
	k.quiet()
	r.unmoved(t, k, outcome)
	k.send("<iq type='result' id='%s' from='juliet@example.org'/>", id)
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
}

// Presences tell of their sender alone, and of nobody who is no user here.
func TestForgedPresence(t *testing.T) {
	r, k, _, outcome := hostile(t)
	before, _ := r.sessions.Counts()
	for _, sender := range strangers {
		if sender == "romeo@example.org/street" || strings.HasPrefix(sender, "juliet@example.org/") {
			continue // who may say so
		}
		for _, kind := range []string{"", "unavailable", "error", "probe", "subscribe", "unsubscribed", "odd", "Unavailable"} {
			attr := ""
			if kind != "" {
				attr = " type='" + kind + "'"
			}
			k.send("<presence%s%s to='contacts.example.org' xmlns:x='urn:x' x:from='%s'><presence from='%s'%s/><delay xmlns='urn:xmpp:delay' from='%s'/></presence>",
				attr, from(sender), juliet, juliet, attr, juliet)
		}
	}
	// To somebody else at the component's domain: no news either.
	k.send("<presence from='romeo@example.org/street' to='x@contacts.example.org'/><presence type='unavailable' from='%s' to='contacts.example.org/x'/>", juliet)
	k.quiet()
	if n, _ := r.sessions.Counts(); n != before {
		t.Errorf("%d sessions, %d before", n, before)
	}
	r.unmoved(t, k, outcome)
}

// Announcements, and messages that come back, from who is no host.
func TestForgedAnnouncement(t *testing.T) {
	r, k, _, outcome := hostile(t)
	for _, sender := range strangers {
		for _, payload := range []string{
			"<delegation xmlns='urn:xmpp:delegation:2'/>", "<delegation xmlns='urn:xmpp:delegation:1'><delegated namespace='urn:other'/></delegation>",
			"<privilege xmlns='urn:xmpp:privilege:2'/>", "<privilege xmlns='urn:xmpp:privilege:1'><perm access='iq'/></privilege>",
			"<delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation>",
			"<privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/><perm access='iq'><namespace ns='jabber:iq:roster' type='both'/></perm></privilege>",
		} {
			for _, kind := range []string{"", " type='normal'", " type='headline'", " type='chat'", " type='groupchat'"} {
				k.send("<message%s%s to='contacts.example.org'>%s</message>", kind, from(sender), payload)
			}
		}
		k.send("<message type='error'%s to='contacts.example.org'><x xmlns='%s'/><error type='cancel'><service-unavailable xmlns='%s'/></error></message>", from(sender), nsExchange, nsStanzas)
	}
	// Nor does a message of the server's that comes back announce anything.
	k.send("<message type='error' from='example.org'><privilege xmlns='urn:xmpp:privilege:2'/><delegation xmlns='urn:xmpp:delegation:2'/></message>")
	k.quiet()
	if n := strings.Count(r.log.String(), "announcement ignored"); n > 16 {
		t.Errorf("%d lines in the log", n)
	}
	r.unmoved(t, k, outcome)
}

// Who asks, and for whose roster: a user gets his own, and nobody anything else.
func TestRostersOfOthers(t *testing.T) {
	r, k, _, outcome := hostile(t)
	var mu sync.Mutex
	asked := make(map[string]int)
	inner := r.rosters.answer
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		mu.Lock()
		asked[full.String()]++
		mu.Unlock()
		return inner(full)
	}
	const romeo = "romeo@example.org/street"
	own := []string{"-", "romeo@example.org", "Romeo@Example.ORG"} // -: none
	to := append([]string{"", "juliet@example.org", juliet, romeo, "romeo@example.org/", "romeo@example.org/x", "nobody@example.org", "example.org", "example.org/juliet",
		"contacts.example.org", "romeo@contacts.example.org", "romeo@example.org.evil.example", "romeo@example.net", "@example.org", "romeo@", "@", "juliet@example.org\u200b",
		"romeo@example.org juliet@example.org", "romeo@example.org,juliet@example.org", strings.Repeat("x", 2000) + "@example.org"}, own...)
	senders := append([]string{romeo}, strangers...)
	for _, sender := range senders {
		if strings.HasPrefix(sender, "juliet@example.org/") {
			continue // who may ask
		}
		for _, address := range to {
			for _, kind := range []string{"get", "set"} {
				attr := " to='" + address + "'"
				if address == "-" {
					attr = ""
				}
				k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='"+kind+"' id='1'"+from(sender)+attr+">"+rosterGet+"</iq>"))
				switch {
				case sender == "contacts.example.org/rosterd": // another rosterd's, see probe
					k.refused("conflict")
				case sender != romeo || !slices.Contains(own, address):
					k.refused("forbidden")
				case kind == "set":
					k.refused("not-allowed")
				default:
					if got := k.refused(""); !strings.Contains(got, "known-to-romeo@") {
						t.Errorf("got %s", got)
					}
				}
			}
		}
	}
	mu.Lock()
	for full := range asked {
		if full != romeo {
			t.Errorf("asked for the roster of %s", full)
		}
	}
	mu.Unlock()
	r.unmoved(t, k, outcome)
}

// What could be taken for another sender, or for a query of another's.
func TestTwoSenders(t *testing.T) {
	r, k, _, outcome := hostile(t)
	const romeo, get = "romeo@example.org/street", "<iq xmlns='jabber:client' type='get' id='1' "
	for name, tt := range map[string]struct{ sent, condition string }{
		"prefixed":                {delegate(nsDelegation2, get+"xmlns:x='urn:x' x:from='"+juliet+"' from='"+romeo+"' x:to='juliet@example.org'>"+rosterGet+"</iq>"), ""},
		"prefix nobody declared":  {delegate(nsDelegation2, get+"x:from='"+juliet+"' from='"+romeo+"'>"+rosterGet+"</iq>"), ""},
		"prefix of nothing":       {delegate(nsDelegation2, get+"xmlns:x='' x:from='"+juliet+"' from='"+romeo+"'>"+rosterGet+"</iq>"), "bad-request"},
		"twice":                   {delegate(nsDelegation2, get+"from='"+juliet+"' from='"+romeo+"'>"+rosterGet+"</iq>"), "bad-request"},
		"addressed twice":         {delegate(nsDelegation2, get+"from='"+romeo+"' to='romeo@example.org' to='juliet@example.org'>"+rosterGet+"</iq>"), "bad-request"},
		"two forwarded":           {delegate(nsDelegation2, get+"from='"+romeo+"'>"+rosterGet+"</iq></forwarded><forwarded xmlns='urn:xmpp:forward:0'>"+get+"from='"+juliet+"'>"+rosterGet+"</iq>"), ""},
		"two queries":             {delegate(nsDelegation2, get+"from='"+romeo+"'>"+rosterGet+"</iq>"+get+"from='"+juliet+"'>"+rosterGet+"</iq>"), ""},
		"a query within":          {delegate(nsDelegation2, get+"from='"+romeo+"'>"+get+"from='"+juliet+"'>"+rosterGet+"</iq></iq>"), unavailable},
		"a delegation within":     {delegate(nsDelegation2, get+"from='"+romeo+"'>"+delegate(nsDelegation2, get+"from='"+juliet+"'>"+rosterGet+"</iq>")+"</iq>"), unavailable},
		"items in the query":      {delegate(nsDelegation2, get+"from='"+romeo+"'><query xmlns='jabber:iq:roster' from='"+juliet+"'><item jid='juliet@example.org'/></query></iq>"), ""},
		"a client's own stanza":   {delegate(nsDelegation2, strings.Replace(get, "jabber:client", "jabber:component:accept", 1)+"from='"+romeo+"'>"+rosterGet+"</iq>"), "bad-request"},
		"no namespace of its own": {delegate(nsDelegation2, "<iq type='get' id='1' from='"+romeo+"'>"+rosterGet+"</iq>"), "bad-request"},
		"another forward":         {strings.Replace(queryOf(romeo, "1"), "urn:xmpp:forward:0", "urn:xmpp:forward:1", 1), "bad-request"},
		"another version":         {strings.Replace(queryOf(romeo, "1"), nsDelegation2, "urn:xmpp:delegation:3", 1), unavailable},
		"not a set":               {strings.Replace(queryOf(romeo, "1"), "type='set'", "type='get'", 1), unavailable},
		"beside it":               {strings.Replace(queryOf(romeo, "1"), "</delegation>", "</delegation><x/>", 1), unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			k.t = t
			k.send("%s", tt.sent)
			if got := k.refused(tt.condition); strings.Contains(got, "known-to-juliet") {
				t.Errorf("got %s", got)
			}
		})
	}
	k.t = t
	r.unmoved(t, k, outcome)
}

// oddQueries are roster gets and sets, made so that they are hard to read.
func oddQueries() map[string]struct{ attrs, payload, condition string } {
	attributes := func(n int) string {
		var b []byte
		for i := range n {
			b = append(strconv.AppendInt(append(b, " a"...), int64(i), 10), "=''"...)
		}
		return string(b)
	}
	deep := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	in := func(attrs, children string) string {
		return "<query xmlns='jabber:iq:roster'" + attrs + ">" + children + "</query>"
	}
	const get, set, noID = " type='get' id='1'", " type='set' id='1'", " type='get'"
	return map[string]struct{ attrs, payload, condition string }{
		"plain":                             {get, rosterGet, ""},
		"50,000 attributes":                 {get, in(attributes(50_000), ""), ""},
		"a million attributes":              {get, in(attributes(1_000_000), ""), "policy-violation"},
		"200,000 attributes, set":           {set, in(attributes(200_000), ""), "policy-violation"},
		"200,000 attributes of the IQ":      {get + attributes(200_000), rosterGet, "policy-violation"},
		"nested 10,000 deep":                {get, in("", deep(10_000)), ""},
		"nested 10,000 deep, set":           {set, in("", deep(10_000)), "not-allowed"},
		"nested 10,000 deep in its place":   {get, deep(10_000), unavailable},
		"400,000 elements":                  {get, in("", strings.Repeat("<a/>", 400_000)), "policy-violation"},
		"10,000 elements":                   {get, in("", strings.Repeat("<item/>", 10_000)), ""},
		"10,000 payloads":                   {get, strings.Repeat(rosterGet, 10_000), "bad-request"},
		"a prefix":                          {get, "<r:query xmlns:r='jabber:iq:roster'/>", ""},
		"prefixes declared again":           {get, "<r:query xmlns:r='jabber:iq:roster'><r:x xmlns:r='urn:x'><r:y xmlns:r='jabber:iq:roster'/></r:x></r:query>", ""},
		"a prefix like an element":          {get, "<query:query xmlns:query='jabber:iq:roster' query:query=''/>", ""},
		"a prefix nobody declared":          {get, "<r:query/>", unavailable},
		"foreign attributes":                {get, in(" xmlns:x='urn:x' x:type='set' x:ver='1' ver='' xml:lang='de'", ""), ""},
		"foreign elements":                  {get, in("", "<x xmlns='urn:x'/><query xmlns='jabber:iq:private'/>"), ""},
		"foreign namespace":                 {get, "<query xmlns='jabber:iq:roster '/>", unavailable},
		"no namespace":                      {get, "<query xmlns=''/>", unavailable},
		"the stream's namespace":            {get, "<query xmlns='http://etherx.jabber.org/streams'/>", unavailable},
		"a stream error":                    {get, "<error xmlns='http://etherx.jabber.org/streams'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>", unavailable},
		"another element":                   {get, "<Query xmlns='jabber:iq:roster'/>", unavailable},
		"white space around":                {get, "\n\t " + rosterGet + "\r\n", ""},
		"text around":                       {get, "x" + rosterGet + "]]&gt;", ""},
		"CDATA":                             {get, "<![CDATA[<query/>]]>" + in("", "<![CDATA[</query></iq>]]>"), ""},
		"CDATA that looks like its end":     {get, in("", "<![CDATA[]]]]><![CDATA[>]]>"), ""},
		"comments":                          {get, "<!-- </iq> -->" + in("", "<!-- '\" -->") + "<!---->", ""},
		"no id":                             {noID, rosterGet, ""},
		"no id, set":                        {" type='set'", rosterGet, "not-allowed"},
		"an empty id":                       {" type='get' id=''", rosterGet, ""},
		"an id of quotes and breaks":        {" type='get' id='&apos;&quot;&lt;&gt;&amp;&#10;&#9;&#13;\u2028\U0010ffff'", rosterGet, ""},
		"characters XML forbids":            {get, in("", "\ufffe\uffff"), "bad-request"},
		"characters XML forbids, escaped":   {get, in(" a='&#x0;&#xb;'", "&#xFFFF;"), "bad-request"},
		"noncharacters and such":            {get, in("", "\u0085\u2028\ufeff\u202e\U0001fffe"), ""},
		"an entity of nobody":               {get, in("", "&lol;"), "bad-request"},
		"add":                               {set, in("", "<item jid='mallory@evil.example'/>"), "not-allowed"},
		"add with name and groups":          {set, in("", "<item jid='nurse@example.org' name='N'><group>Servants</group></item>"), "not-allowed"},
		"rename":                            {set, in("", "<item jid='known-to-romeo@example.org' name='X'/>"), "not-allowed"},
		"remove":                            {set, in("", "<item jid='known-to-romeo@example.org' subscription='remove'/>"), "not-allowed"},
		"remove of nobody":                  {set, in("", "<item jid='nobody@example.org' subscription='remove'/>"), "not-allowed"},
		"subscription from the client":      {set, in("", "<item jid='juliet@example.org' subscription='both' ask='subscribe' approved='true'/>"), "not-allowed"},
		"two items":                         {set, in("", "<item jid='a@example.org'/><item jid='b@example.org'/>"), "not-allowed"},
		"no item":                           {set, in("", ""), "not-allowed"},
		"an item without JID":               {set, in("", "<item/>"), "not-allowed"},
		"an item whose JID is none":         {set, in("", "<item jid='@'/>"), "not-allowed"},
		"oneself":                           {set, in("", "<item jid='romeo@example.org'/>"), "not-allowed"},
		"a name of 500 KB":                  {set, in("", "<item jid='a@example.org' name='"+strings.Repeat("x", 500_000)+"'/>"), "not-allowed"},
		"a set without payload":             {set, "", "bad-request"},
		"a set of something else":           {set, "<query xmlns='jabber:iq:private'/>", unavailable},
		"a type in capitals":                {" type='GET' id='1'", rosterGet, "bad-request"},
		"no type":                           {" id='1'", rosterGet, "bad-request"},
		"a result that the server forwards": {" type='result' id='1'", rosterGet, "bad-request"},
	}
}

// However a query is written, it has one answer, and the stream lives.
func TestOddQueries(t *testing.T) {
	leak.Check(t)
	for name, odd := range oddQueries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, k, _, outcome := hostiles(t)
			defer r.unmoved(t, k, outcome)
			k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' from='romeo@example.org/street'"+odd.attrs+">"+odd.payload+"</iq>"))
			k.refused(odd.condition)
			// The same to the component itself, where nothing is delegated.
			if !strings.Contains(odd.attrs, "'get'") && !strings.Contains(odd.attrs, "'set'") {
				return // neither get nor set: no answer
			}
			condition := odd.condition
			switch {
			case strings.Contains(odd.attrs, " a1="):
				return // not even its opening tag can be read
			case odd.payload == "" || strings.HasPrefix(odd.payload, rosterGet+rosterGet):
				condition = unavailable // no request that is known
			}
			k.send("%s", "<iq to='contacts.example.org' from='romeo@example.org/street'"+odd.attrs+">"+odd.payload+"</iq>")
			k.refused(condition)
		})
	}
}

// The same id many times is as many queries, each with its answer.
func TestSameIDTwice(t *testing.T) {
	r, k, id, outcome := hostile(t)
	const romeo = "romeo@example.org/street"
	for range 10 {
		k.send("%s", queryOf(romeo, "1"))
		k.send("%s", queryOf(romeo, id)) // one that rosterd uses itself
	}
	for i := range 20 {
		want := []string{"1", id}[i%2]
		if got := k.next(); !strings.Contains(got, "<iq xmlns='jabber:client' type='result' id='"+want+"' to='"+romeo+"'>") || !strings.Contains(got, "known-to-romeo") {
			t.Errorf("got %s", got)
		}
	}
	k.quiet()
	r.unmoved(t, k, outcome)
}

// An id of 100 KB cannot be repeated: the server would end the stream.
func TestLongID(t *testing.T) {
	r, k, _, outcome := hostile(t)
	for _, long := range []string{strings.Repeat("x", 100_000), strings.Repeat("&apos;", 20_000), strings.Repeat("\U0001f600", 25_000)} {
		for _, kind := range []string{"get", "set"} {
			k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='"+kind+"' from='romeo@example.org/street' id='"+long+"'>"+rosterGet+"</iq>"))
			if got := k.refused("bad-request"); len(got) > 1000 {
				t.Errorf("%d bytes of answer", len(got))
			}
			// To the component itself: no answer could be matched.
			k.send("<iq type='%s' from='romeo@example.org/street' id='%s'>%s</iq>", kind, long, rosterGet)
			k.quiet()
		}
	}
	r.unmoved(t, k, outcome)
}

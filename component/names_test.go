package component

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/xmlstream"
)

// stamping has the server answer, for example.org, how it stamps names.
func (k *link) stamping(how string) {
	k.t.Helper()
	k.all = true
	k.send("<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation>" +
		"<privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/></privilege></message>")
	asked := k.nextElement()
	from := asked.Get("to")
	if !strings.HasPrefix(from, "Rosterd-Asks-For-Nobody-") {
		k.t.Fatalf("asked %s", from)
	}
	if how == stampsPrepared {
		from = strings.ToLower(from)
	}
	k.send("<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>", asked.Get("id"), from, nsStanzas)
	k.all = false
	k.quiet()
}

// asks sends the query of a resource.
func (k *link) asks(full string) string {
	k.t.Helper()
	k.send("%s", queryOf(full, "1"))
	return k.next()
}

// Whose roster somebody is given whom the server stamped with a name, and who is
// refused: on a server that prepares names, on one that does not, and on one of
// which that is not known.
func TestWhoseNameItIs(t *testing.T) {
	for _, tt := range []struct{ name, stamped, prepared, typed, unknown string }{ // the accounts; "": refused
		{"as it is", "juliet", "juliet", "juliet", "juliet"},
		{"capitals", "JuLiet", "juliet", "juliet", "juliet"},
		{"capitals that are not ASCII", "\u00C4GIDIUS", "", "\u00E4gidius", "\u00E4gidius"},
		{"decomposed", "rene\u0301", "", "ren\u00E9", "ren\u00E9"},
		{"sharp s", "gro\u00DF", "", "gross", ""},
		{"final sigma", "\u03C7\u03C1\u03B7\u03C3\u03C4\u03BF\u03C2", "", "\u03C7\u03C1\u03B7\u03C3\u03C4\u03BF\u03C3", ""},
		{"superscript", "m\u00B3", "", "m3", ""},
		{"ligature", "\uFB02ora", "", "flora", ""},
		{"soft hyphen", "ti\u00ADbalt", "", "tibalt", ""},
		{"symbols", "\u2665\u20AC", "\u2665\u20AC", "\u2665\u20AC", "\u2665\u20AC"},
		{"a letter that Unicode 3.2 does not know", "\u023A", "\u023A", "\u023A", "\u023A"},
		{"the small one", "\u2C65", "\u2C65", "\u2C65", "\u2C65"},
		{"marks in order", "q\u0323\u0301", "q\u0323\u0301", "q\u0323\u0301", "q\u0323\u0301"},
		{"marks that ejabberd orders otherwise", "q\u0301\u0316\u0334", "", "", ""},
		{"the same, in order", "q\u0334\u0316\u0301", "q\u0334\u0316\u0301", "q\u0334\u0316\u0301", "q\u0334\u0316\u0301"},
		{"a sign that ejabberd folds otherwise", "\u33C6", "", "", ""},
		{"no name", "a\u2100b", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, account := range map[string]string{stampsPrepared: tt.prepared, stampsTyped: tt.typed, "": tt.unknown} {
				r := fault(t)
				k := r.server.serve()
				if how != "" {
					k.stamping(how)
				}
				full := tt.stamped + "@example.org/r"
				got := k.asks(full)
				refused := r.counted(t, "rosterd_queries_total", queryAmbiguous)
				if account == "" {
					if !strings.Contains(got, "<forbidden ") || strings.Contains(got, "known-to-") || refused != 1 || !strings.Contains(r.log.String(), "level=WARN msg=\"a user is not served") {
						t.Errorf("%q: %v refused, got %s", how, refused, got)
					}
					continue
				}
				if !strings.Contains(got, "'known-to-"+account+"@example.org'") || !strings.Contains(got, " to='"+full+"'") || refused != 0 {
					t.Errorf("%q: %v refused, got %s", how, refused, got)
				}
			}
		})
	}
}

// Clients of one user in several spellings are one user's; each is pushed to, pinged
// and sent presence by the name that it was given, and no other.
func TestPushesGoToTheNameThatWasStamped(t *testing.T) {
	for _, way := range []string{PushPrivileged, PushDirect, PushExchange} {
		t.Run(way, func(t *testing.T) {
			r := start(t, func(o *Options) { o.Unrestricted = way == PushDirect })
			k := r.server.serve()
			r.goes(t, k, way)
			k.asks("Juliet@Example.ORG/a")
			k.asks("juliet@example.org/b")
			to := []jid.JID{mustJID(t, "juliet@example.org/a"), mustJID(t, "juliet@example.org/b")}
			settled := make(chan roster.Outcome, 1)
			done := make(chan error, 1)
			go func() {
				done <- r.Push(to, []roster.Change{{Action: roster.Added, Item: item(t, "romeo@example.org", "")}}, func(o roster.Outcome) { settled <- o })
			}()
			for _, bare := range []string{"Juliet@Example.ORG", "juliet@example.org"} {
				got := k.next()
				want := []string{" to='" + bare + "/"}
				switch way {
				case PushPrivileged:
					want = append(want, " to='"+bare+"'")
				case PushDirect:
					want = append(want, " from='"+bare+"'")
				}
				for _, want := range want {
					if !strings.Contains(got, want) {
						t.Errorf("want %s in %s", want, got)
					}
				}
				if way == PushPrivileged {
					e, _ := xmlstream.Decode([]byte(got))
					k.send("<iq type='result' id='%s' from='%s'/>", e.Get("id"), bare)
				}
			}
			if way != PushPrivileged {
				e := k.nextElement()
				k.send("<iq type='result' id='%s' from='%s'/>", e.Get("id"), e.Get("to"))
			}
			if o := receive(t, settled); o.Err != nil {
				t.Error(o.Err)
			}
			if err := receive(t, done); err != nil {
				t.Error(err)
			}
			if users := r.sessions.Users("example.org"); len(users) != 1 {
				t.Errorf("users %v", users)
			}
		})
	}
}

// A budget of queries is the user's, not the spelling's.
func TestOneBudgetForAllSpellings(t *testing.T) {
	r := start(t, func(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 2, 0.001 })
	k := r.server.serve()
	for i, spelling := range []string{"juliet", "Juliet", "jULIET"} {
		if got := k.asks(spelling + "@example.org/x"); strings.Contains(got, "<resource-constraint ") != (i == 2) {
			t.Errorf("query %d: %s", i, got)
		}
	}
}

// A session whose place another one has taken, in another spelling, does not take
// that with it when its end is told late.
func TestEndOfAnotherSpelling(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.send("<presence from='JULIET@example.org/x'/><presence from='juliet@example.org/x'/><presence type='unavailable' from='JULIET@example.org/x'/>")
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	k.send("<presence type='unavailable' from='juliet@example.org/x'/>")
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// The server may know its domains in U-labels or in A-labels: what it is sent has
// its own spelling, inside rosterd there is one.
func TestDomainsInEitherSpelling(t *testing.T) {
	const u, a = "b\u00FCcher.example", "xn--bcher-kva.example"
	for _, spelling := range []string{u, a} {
		t.Run(spelling, func(t *testing.T) {
			r := start(t, func(o *Options) { o.Hosts, o.Unrestricted = []string{u}, true })
			r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
				if full.Domain() != u {
					t.Errorf("user %s", full)
				}
				return roster.New([]roster.Item{item(t, "romeo@"+u, ""), item(t, "far@m\u00FCller.example", "")}), nil
			}
			r.server.probes = 2 // of both spellings, as nothing is known
			k := r.server.serve()
			k.send("<message from='%s'><delegation xmlns='urn:xmpp:delegation:1'><delegated namespace='jabber:iq:roster'/></delegation><privilege xmlns='urn:xmpp:privilege:1'/></message>", spelling)
			k.send("<iq type='set' id='D' from='%s' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'>"+
				"<iq xmlns='jabber:client' type='get' id='1' from='juliet@%s/x' to='juliet@%s'>%s</iq></forwarded></delegation></iq>", spelling, spelling, spelling, rosterGet)
			got := k.next()
			for _, want := range []string{" jid='romeo@" + spelling + "'", " jid='far@m\u00FCller.example'", " from='juliet@" + spelling + "'", " to='juliet@" + spelling + "/x'"} {
				if !strings.Contains(got, want) {
					t.Errorf("want %s in %s", want, got)
				}
			}
			go r.Push([]jid.JID{mustJID(t, "juliet@"+u+"/x")}, []roster.Change{{Action: roster.Removed, Item: item(t, "romeo@"+u, "")}}, func(roster.Outcome) {})
			got = k.next()
			for _, want := range []string{" jid='romeo@" + spelling + "'", " from='juliet@" + spelling + "'", " to='juliet@" + spelling + "/x'"} {
				if !strings.Contains(got, want) {
					t.Errorf("want %s in %s", want, got)
				}
			}
			for _, host := range r.Status().Hosts {
				if host.Host != u || !host.Delegation {
					t.Errorf("%+v", host)
				}
			}
		})
	}
}

// Names that fold into a served domain, and that the server tells apart from it,
// are of somebody else's server.
func TestForeignDomains(t *testing.T) {
	r := fault(t)
	k := r.server.serve()
	for _, domain := range []string{"example.org.", "\u24D4xample.orgs", "example\u3002orgs", "xn--example-.org", "sub.example.org"} {
		if got := k.asks("romeo@" + domain + "/x"); !strings.Contains(got, "<forbidden ") {
			t.Errorf("%s: %s", domain, got)
		}
	}
	k.quiet()
}

// What the servers make of two names, and nobody reads the roster of another
// account: whom they tell apart, rosterd does not take for one user.
func FuzzNobodyElsesName(f *testing.F) {
	for _, pair := range [][2]string{
		{"juliet", "Juliet"}, {"stra\u00DFe", "strasse"}, {"\u023A", "\u2C65"}, {"\u33C6", "c\u2215kg"}, {"\u33C6", "C\u2215kg"}, {"\u1E9E", "\u00DF"},
		{"q\u0334\u0316\u0301", "q\u0301\u0316\u0334"}, {"q\u0316\u0301\u0334", "q\u0334\u0316\u0301"}, {"\u0E4B\u034C\u3099", "\u3099\u0E4B\u034C"},
		{"\u00E9\u0316", "e\u0316\u0301"}, {"\u1EC5", "e\u0303\u0302"}, {"\u2F868", "\U0002136A"}, {"\u32FF", "\u4EE4\u548C"}, {"\u0131", "i"}, {"\u0130", "i\u0307"},
		{"a\u00ADb", "ab"}, {"\u1806a", "a"}, {"\uFF21", "a"}, {"\u03C2", "\u03C3"}, {"\uFB01", "fi"}, {"\u212A", "k"}, {"\u1100\u1161", "\uAC00"},
	} {
		f.Add(pair[0], pair[1])
	}
	hosts := []string{"example.org"}
	c := New(Options{Domain: "contacts.example.org", Hosts: hosts}, session.NewTable())
	streams := make(map[string]*stream)
	for _, how := range []string{stampsPrepared, stampsTyped, ""} {
		s := &stream{iqs: newTracker(time.Minute, ""), grants: newGrants(hosts, nil)}
		s.grants.change("example.org", func(g *grant) { g.queries, g.stamps = queriesArrive, how })
		streams[how] = s
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsAny(a+b, "@/") {
			return
		}
		for how, s := range streams {
			one, err := c.sender(s, a+"@example.org/x")
			other, err2 := c.sender(s, b+"@example.org/x")
			if err != nil || err2 != nil {
				continue
			}
			if again, err := jid.Parse(one.full.Bare().String()); err != nil || again != one.full.Bare() {
				t.Errorf("%+q is %s, and that %s, %v", a, one.full, again, err)
			}
			if one.full != other.full {
				continue
			}
			notASCII := func(r rune) bool { return r > 0x7F } // in ASCII the case may differ
			if how == stampsPrepared && a != b && strings.ContainsFunc(a+b, notASCII) {
				t.Errorf("a server that prepares names stamped %+q and %+q, and both are %s", a, b, one.full)
			}
			if x, y := ejabberdName(a), ejabberdName(b); x != y {
				t.Errorf("%q: %+q is %+q to ejabberd, %+q is %+q, and both are %s", how, a, x, b, y, one.full)
			}
		}
	})
}

// ejabberdName tells names apart as ejabberd does (its library stringprep): it is
// the name folded and decomposed, with its marks in the order that they get there.
// A mark goes before those of a higher class, but only as long as the first of them
// has a higher one, too.
func ejabberdName(s string) string {
	var marks []rune
	for _, r := range s {
		folded, ok := []rune("C\u2215kg"), r == '\u33C6'
		for _, m := range []stringprep.Mapping{{0x1806: {}}, stringprep.TableB1, stringprep.TableB2} {
			if !ok {
				folded, ok = m.Map(r)
			}
		}
		if !ok {
			folded = []rune{r}
		}
		if stringprep.TableA1.Contains(r) {
			marks = append(marks, r) // ejabberd has no such names, Prosody leaves them as they are
			continue
		}
		marks = append(marks, []rune(norm.NFKD.String(string(folded)))...)
	}
	class := func(r rune) uint8 {
		if stringprep.TableA1.Contains(r) {
			return 0
		}
		return norm.NFKD.PropertiesString(string(r)).CCC()
	}
	var name []rune
	for len(marks) > 0 {
		run := []rune{marks[0]}
		first := class(marks[0])
		for marks = marks[1:]; len(marks) > 0 && class(marks[0]) != 0 && class(marks[0]) < first; marks = marks[1:] {
			at := len(run)
			for at > 0 && class(run[at-1]) > class(marks[0]) {
				at--
			}
			run = slices.Insert(run, at, marks[0])
		}
		name = append(name, run...)
	}
	return string(name)
}

func BenchmarkSender(b *testing.B) {
	hosts := []string{"example.org"}
	c := New(Options{Domain: "contacts.example.org", Hosts: hosts}, session.NewTable())
	s := &stream{iqs: newTracker(time.Minute, ""), grants: newGrants(hosts, nil)}
	for _, from := range []string{"juliet@example.org/balcony", "Juliet@example.org/balcony", "j\u00FCrgen@example.org/balcony"} {
		b.Run(fmt.Sprintf("%+q", from), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.sender(s, from); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The server may know the component's own domain in the other spelling, and keeps
// it.
func TestOwnDomainInEitherSpelling(t *testing.T) {
	const u, a = "contacts.b\u00FCcher.example", "contacts.xn--bcher-kva.example"
	for known, conditions := range map[string]string{u: "host-unknown", a: "not-authorized"} {
		t.Run(known, func(t *testing.T) {
			r := start(t, func(o *Options) { o.Domain = u })
			var tried []string
			for range 3 {
				k := &link{t: t, Conn: r.server.connection()}
				k.f = xmlstream.NewReader(k, 1<<20)
				header, err := k.f.Header()
				if err != nil {
					t.Fatal(err)
				}
				k.send("<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s1'>")
				spelling := u
				if strings.Contains(string(header), " to='"+a+"'") {
					spelling = a
				}
				if tried = append(tried, spelling); spelling != known {
					k.send("<stream:error><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>", conditions)
					k.Close()
					continue
				}
				if got, _, err := k.f.Next(); err != nil || !strings.HasPrefix(string(got), "<handshake>") {
					t.Fatalf("%s, %v", got, err)
				}
				k.send("<handshake/>")
				if got, _, err := k.f.Next(); err != nil || !strings.Contains(string(got), " from='"+known+"/rosterd'") {
					t.Errorf("got %s, %v", got, err)
				}
				k.Close()
			}
			want := []string{u, u, u}
			if known == a {
				want = []string{u, a, a}
			}
			if !slices.Equal(tried, want) {
				t.Errorf("tried %q, want %q", tried, want)
			}
		})
	}
}

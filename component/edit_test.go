package component

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rosterd/roster"
)

// editable lets users of example.org change their contacts.
func editable(o *Options) { o.Edits = func(host string) bool { return host == "example.org" } }

// setOf is a roster set of tybalt's, as his server forwards it.
func setOf(query string) string {
	return delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='1' from='tybalt@example.org/street'><query xmlns='jabber:iq:roster'>"+query+"</query></iq>")
}

// What a set asks for, or why it cannot be.
func TestEditOf(t *testing.T) {
	r := start(t, only, editable)
	r.rosters.refused = make(chan string, 100)
	k := r.server.serve()
	r.announced(t, k)
	n := func(s string, n int) string { return strings.Repeat(s, n) }
	var many strings.Builder
	for i := range 600 {
		fmt.Fprintf(&many, "<group>%d</group>", i)
	}
	for _, c := range []struct{ name, query, want string }{
		{"all", "<item jid='Nurse@Example.org' name='N&lt;&amp;&#x9;&#x202e;' subscription='both' ask='subscribe' approved='true'><group>B</group><x xmlns='urn:x'>C</x><group>A&lt;<![CDATA[&]]><!-- --><g>D</g></group></item>",
			"nurse@example.org \"N<&\\t\\u202e\" [\"A<&\" \"B\"] false"},
		{"the contact alone", "<item jid='example.net'/>", `example.net "" [] false`},
		{"beside something else", "<x xmlns='urn:x'/><item jid='a@b'/>", `a@b "" [] false`},
		{"remove", "<item jid='nurse@example.org' name='N' subscription='remove'><group/></item>", `nurse@example.org "" [] true`},
		{"long", "<item jid='a@b' name='" + n("n", maxName) + "'><group>" + n("g", maxName) + "</group></item>", fmt.Sprintf("a@b %q [%q] false", n("n", maxName), n("g", maxName))},
		{"nothing", "", "bad-request"},
		{"two", "<item jid='a@b'/><item jid='c@d'/>", "bad-request"},
		{"of another name", "<item xmlns='urn:x' jid='a@b'/>", "bad-request"},
		{"no JID", "<item/>", "bad-request"},
		{"none that is one", "<item jid='@'/>", "bad-request"},
		{"a resource", "<item jid='a@b/c'/>", "bad-request"},
		{"themselves", "<item jid='Tybalt@example.org'/>", "not-allowed"},
		{"not even away", "<item jid='tybalt@example.org' subscription='remove'/>", "not-allowed"},
		{"a group twice", "<item jid='a@b'><group>A</group><group>B</group><group>A</group></item>", "bad-request"},
		{"an empty group", "<item jid='a@b'><group/></item>", "not-acceptable"},
		{"a long group", "<item jid='a@b'><group>" + n("g", maxName+1) + "</group></item>", "not-acceptable"},
		{"a long name", "<item jid='a@b' name='" + n("ü", maxName/2+1) + "'/>", "not-acceptable"},
		{"many groups", "<item jid='a@b'>" + many.String() + "</item>", "not-acceptable"},
		{"more elements than are read", "<item jid='a@b'>" + n("<group>a</group>", 2000) + "</item>", "bad-request"},
		{"a group in a group", "<item jid='a@b'><group>A<group>B</group></group></item>", "bad-request"},
		{"a group elsewhere", "<group>A</group><item jid='a@b'/>", "bad-request"},
		{"a megabyte", "<item jid='a@b' name='" + n("n", 900<<10) + "'/>", "not-acceptable"},
		{"in pieces", "<item jid='a@b'><group>" + n("a<!---->", 25<<10) + "</group></item>", "not-acceptable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.t = t
			k.send("%s", strings.ReplaceAll(setOf(c.query), "%", "%%"))
			if !strings.Contains(c.want, " ") {
				k.refused(c.want)
				return
			}
			e := receive(t, r.rosters.edits)
			if got := fmt.Sprintf("%v %q %q %v", e.Contact.JID, e.Contact.Name, e.Contact.Groups, e.Remove); got != c.want || !e.Confirm || e.full.String() != "tybalt@example.org/street" {
				t.Errorf("%s %v: %s, want %s", e.full, e.Confirm, got, c.want)
			}
			e.reply(nil)
			k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='1' to='tybalt@example.org/street'></iq>"))
		})
	}
	if len(r.rosters.edits) > 0 {
		t.Errorf("asked for %+v", <-r.rosters.edits)
	}
}

// Who asked is told what became of it, and what is true if it did not happen.
func TestEditAnswers(t *testing.T) {
	for _, c := range []struct {
		name      string
		err       error
		condition string // and its type
		text      string
		edited    string
		query     string
	}{
		{"taken", nil, "", "", editOK, queryOK},
		{"refused", &roster.NotAllowedError{Message: "Nein, <b>&"}, "cancel not-allowed", "<text xmlns='" + nsStanzas + "'>Nein, &lt;b&gt;&amp;</text>", editRefused, querySet},
		{"refused without a word", &roster.NotAllowedError{}, "cancel not-allowed", "xml:lang='en'>" + editRefusedText, editRefused, querySet},
		{"failed", errors.New("connection refused"), "wait internal-server-error", "", editFailed, queryFailed},
		{"late", roster.ErrOverdue, "wait remote-server-timeout", "", editFailed, queryOverdue},
		{"busy", fmt.Errorf("429: %w", roster.ErrBusy), "wait resource-constraint", "", editFailed, queryBusy},
		{"stopping", roster.ErrStopping, "wait internal-server-error", "", editFailed, queryFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, only, editable)
			r.rosters.refused = make(chan string, 10)
			k := r.server.serve()
			r.announced(t, k)
			for plain, set := range map[bool]string{
				false: setOf("<item jid='nurse@example.org'/>"),
				true:  "<iq type='set' id='2' from='tybalt@example.org/street' to='contacts.example.org'><query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query></iq>",
			} {
				k.send("%s", set)
				receive(t, r.rosters.edits).reply(c.err)
				kind, condition, _ := strings.Cut(c.condition, " ")
				got := k.refused(condition)
				if !strings.Contains(got, "type='"+kind) || !strings.Contains(got, c.text) || c.text == "" && strings.Contains(got, "<text") {
					t.Errorf("plain %v: got %s", plain, got)
				}
				if c.err != nil {
					if got := receive(t, r.rosters.refused); got != "tybalt@example.org/street [nurse@example.org]" {
						t.Errorf("refused %s", got)
					}
				}
			}
			if n := r.counted(t, "rosterd_edits_total", c.edited); n != 2 {
				t.Errorf("counted %v edits", n)
			}
			if n := r.counted(t, "rosterd_queries_total", c.query); n != 2 {
				t.Errorf("counted %v queries", n)
			}
			if len(r.rosters.refused) > 0 {
				t.Errorf("refused %s", <-r.rosters.refused)
			}
		})
	}
}

// Nobody edits somebody else's roster, nor one of a host without edits, nor more than their
// budget: and what is refused at once is undone at once.
func TestEditsOfOthers(t *testing.T) {
	r := start(t, editable, func(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 3, 0.0001 })
	r.rosters.refused = make(chan string, 10)
	k := r.server.serve()
	r.announced(t, k)
	set := func(from, to string) string {
		return strings.Replace(setOf("<item jid='nurse@example.org'/>"), "from='tybalt@example.org/street'", "from='"+from+"' to='"+to+"'", 1)
	}
	k.send("%s", set("tybalt@example.org/street", "romeo@example.org"))
	k.refused("forbidden")
	k.send("%s", set("romeo@example.net/x", "romeo@example.net"))
	k.refused("forbidden")
	k.send("<iq type='set' id='2' from='romeo@example.net/x' to='contacts.example.org'><query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query></iq>")
	k.refused("not-allowed")
	if got := receive(t, r.rosters.refused); got != "romeo@example.net/x [nurse@example.org]" {
		t.Errorf("refused %s", got)
	}
	r.rosters.busy = roster.ErrBusy
	k.send("%s", set("tybalt@example.org/street", "tybalt@example.org"))
	k.refused("resource-constraint")
	receive(t, r.rosters.refused)
	r.rosters.busy = nil
	k.send("%s", set("tybalt@example.org/street", "tybalt@example.org"))
	receive(t, r.rosters.edits)
	for range 1000 {
		k.send("%s", set("tybalt@example.org/street", "tybalt@example.org"))
		if got := k.next(); !strings.Contains(got, "resource-constraint") {
			t.Fatalf("got %s", got)
		}
		<-r.rosters.refused
	}
	if len(r.rosters.edits) > 0 {
		t.Errorf("asked for %+v", <-r.rosters.edits)
	}
}

// An answer that comes when the stream is lost is given to the next one, if there is one.
func TestEditOverAStream(t *testing.T) {
	r := start(t, only, editable)
	k := r.server.serve()
	r.announced(t, k)
	k.send("%s", setOf("<item jid='nurse@example.org'/>"))
	e := receive(t, r.rosters.edits)
	k.send("%s", setOf("<item jid='nurse@example.org'/>"))
	late := receive(t, r.rosters.edits)
	k.Close()
	e.reply(nil)
	k = r.server.serve()
	r.announced(t, k)
	late.reply(nil)
	k.refused("")
}

// Where changes are suggested, nothing is to be told again.
func TestEditWhereChangesAreSuggested(t *testing.T) {
	r := start(t, only, editable)
	r.rosters.refused = make(chan string, 10)
	k := r.server.serve()
	k.send("%s", delegationOnly+noPrivilege+setOf("<item jid='nurse@example.org'/>"))
	if e := receive(t, r.rosters.edits); e.Confirm {
		t.Error("to be confirmed")
	} else {
		e.reply(errors.New("no"))
	}
	k.refused("internal-server-error")
	if len(r.rosters.refused) > 0 {
		t.Errorf("refused %s", <-r.rosters.refused)
	}
}

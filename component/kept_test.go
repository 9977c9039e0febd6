package component

import (
	"encoding/xml"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/xmlstream"
)

// keeper is a manager that keeps all it is given, as one with queries that wait
// does.
type keeper struct {
	kept []any
}

func (k *keeper) Get(full jid.JID, version *string, reply roster.Reply) error {
	k.kept = append(k.kept, full, version, reply)
	return nil
}
func (k *keeper) Undelivered(full jid.JID)                     { k.kept = append(k.kept, full) }
func (k *keeper) Edit(jid.JID, roster.Edit, func(error)) error { return roster.ErrStopping }

func (k *keeper) Refused(jid.JID, []jid.JID) {}
func (k *keeper) Unasked(full jid.JID)       { k.kept = append(k.kept, full) }
func (k *keeper) Want(jid.JID)               {}
func (k *keeper) Gone(full jid.JID)          { k.kept = append(k.kept, full) }
func (k *keeper) Resume(domain string)       { k.kept = append(k.kept, domain) }

// A stanza of up to 1 MiB, of which all texts are parts, is not kept because of a
// few bytes of it: not by queries that wait, nor by what was announced.
func TestNothingKeepsAStanza(t *testing.T) {
	long := strings.Repeat(" ", 100<<10)
	query := func(inner string) string { return delegate(nsDelegation2, inner+long) }
	iq := "<iq xmlns='jabber:client' type='get' id='1' from='" + juliet + "' to='juliet@example.org'>"
	for name, data := range map[string]string{
		"a query":                     query(iq + rosterGet + "</iq>"),
		"a query with a version":      query(iq + "<query xmlns='jabber:iq:roster' ver='abc'/></iq>"),
		"a query to the component":    "<iq type='get' id='1' from='" + juliet + "'><query xmlns='jabber:iq:roster' ver='abc'/>" + long + "</iq>",
		"a delegation":                "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation>" + long + "</message>",
		"a privilege":                 "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm><perm access='presence' type='managed_entity'/></privilege>" + long + "</message>",
		"a stranger's announcement":   "<message from='example.com'><privilege xmlns='urn:xmpp:privilege:2'/>" + long + "</message>",
		"a message that came back":    "<message type='error' from='" + juliet + "'>" + long + "</message>",
		"a presence":                  "<presence from='" + juliet + "'>" + long + "</presence>",
		"a name as it was typed":      "<presence from='JULIET@Example.Org/balcony'>" + long + "</presence>",
		"a query that is not allowed": query("<iq xmlns='jabber:client' type='get' id='1' from='romeo@example.com/x' to='juliet@example.org'>" + rosterGet + "</iq>"),
	} {
		t.Run(name, func(t *testing.T) {
			hosts := []string{"example.org"}
			table := session.NewTable()
			c := New(Options{Domain: "contacts.example.org", Hosts: hosts, Version: "1.0", QueriesBurst: 1000, QueriesPerSecond: 1000,
				Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry())}, table)
			k := &keeper{}
			c.rosters = k
			s := &stream{out: newWriter(1<<20, 1<<20, 0), iqs: newTracker(time.Minute, "t-"), grants: newGrants(hosts, nil), began: time.Now()}
			c.set(s, nil)
			stanza := func() weak.Pointer[byte] {
				e, err := xmlstream.Decode([]byte(data)) // they are plain
				if err != nil {
					t.Fatal(err)
				}
				switch e.Name.Local {
				case "iq":
					c.handleIQ(s, e)
				case "message":
					c.handleMessage(s, e)
				default:
					c.handlePresence(s, e, true)
				}
				ping := s.iqs // what was asked because of it is answered
				for id, p := range ping.pending {
					ping.answered(&xmlstream.Element{Attrs: attrsOf("id", id, "type", "error", "from", p.from)})
				}
				return weak.Make(unsafe.StringData(e.Name.Local))
			}()
			runtime.GC()
			if stanza.Value() != nil {
				t.Error("kept")
			}
			runtime.KeepAlive(c)
			runtime.KeepAlive(s)
			runtime.KeepAlive(k)
			runtime.KeepAlive(table)
		})
	}
}

func attrsOf(pairs ...string) (attrs []xml.Attr) {
	for i := 0; i < len(pairs); i += 2 {
		attrs = append(attrs, xml.Attr{Name: xml.Name{Local: pairs[i]}, Value: pairs[i+1]})
	}
	return attrs
}

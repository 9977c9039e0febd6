package harness

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// rawComponent is the least that can serve rosters: it proves the servers and
// the clients of the harness without rosterd. Each delegated query is answered
// with the same item.
type rawComponent struct {
	t       *testing.T
	conn    net.Conn
	domain  string
	arrived *feed[rawStanza]
}

// rawStanza is all that the tests look at.
type rawStanza struct {
	XMLName xml.Name
	From    string `xml:"from,attr"`
	To      string `xml:"to,attr"`
	ID      string `xml:"id,attr"`
	Type    string `xml:"type,attr"`
	Inner   string `xml:",innerxml"`

	Delegation *struct {
		XMLName xml.Name
		Query   struct {
			From string `xml:"from,attr"`
			To   string `xml:"to,attr"`
			ID   string `xml:"id,attr"`
		} `xml:"forwarded>iq"`
	} `xml:"delegation"`
	Disco *struct{} `xml:"http://jabber.org/protocol/disco#info query"`
}

const rawItem = `<item jid='romeo@example.org' name='Romeo' subscription='both'><group>Friends</group></item>`

// dialComponent connects to a server as its component and serves.
func dialComponent(t *testing.T, s *Server) *rawComponent {
	t.Helper()
	conn, err := net.Dial("tcp", s.ComponentAddress())
	if err != nil {
		t.Fatal(err)
	}
	c := &rawComponent{t: t, conn: conn, domain: s.Options().Component, arrived: newFeed[rawStanza]()}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c.send("<stream:stream xmlns='jabber:component:accept' xmlns:stream='" + nsStream + "' to='" + s.Options().Component + "'>")
	dec := xml.NewDecoder(conn)
	id := ""
	for id == "" {
		token, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			for _, attr := range start.Attr {
				if attr.Name.Local == "id" {
					id = attr.Value
				}
			}
		}
	}
	sum := sha1.Sum([]byte(id + s.Options().Secret))
	c.send("<handshake>" + hex.EncodeToString(sum[:]) + "</handshake>")
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer c.arrived.end()
		c.serve(dec)
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-served
	})
	return c
}

func (c *rawComponent) send(xml string) {
	if _, err := io.WriteString(c.conn, xml); err != nil {
		c.t.Logf("component: %v", err) // the test misses what does not come
	}
}

func (c *rawComponent) serve(dec *xml.Decoder) {
	for {
		token, err := dec.Token()
		if err != nil {
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		var stanza rawStanza
		if dec.DecodeElement(&stanza, &start) != nil {
			return
		}
		c.arrived.add(stanza)
		switch {
		case stanza.Type == "get" && stanza.Disco != nil: // ejabberd delegates only then
			// COMPAT: ejabberd from 24.10 on may drop what goes to the host itself, and
			// looks at the id alone.
			c.send(fmt.Sprintf("<iq type='result' id='%s' to='%s/x' from='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
				stanza.ID, stanza.From, stanza.To))
		case stanza.Type == "set" && stanza.Delegation != nil:
			query := stanza.Delegation.Query
			from := ""
			if query.To != "" {
				from = " from='" + query.To + "'"
			}
			host := stanza.From
			if stanza.Delegation.XMLName.Space == "urn:xmpp:delegation:1" {
				host += "/x" // COMPAT: ejabberd 24.10 to 24.12, as above
			}
			c.send(fmt.Sprintf("<iq type='result' id='%s' to='%s' from='%s'><delegation xmlns='%s'>"+
				"<forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='result' id='%s' to='%s'%s>"+
				"<query xmlns='jabber:iq:roster'>%s</query></iq></forwarded></delegation></iq>",
				stanza.ID, host, stanza.To, stanza.Delegation.XMLName.Space, query.ID, query.From, from, rawItem))
		}
	}
}

// push sends a roster push by privileged IQ (XEP-0356, section 6).
func (c *rawComponent) push(to, id, item string) {
	bare, _, _ := strings.Cut(to, "/")
	c.send(fmt.Sprintf("<iq type='set' from='%s' to='%s' id='outer-%s'><privileged_iq xmlns='urn:xmpp:privilege:2'>"+
		"<iq xmlns='jabber:client' type='set' id='%s' to='%s'><query xmlns='jabber:iq:roster'>%s</query></iq>"+
		"</privileged_iq></iq>", c.domain, bare, id, id, to, item))
}

// wait waits for a stanza that has text in it.
func (c *rawComponent) wait(what, text string) rawStanza {
	c.t.Helper()
	return c.waitFor(what, func(s rawStanza) bool { return strings.Contains(s.Inner, text) })
}

func (c *rawComponent) waitFor(what string, is func(rawStanza) bool) rawStanza {
	c.t.Helper()
	stanza, _, err := c.arrived.wait(deadline(c.t), 0, is)
	if err != nil {
		c.t.Fatalf("%s did not reach the component: %v", what, err)
	}
	return stanza
}

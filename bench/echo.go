package main

import (
	"bytes"
	"crypto/sha1" // #nosec: XEP-0114 knows nothing better
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"rosterd/xmlstream"
)

// The program echo is the limit of everything that goes through the server: a
// component that answers each delegated query with a canned roster, fetches
// nothing and checks nothing. A query that names its version, which is always
// the same one, gets the empty result. With -refresh it pushes one item to each
// user that it is told of.
type echo struct {
	conn    net.Conn
	direct  bool           // pushes come from the user's bare JID
	rosters map[int][]byte // canned, by the number of contacts; for the goroutine that reads

	mu   sync.Mutex        // guards writing, and all below
	full map[string]string // the resource of a user, by their name; nil without -refresh
	last int               // id
}

const echoVersion = "echo"

func runEcho(args []string) error {
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	address := flags.String("address", "", "host:port of the component port")
	refresh := flags.Bool("refresh", false, "listen for refreshes, and print where")
	direct := flags.Bool("direct", false, "push from the bare JID")
	_ = flags.Parse(args)
	people()
	conn, err := net.Dial("tcp", *address)
	if err != nil {
		return err
	}
	e := &echo{conn: conn, direct: *direct, rosters: make(map[int][]byte)}
	if *refresh {
		e.full = make(map[string]string)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		go func() { _ = http.Serve(ln, http.HandlerFunc(e.refresh)) }()
	}
	return e.run()
}

func (e *echo) run() error {
	c := newCutter(quick{e.conn}, 64<<10)
	fmt.Fprintf(e.conn, "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%s'>", domain)
	header, err := c.read()
	if err != nil {
		return err
	}
	sum := sha1.Sum(append(bytes.Clone(attr(header, "id")), secret...))
	fmt.Fprintf(e.conn, "<handshake>%s</handshake>", hex.EncodeToString(sum[:]))
	var out []byte
	for {
		out = out[:0]
		for s := c.next(); s != nil; s = c.next() {
			if bytes.HasPrefix(s, []byte("<stream:error")) || bytes.HasPrefix(s, []byte("</stream:stream")) {
				return fmt.Errorf("the stream has ended: %s", s)
			}
			out = e.answer(out, s)
		}
		if len(out) > 0 {
			e.mu.Lock()
			_, err = e.conn.Write(out)
			e.mu.Unlock()
			if err != nil {
				return err
			}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// answer appends the answer to a stanza.
func (e *echo) answer(b, s []byte) []byte {
	t := tag(s)
	kind := attr(t, "type")
	if !bytes.HasPrefix(t, []byte("<iq")) || string(kind) != "get" && string(kind) != "set" {
		return b
	}
	payload := s[len(t):]
	if bytes.HasPrefix(payload, []byte("<delegation")) {
		return e.roster(b, s)
	}
	b = fmt.Appendf(b, "<iq type='result' id='%s' from='%s' to='%s'>", attr(t, "id"), attr(t, "to"), attr(t, "from"))
	if q := inner(s, "query"); q != nil { // what ejabberd asks before it delegates
		b = fmt.Appendf(b, "<query xmlns='http://jabber.org/protocol/disco#info' node='%s'><feature var='jabber:iq:roster'/></query>", attr(q, "node"))
	}
	return append(b, "</iq>"...)
}

// delegated is what a query that is delegated (XEP-0355) says.
type delegated struct {
	ID         string `xml:"id,attr"`
	From       string `xml:"from,attr"`
	Delegation struct {
		XMLName xml.Name
		IQ      struct {
			ID    string `xml:"id,attr"`
			From  string `xml:"from,attr"`
			To    string `xml:"to,attr"`
			Query struct {
				Version string `xml:"ver,attr"`
			} `xml:"jabber:iq:roster query"`
		} `xml:"forwarded>iq"`
	} `xml:"delegation"`
}

// roster answers a delegated query. It reads it with encoding/xml, as
// gosrc.io/xmpp does: no component may rely on how a server writes.
func (e *echo) roster(b, stanza []byte) []byte {
	var d delegated
	if err := xml.Unmarshal(stanza, &d); err != nil {
		return b
	}
	iq := &d.Delegation.IQ
	if e.full != nil {
		name, _, _ := strings.Cut(iq.From, "@")
		e.mu.Lock()
		e.full[name] = iq.From
		e.mu.Unlock()
	}
	b = attrs(append(b, "<iq type='result'"...), d.ID, domain, d.From)
	b = append(append(b, "<delegation xmlns='"...), d.Delegation.XMLName.Space...)
	b = append(b, "'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='result'"...)
	b = attrs(b, iq.ID, iq.To, iq.From)
	if iq.Query.Version != echoVersion {
		b = append(b, e.canned([]byte(iq.From))...)
	}
	return append(b, "</iq></forwarded></delegation></iq>"...)
}

// attrs ends the opening tag of an answer.
func attrs(b []byte, id, from, to string) []byte {
	b = xmlstream.AppendAttr(b, "id", id)
	if from != "" {
		b = xmlstream.AppendAttr(b, "from", from)
	}
	return append(xmlstream.AppendAttr(b, "to", to), '>')
}

// canned is the roster of the first user that has as many contacts.
func (e *echo) canned(from []byte) []byte {
	name, _, _ := bytes.Cut(from, []byte("@"))
	u, _ := parseUser(string(name))
	roster, ok := e.rosters[u.contacts]
	if !ok {
		u.kind, u.index = 'u', 0
		roster = append(u.appendXML([]byte("<query xmlns='jabber:iq:roster' ver='"+echoVersion+"'>")), "</query>"...)
		e.rosters[u.contacts] = roster
	}
	return roster
}

// refresh pushes the same item to each of the users.
func (e *echo) refresh(w http.ResponseWriter, r *http.Request) {
	var names []string
	if err := json.NewDecoder(r.Body).Decode(&names); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	const item = "<query xmlns='jabber:iq:roster'><item jid='new@" + host + "' subscription='both' name='Somebody New'><group>Friends</group></item></query>"
	e.mu.Lock()
	defer e.mu.Unlock()
	var b []byte
	flush := func(min int) {
		if len(b) < min {
			return
		}
		_ = e.conn.SetWriteDeadline(time.Now().Add(time.Minute))
		_, _ = e.conn.Write(b)
		b = b[:0]
	}
	for _, name := range names {
		full := e.full[name]
		if full == "" {
			continue
		}
		bare, _, _ := strings.Cut(full, "/")
		e.last++
		id := "p" + strconv.Itoa(e.last)
		if e.direct {
			b = fmt.Appendf(b, "<iq type='set' id='%s' from='%s' to='%s'>%s</iq>", id, bare, full, item)
		} else {
			b = fmt.Appendf(b, "<iq type='set' id='%s' from='%s' to='%s'><privileged_iq xmlns='urn:xmpp:privilege:2'>"+
				"<iq xmlns='jabber:client' type='set' id='%s' to='%s'>%s</iq></privileged_iq></iq>", id, domain, bare, id, full, item)
		}
		flush(64 << 10)
	}
	flush(1)
	fmt.Fprintf(w, `{"status":"ok","message":"roster update complete","updated":%d,"errors":0}`, len(names))
}

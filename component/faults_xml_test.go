package component

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// faultBy is a component that is sent something out of order by its server.
func faultBy(t *testing.T, sent string) (*rig, *link) {
	t.Helper()
	r := fault(t)
	k := r.server.serve()
	k.quiet()
	if _, err := io.WriteString(k.Conn, sent); err != nil && !isReset(err) {
		t.Fatal(err)
	}
	return r, k
}

// What is not XML ends the stream at once, be more to come or not, and the log says
// so; the component comes back.
func TestGarbage(t *testing.T) {
	garbage := map[string]string{
		"zeros":                  strings.Repeat("\x00", 100_000),
		"all bytes":              allBytes(),
		"brackets and a zero":    "<message><<\x00>>",
		"invalid UTF-8":          "<message from='\xff\xfe'>\xc0\x80</message>",
		"overlong UTF-8":         "<message>\xc0\xaf\xf8\x88\x80\x80\x80</message>",
		"half a surrogate pair":  "<message>\xed\xa0\x80</message>",
		"control characters":     "<message>\x01\x1f</message>",
		"a control character":    "<message a='b\x0bc'/>",
		"opening brackets":       strings.Repeat("<", 10_000),
		"closing brackets":       strings.Repeat(">", 10_000),
		"closing tags":           strings.Repeat("</a>", 10_000),
		"tags without a name":    strings.Repeat("<>", 100) + strings.Repeat("< />", 100) + strings.Repeat("</>", 100),
		"tag within a tag":       "<message from=<b/>",
		"tag within a value":     "<message from='<b/>'/>",
		"attribute without name": "<message ='b'/>",
		"wrong closing tag":      "<message><a></message></a>",
		"text between stanzas":   "<message/>275",
		"HTTP":                   "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html><body>no</body></html>",
		"TLS":                    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03<\x00'\"",
		"another header":         "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s2'>",
	}
	for name, sent := range garbage {
		t.Run(name, func(t *testing.T) {
			r, _ := faultBy(t, sent)
			r.server.serve().quiet()
			if log := r.log.String(); !strings.Contains(log, "RFC 6120, section 11.") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// What is no stanza: the component gives the stream up or overlooks it, and comes
// back.
func TestOddXML(t *testing.T) {
	odd := map[string]string{
		"another header":     "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s2'>",
		"another handshake":  "<handshake/>",
		"stream in a stanza": "<message><stream:stream xmlns:stream='http://etherx.jabber.org/streams'></stream:stream></message>",
	}
	dice := rand.New(rand.NewPCG(4, 4)) // the same each time
	for i := range 100 {
		const alphabet = "<<<>>>///'\"!-[]?=  &;:abxml\x00\xff\u00fc"
		b := make([]byte, dice.IntN(200))
		for i := range b {
			b[i] = alphabet[dice.IntN(len(alphabet))]
		}
		odd[fmt.Sprint("at random ", i)] = string(b)
	}
	for name, sent := range odd {
		t.Run(name, func(t *testing.T) {
			r := fault(t)
			k := r.server.serve()
			if _, err := io.WriteString(k.Conn, sent); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			k.Close() // that it comes back from garbage without an end is another test's
			r.server.serve().quiet()
		})
	}
}

func allBytes() string {
	var b bytes.Buffer
	for i := range 256 {
		b.WriteByte(byte(i))
	}
	return b.String()
}

// A connection that ends without the end of the stream is one that has ended.
func TestUnclosedStream(t *testing.T) {
	r := fault(t)
	for _, last := range []string{"", " ", "<", "</", "</stream:stream", "<message", "<message from='", "<message>x", "<!", "<!--", "<?", "<![CDATA[", "<a><b></b>"} {
		k := r.server.serve()
		k.quiet()
		k.send("%s", last)
		k.Close()
		waitFor(t, "an end after "+last, func() bool { return !r.Connected() || r.counted(t, "rosterd_reconnects_total") > 0 })
	}
	r.server.serve().quiet()
	if !strings.Contains(r.log.String(), "unexpected EOF") {
		t.Errorf("log:\n%s", r.log.String())
	}
}

// A stanza of any length takes no memory, is answered if it has to be, and keeps
// nobody from an answer for good.
func TestHugeStanza(t *testing.T) {
	const mib = 1 << 20
	for name, stanza := range map[string]struct {
		begin, piece, end string
		size              int
		answer            string
	}{
		"text of a message":   {"<message from='romeo@example.org/x'><body>", "x", "</body></message>", 48 * mib, ""},
		"text of a query":     {"<iq type='get' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'>", "x", "</query></iq>", 48 * mib, "policy-violation"},
		"white space":         {"", " ", "", 48 * mib, ""},
		"elements of a get":   {"<iq type='get' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'>", "<item/>", "</query></iq>", 4 * mib, "policy-violation"},
		"attributes of a set": {"<iq type='set' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'", " a=''", "/></iq>", 4 * mib, "policy-violation"},
		"a delegated query": {outerStart + "<delegation xmlns='" + nsDelegation2 + "'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='get' from='" + juliet + "'>",
			"<a/>", "</iq></forwarded></delegation></iq>", 4 * mib, "policy-violation"},
		"depth":                {"<message from='romeo@example.org/x'>", "<a>", "</message>", 2 * mib, ""},
		"a comment":            {"<message><!--", "x", "--></message>", 4 * mib, ""},
		"an id":                {"<iq type='get' from='romeo@example.org/x' id='", "x", "'><ping xmlns='urn:xmpp:ping'/></iq>", 4 * mib, ""}, // not even its tag is whole
		"an attribute at last": {"<presence type='unavailable' from='nobody@example.org/x' a='", "x", "'/>", 4 * mib, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := fault(t)
			k := r.server.serve()
			k.quiet()
			n := stanza.size/len(stanza.piece) + 1
			piece := []byte(strings.Repeat(stanza.piece, n/100+1))
			if stanza.piece == "<a>" {
				stanza.end = strings.Repeat("</a>", 100*(n/100+1)) + stanza.end
			}
			runtime.GC()
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			most := before.HeapInuse
			k.send("%s", stanza.begin)
			for i := range 100 {
				if _, err := k.Conn.Write(piece); err != nil {
					t.Fatal(err)
				}
				if i%10 == 9 {
					runtime.ReadMemStats(&now)
					most = max(most, now.HeapInuse)
				}
			}
			if _, err := io.WriteString(k.Conn, stanza.end); err != nil {
				t.Fatal(err)
			}
			if most > before.HeapInuse+32*mib {
				t.Errorf("took %d MiB", (most-before.HeapInuse)/mib)
			}
			if stanza.answer != "" {
				k.refused(stanza.answer)
			}
			r.lives(t, k)
		})
	}
}

// RFC 6120, section 11.1: what XML can do and XMPP must not. A server does not
// send it; nothing of it is carried out. Within a stanza, comments and instructions are
// overlooked: a server may let its users send them.
func TestRestrictedXML(t *testing.T) {
	const bomb = "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;'>" +
		"<!ENTITY lol3 '&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;'>]>"
	for name, sent := range map[string]string{
		"document type":             "<!DOCTYPE stream>",
		"entity bomb":               bomb + "<message>&lol3;</message>",
		"external entity":           "<!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><message>&x;</message>",
		"parameter entity":          "<!DOCTYPE x [<!ENTITY % x SYSTEM 'http://127.0.0.1:1/'> %x;]>",
		"document type in a stanza": "<message from='example.org'>" + bomb + "&lol3;</message>",
		"element declaration":       "<!ELEMENT a ANY>",
		"a second XML declaration":  "<?xml version='1.0' encoding='UTF-16'?>",
		"processing instruction":    "<?xml-stylesheet href='http://127.0.0.1:1/'?>",
		"comment":                   "<!-- <message/> -->",
		"entity declaration":        "<!ENTITY a 'b'>",
	} {
		t.Run(name, func(t *testing.T) {
			r, k := faultBy(t, sent)
			k.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, k.Conn); err != nil && !isReset(err) { // it may not have read all
				t.Error(err)
			}
			r.server.serve().quiet()
			if !strings.Contains(r.log.String(), "document type declaration") {
				t.Errorf("log:\n%s", r.log.String())
			}
		})
	}
	for name, sent := range map[string]struct{ stanza, answer string }{
		"XML declaration in a stanza":   {"<message from='example.org'><?xml version='1.1'?></message>", ""},
		"instruction in a query":        {"<iq type='get' id='1' from='romeo@example.org/x'><?a?><ping xmlns='urn:xmpp:ping'/></iq>", "result"},
		"comment in a query":            {"<iq type='get' id='1' from='romeo@example.org/x'><!-- <a> --><ping xmlns='urn:xmpp:ping'/></iq>", "result"},
		"entity of nobody in a message": {"<message from='romeo@example.org/x'>&lol;</message>", ""},
		"entity of nobody in a query":   {"<iq type='get' id='1' from='romeo@example.org/x'><ping xmlns='urn:xmpp:ping'>&lol;</ping></iq>", "bad-request"},
		"character that is none":        {"<iq type='get' id='1' from='romeo@example.org/x'><ping xmlns='urn:xmpp:ping' a='&#0;&#xFFFE;'/></iq>", "bad-request"},
		"predefined entities":           {"<iq type='get' id='&lt;&gt;&amp;&quot;&apos;&#x41;' from='romeo@example.org/x'><ping xmlns='urn:xmpp:ping'/></iq>", "result"},
	} {
		t.Run(name, func(t *testing.T) {
			r := fault(t)
			k := r.server.serve()
			k.send("%s", sent.stanza)
			switch sent.answer {
			case "":
				k.quiet()
			case "result":
				k.refused("")
			default:
				k.refused(sent.answer)
			}
			r.lives(t, k)
		})
	}
}

package harness

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// nsStream is the namespace of the stream's own elements (RFC 6120, 4.8.1).
const nsStream = "http://etherx.jabber.org/streams"

// Stanza is a top-level element that arrived on a stream, whatever a library
// made of it.
type Stanza struct {
	Name               string // "iq", "message", "presence", "features", …
	From, To, ID, Type string
	Payload            xml.Name // of the first child
	XML                string   // as it arrived
}

// wire is a TCP relay between one client and its server. It sees each stanza in
// the order of arrival, and can cut the connection as no client library does.
type wire struct {
	listener net.Listener
	target   string
	raw      bool          // no padder
	arrived  *feed[Stanza] // from the server
	tasks    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
	ended bool       // guarded by mu
}

// newWire listens for one connection, to be relayed to target: as it is if raw is
// set, else through a [padder] each way.
func newWire(target string, raw bool) (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{listener: listener, target: target, raw: raw, arrived: newFeed[Stanza]()}
	w.tasks.Go(w.relay)
	return w, nil
}

// port is where the client has to connect.
func (w *wire) port() int { return w.listener.Addr().(*net.TCPAddr).Port }

// relay serves the one connection until either side ends it.
func (w *wire) relay() {
	defer w.arrived.end()
	client, err := w.listener.Accept()
	_ = w.listener.Close()
	if err != nil || !w.own(client) {
		return
	}
	server, err := net.Dial("tcp", w.target)
	if err != nil || !w.own(server) {
		_ = client.Close()
		return
	}
	defer w.cut(false)

	parsed, tee := io.Pipe()
	w.tasks.Go(func() { parsed.CloseWithError(w.parse(parsed)) })
	w.tasks.Go(func() {
		_, _ = io.Copy(w.padded(server), client)
		w.cut(false)
	})
	toClient := w.padded(client)
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		_, _ = tee.Write(buf[:n]) // fails once parse has given up; the client still gets all
		if _, werr := toClient.Write(buf[:n]); err != nil || werr != nil {
			_ = tee.CloseWithError(io.EOF)
			return
		}
	}
}

// padded is conn with a padder before it, unless the wire is raw.
func (w *wire) padded(conn net.Conn) io.Writer {
	if w.raw {
		return conn
	}
	return &padder{w: conn}
}

// own remembers a connection to be closed, or closes it if it is too late.
func (w *wire) own(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		_ = conn.Close()
		return false
	}
	w.conns = append(w.conns, conn)
	return true
}

// cut ends the TCP connections, with a reset if abruptly is set.
func (w *wire) cut(abruptly bool) {
	_ = w.listener.Close()
	w.mu.Lock()
	conns := w.conns
	w.conns, w.ended = nil, true
	w.mu.Unlock()
	for _, conn := range conns {
		if tcp, ok := conn.(*net.TCPConn); ok && abruptly {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// close cuts and waits for all goroutines.
func (w *wire) close() {
	w.cut(false)
	w.tasks.Wait()
}

// wait returns the first stanza from number from on that matches, and the
// number after it.
func (w *wire) wait(ctx context.Context, from int, match func(Stanza) bool) (Stanza, int, error) {
	stanza, next, err := w.arrived.wait(ctx, from, match)
	if errors.Is(err, errEnded) {
		err = errors.New("the client's connection has ended")
	}
	return stanza, next, err
}

// parse adds each top-level element of the stream in r to the feed. After
// authentication the stream starts again (RFC 6120, 4.3.3): another header,
// which nests in what has been read so far.
func (w *wire) parse(r io.Reader) error {
	rec := &recorder{r: r}
	dec := xml.NewDecoder(rec)
	for {
		start := dec.InputOffset()
		token, err := dec.Token()
		if err != nil {
			return err
		}
		element, ok := token.(xml.StartElement)
		if !ok || element.Name == (xml.Name{Space: nsStream, Local: "stream"}) {
			continue
		}
		stanza := Stanza{Name: element.Name.Local}
		for _, attr := range element.Attr {
			switch attr.Name {
			case xml.Name{Local: "from"}:
				stanza.From = attr.Value
			case xml.Name{Local: "to"}:
				stanza.To = attr.Value
			case xml.Name{Local: "id"}:
				stanza.ID = attr.Value
			case xml.Name{Local: "type"}:
				stanza.Type = attr.Value
			}
		}
		if stanza.Payload, err = skipElement(dec); err != nil {
			return fmt.Errorf("in a stanza: %w", err)
		}
		stanza.XML = rec.take(start, dec.InputOffset())
		w.arrived.add(stanza)
	}
}

// skipElement reads on to the end of the element that has begun, and returns
// the name of its first child.
func skipElement(dec *xml.Decoder) (child xml.Name, err error) {
	for {
		token, err := dec.Token()
		if err != nil {
			return child, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if child.Local == "" {
				child = token.Name
			}
			if err := dec.Skip(); err != nil {
				return child, err
			}
		case xml.EndElement:
			return child, nil
		}
	}
}

// recorder keeps what was read from r, until it is taken.
type recorder struct {
	r     io.Reader
	kept  []byte
	first int64 // offset of kept[0]
}

func (rec *recorder) Read(b []byte) (int, error) {
	n, err := rec.r.Read(b)
	rec.kept = append(rec.kept, b[:n]...)
	return n, err
}

// take returns what stands between two offsets, and forgets it and all before.
func (rec *recorder) take(from, to int64) string {
	s := string(rec.kept[from-rec.first : to-rec.first])
	rec.kept = append(rec.kept[:0], rec.kept[to-rec.first:]...)
	rec.first = to
	return s
}

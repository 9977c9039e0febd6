package fetcher

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"rosterd/internal/testcert"
)

// resetting is a backend that takes each request whole, by HTTP/2, and resets its stream then,
// as some front ends do.
type resetting struct {
	url   string
	tls   *tls.Config
	taken atomic.Int32
}

func newResetting(t *testing.T, code http2.ErrCode) *resetting {
	authority := testcert.New(t, "ca")
	pair := authority.Issue(t, "localhost", time.Now().Add(time.Hour))
	certificate, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	r := &resetting{url: "https://" + listener.Addr().String(), tls: &tls.Config{RootCAs: authority.Pool}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(conn, code)
		}
	}()
	return r
}

func (r *resetting) serve(conn net.Conn, code http2.ErrCode) {
	defer conn.Close()
	if _, err := io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if framer.WriteSettings() != nil {
		return
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			ended = frame.StreamEnded()
		}
		if ended {
			r.taken.Add(1)
			_ = framer.WriteRSTStream(frame.Header().StreamID, code)
		}
	}
}

// An edit is sent once, however its stream is reset, and a fetch twice at most.
func TestResetStreams(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeProtocol, http2.ErrCodeInternal, http2.ErrCodeCancel} {
		t.Run(code.String(), func(t *testing.T) {
			r := newResetting(t, code)
			b := newEditBench(t, r.url, func(o *Options) { o.TLS = r.tls })
			err := b.Edit(t.Context(), juliet, rename)
			if n := r.taken.Swap(0); err == nil || n != 1 {
				t.Errorf("the edit was sent %d times: %v", n, err)
			}
			_, err = b.Fetch(t.Context(), juliet)
			if failure, _ := err.(*Error); failure == nil || failure.Result == resultCanceled || r.taken.Load() > maxConnections {
				t.Errorf("the fetch was sent %d times: %#v", r.taken.Load(), err)
			}
		})
	}
}

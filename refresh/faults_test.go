package refresh

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/leak"
	"rosterd/internal/locked"
	"rosterd/jid"
)

// patience is for what has to happen at some time.
const patience = 30 * time.Second

// gate is a refresher whose work on the user slow ends when it is opened.
type gate struct {
	working chan struct{} // receives at the beginning of such work
	open    chan struct{}
}

func (g *gate) Refresh(ctx context.Context, users []jid.JID) (map[jid.JID]error, error) {
	if users[0].Local() == "slow" {
		g.working <- struct{}{}
		select {
		case <-g.open:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (g *gate) RefreshLater(context.Context, []jid.JID) error { return nil }

func (g *gate) RefreshAll(context.Context, string) (int, error) { return 0, nil }

// endpoint is a server as rosterd makes it.
type endpoint struct {
	*gate
	t       *testing.T
	address string
	log     *locked.Buffer
}

func serve(t *testing.T, change ...func(*Options)) *endpoint {
	t.Helper()
	leak.Check(t)
	e := &endpoint{t: t, log: &locked.Buffer{}, gate: &gate{make(chan struct{}, 1000), make(chan struct{})}}
	o := Options{Hosts: []string{"example.org"}, MaxBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(e.log, nil)),
		Requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "codes"}, []string{"code"}),
		Users:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "users"}, []string{"result"})}
	for _, f := range change {
		f(&o)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = l.Addr().String()
	server := &http.Server{Handler: Handler(o, e.gate)}
	l = Protect(server, l, o)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return e
}

// from is a caller at an address of their own.
func (e *endpoint) from(ip string, config ...*tls.Config) *http.Client {
	transport := &http.Transport{DialContext: dialer(ip).DialContext}
	if config != nil {
		transport.TLSClientConfig = config[0]
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func dialer(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}
}

// post refreshes users, the answer is the status code and the header.
func (e *endpoint) post(client *http.Client, body string, header ...string) (int, http.Header) {
	e.t.Helper()
	scheme := "http://"
	if client.Transport.(*http.Transport).TLSClientConfig != nil {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, scheme+e.address+Path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		e.t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		e.t.Error(err)
	}
	return resp.StatusCode, resp.Header
}

// answers fails the test unless a caller is answered 200.
func (e *endpoint) answers(client *http.Client) {
	e.t.Helper()
	if code, _ := e.post(client, `["juliet"]`); code != http.StatusOK {
		e.t.Errorf("a caller got %d", code)
	}
}

// dial is a connection that sends a text.
func (e *endpoint) dial(ip, text string) net.Conn {
	e.t.Helper()
	conn, err := dialer(ip).DialContext(e.t.Context(), "tcp", e.address)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		e.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text) // it may be closed already
	return conn
}

// ended fails the test unless the endpoint closes the connection. It returns
// the status code of what came before.
func (e *endpoint) ended(conn net.Conn) (code int) {
	e.t.Helper()
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err == nil {
		code = resp.StatusCode
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, r); errors.As(err, &timeout) && timeout.Timeout() {
		e.t.Error("the connection is still open")
	}
	return code
}

// trickle sends a text again and again, with pauses, until that fails.
func trickle(conn net.Conn, text string, pause time.Duration) {
	every := time.NewTicker(pause)
	defer every.Stop()
	for range every.C {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

const (
	beginning = "POST " + Path + " HTTP/1.1\r\nHost: x\r\n"
	soon      = 500 * time.Millisecond
	pause     = 20 * time.Millisecond
)

func TestSlowHeader(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Header: soon} })
	silent, some, slow := e.dial("127.0.0.1", ""), e.dial("127.0.0.1", beginning), e.dial("127.0.0.1", beginning)
	var wait sync.WaitGroup
	wait.Go(func() { trickle(slow, "X-A: b\r\n", pause) })
	e.answers(e.from("127.0.0.1"))
	for _, conn := range []net.Conn{silent, some, slow} {
		e.ended(conn)
	}
	wait.Wait()
}

// A header that comes slowly on a connection that has had an answer.
func TestSlowSecondHeader(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Header: soon, Idle: soon} })
	request := beginning + "Content-Length: 2\r\n\r\n[]"
	if code := e.ended(e.dial("127.0.0.1", request+beginning)); code != http.StatusOK {
		t.Errorf("the first got %d", code)
	}
	if code := e.ended(e.dial("127.0.0.1", request)); code != http.StatusOK {
		t.Errorf("the first got %d", code)
	}
}

func TestSlowBody(t *testing.T) {
	for name, tt := range map[string]struct {
		limits  Limits
		header  string
		body    string
		trickle string
		code    int
	}{
		"a pause":                {Limits{Stall: soon}, "Content-Length: 100\r\n", `["juliet"`, "", 408},
		"nothing":                {Limits{Stall: soon}, "Content-Length: 100\r\n", "", "", 408},
		"chunks, a pause":        {Limits{Stall: soon}, "Transfer-Encoding: chunked\r\n", "1\r\n[\r\n", "", 408},
		"by bytes":               {Limits{Body: soon}, "Content-Length: 10000\r\n", "", " ", 408},
		"chunks, by bytes":       {Limits{Body: soon}, "Transfer-Encoding: chunked\r\n", "", "1\r\n \r\n", 408},
		"after the array":        {Limits{Stall: soon}, "Content-Length: 100\r\n", `["juliet"]`, "", 408},
		"to a wrong path":        {Limits{Stall: soon}, "Content-Length: 100\r\n", `[`, "", 404},
		"without a token":        {Limits{Stall: soon}, "Content-Length: 100\r\nAuthorization: Bearer wrong\r\n", `[`, "", 401},
		"announced, never comes": {Limits{Stall: soon}, "Content-Length: 100\r\nExpect: 100-continue\r\n", "", "", 100},
	} {
		t.Run(name, func(t *testing.T) {
			e := serve(t, func(o *Options) {
				o.Limits = tt.limits
				if tt.code == 401 {
					o.Tokens = NewTokens("right")
				}
			})
			request := beginning
			if tt.code == 404 {
				request = strings.Replace(request, Path, "/x", 1)
			}
			conn := e.dial("127.0.0.1", request+tt.header+"\r\n"+tt.body)
			var wait sync.WaitGroup
			if tt.trickle != "" {
				wait.Go(func() { trickle(conn, tt.trickle, pause) })
			}
			if code := e.ended(conn); code != tt.code {
				t.Errorf("got %d", code)
			}
			wait.Wait()
		})
	}
}

// A body that comes in time is not cut by the deadline while it is worked on,
// and the connection goes on.
func TestDeadlinesAreOfTheBodyAlone(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Stall: soon, Body: soon, Answer: soon} })
	client := e.from("127.0.0.1")
	for range 2 {
		done := make(chan int)
		go func() {
			code, _ := e.post(client, `["slow"]`)
			done <- code
		}()
		<-e.working
		select {
		case code := <-done:
			t.Fatalf("ended with %d", code)
		case <-time.After(3 * soon):
		}
		e.open <- struct{}{}
		if code := <-done; code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	}
}

// The deadline of an answer does not reach the next one over the connection.
func TestLateContinue(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Answer: soon} })
	conn := e.dial("127.0.0.1", beginning+"Content-Length: 2\r\n\r\n[]")
	r := bufio.NewReader(conn)
	read := func(want int) {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
			t.Fatal(resp.Status, err)
		}
		_ = resp.Body.Close()
	}
	read(http.StatusOK)
	<-time.After(2 * soon) // the deadline is over
	_, _ = io.WriteString(conn, beginning+"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	read(http.StatusContinue)
	_, _ = io.WriteString(conn, "[]")
	read(http.StatusOK)
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestEndlessBody(t *testing.T) {
	e := serve(t)
	conn := e.dial("127.0.0.1", beginning+"Transfer-Encoding: chunked\r\n\r\n")
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", 4096, strings.Repeat(" ", 4096)); err != nil {
				return
			}
		}
	})
	if code := e.ended(conn); code != http.StatusRequestEntityTooLarge {
		t.Errorf("chunks: %d", code)
	}
	wait.Wait()
	conn = e.dial("127.0.0.1", beginning+"Content-Length: 1000000000000\r\n\r\n")
	wait.Go(func() { _, _ = io.Copy(conn, endless{}) })
	if code := e.ended(conn); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large length: %d", code)
	}
	wait.Wait()
	e.answers(e.from("127.0.0.1"))
}

func TestHugeHeader(t *testing.T) {
	e := serve(t)
	for name, header := range map[string]string{
		"one field":   "X-A: " + strings.Repeat("b", 2*maxHeader),
		"many fields": strings.Repeat("X-A: b\r\n", maxHeader/4),
		"a token":     "Authorization: Bearer " + strings.Repeat("b", 2*maxHeader),
	} {
		if code := e.ended(e.dial("127.0.0.1", beginning+header+"\r\n\r\n")); code != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code := e.ended(e.dial("127.0.0.1", "POST /"+strings.Repeat("x", 2*maxHeader)+" HTTP/1.1\r\n\r\n")); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a path: %d", code)
	}
	e.answers(e.from("127.0.0.1"))
}

// A caller who never reads answers has the connection closed.
func TestSlowReader(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Answer: soon} })
	names := make([]string, maxFailed)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d%s@evil.example"`, i, strings.Repeat("x", 500))
	}
	body := "[" + strings.Join(names, ",") + "]"
	request := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", beginning, len(body), body)
	conn := e.dial("127.0.0.1", "")
	for {
		if _, err := io.WriteString(conn, request); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection is still open")
			}
			break
		}
	}
	e.answers(e.from("127.0.0.1"))
}

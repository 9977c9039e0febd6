package refresh

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"rosterd/internal/testcert"
)

// A caller with 1,000 connections, silent, slow or idle, keeps neither others nor
// themselves from being answered.
func TestManyConnections(t *testing.T) {
	for name, sent := range map[string]string{
		"silent":     "",
		"in headers": beginning,
		"idle":       beginning + "Content-Length: 2\r\n\r\n[]",
	} {
		t.Run(name, func(t *testing.T) {
			e := serve(t)
			first := e.dial("127.0.0.2", sent)
			for range 999 {
				e.dial("127.0.0.2", sent)
			}
			e.answers(e.from("127.0.0.1"))
			e.answers(e.from("127.0.0.3"))
			e.answers(e.from("127.0.0.2"))
			e.ended(first) // it made way
			if n := strings.Count(e.log.String(), "too many connections"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, e.log)
			}
		})
	}
}

// Connections of many callers, so that none is free, make way for one more.
func TestManyCallers(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Connections: 10} })
	for i := range 30 {
		e.dial(net.IPv4(127, 0, 1, byte(i)).String(), "")
	}
	e.answers(e.from("127.0.0.1"))
}

// A connection with a request that is worked on never makes way.
func TestWorkIsNotDisturbed(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	few := func(o *Options) { o.Limits = Limits{Connections: 8} }
	for name, start := range map[string]func(*testing.T) (*endpoint, []*tls.Config){
		"without TLS": func(t *testing.T) (*endpoint, []*tls.Config) { return serve(t, few), nil },
		"with TLS": func(t *testing.T) (*endpoint, []*tls.Config) {
			return secure(t, f, "", few), []*tls.Config{{RootCAs: ca.Pool}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, config := start(t)
			done := e.slow("127.0.0.2", 2, config...)
			for range 50 {
				e.dial("127.0.0.2", "")
			}
			e.answers(e.from("127.0.0.1", config...)) // so all of them have been seen
			close(e.open)
			for range 2 {
				if code := <-done; code != http.StatusOK {
					t.Errorf("got %d", code)
				}
			}
		})
	}
}

// slow has n requests worked on until e.open, each over its own connection, and
// returns when they are. Their codes are received from done.
func (e *endpoint) slow(ip string, n int, config ...*tls.Config) (done chan int) {
	done = make(chan int, n)
	var wait sync.WaitGroup
	e.t.Cleanup(wait.Wait)
	for range n {
		client := e.from(ip, config...)
		wait.Go(func() {
			code, _ := e.post(client, `["slow"]`)
			done <- code
		})
	}
	for range n {
		<-e.working
	}
	return done
}

func TestManyRequests(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Requests: 8} })
	done := e.slow("127.0.0.2", 4) // half
	greedy, other := e.from("127.0.0.2"), e.from("127.0.0.1")
	code, header := e.post(greedy, `["juliet"]`)
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" {
		t.Errorf("got %d, retry after %q", code, header.Get("Retry-After"))
	}
	e.answers(other)
	others := e.slow("127.0.0.1", 2)
	if code, _ := e.post(other, `["juliet"]`); code != http.StatusServiceUnavailable {
		t.Errorf("got %d", code)
	}
	e.answers(e.from("127.0.0.3"))
	close(e.open)
	for range 4 {
		if code := <-done; code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	}
	for range 2 {
		if code := <-others; code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	}
	e.answers(greedy)
}

// Slow bodies take shares of their sender alone.
func TestManySlowBodies(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Requests: 8} })
	for range 100 {
		e.dial("127.0.0.2", beginning+"Content-Length: 100\r\n\r\n[")
	}
	e.answers(e.from("127.0.0.1"))
}

func TestManyLargeRequests(t *testing.T) {
	e := serve(t, func(o *Options) { o.Limits = Limits{Large: 2} })
	large := `["slow"` + strings.Repeat(" ", largeBody) + "]"
	done := make(chan int)
	client := e.from("127.0.0.2")
	go func() {
		code, _ := e.post(client, large)
		done <- code
	}()
	<-e.working
	code, header := e.post(e.from("127.0.0.2"), large)
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("got %d", code)
	}
	e.answers(e.from("127.0.0.2")) // a small one
	if code, _ := e.post(e.from("127.0.0.1"), strings.Replace(large, "slow", "juliet", 1)); code != http.StatusOK {
		t.Errorf("another caller got %d", code)
	}
	close(e.open)
	if code := <-done; code != http.StatusOK {
		t.Errorf("got %d", code)
	}
	if code, _ := e.post(e.from("127.0.0.2"), strings.Replace(large, "slow", "juliet", 1)); code != http.StatusOK {
		t.Errorf("got %d when there was room again", code)
	}
}

// While a token is being replaced both count, before and after it one.
func TestTokensRotate(t *testing.T) {
	const former, next = "t0ken-former", "t0ken-next"
	for name, tt := range map[string]struct {
		token  string
		tokens []string
		former int
		next   int
	}{
		"before":       {former, nil, 200, 401},
		"meanwhile":    {former, []string{next}, 200, 200},
		"in the list":  {"", []string{former, next}, 200, 200},
		"after":        {next, nil, 401, 200},
		"after, list":  {"", []string{next}, 401, 200},
		"nobody knows": {"x", []string{"y", "z"}, 401, 401},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := NewTokens("t0ken-first")
			e := serve(t, func(o *Options) { o.Tokens = tokens })
			client := e.from("127.0.0.1")
			if code, _ := e.post(client, `[]`, "Authorization", "Bearer t0ken-first"); code != 200 {
				t.Errorf("the first token: %d", code)
			}
			tokens.Set(append(tt.tokens, tt.token)...)
			for authorization, want := range map[string]int{"Bearer " + former: tt.former, "Bearer " + next: tt.next, "Bearer wrong": 401, "Bearer t0ken-first": 401,
				"Bearer ": 401, "Bearer " + former + next: 401, "Basic " + next: 401, "": 401} {
				if code, _ := e.post(client, `["a b"]`, "Authorization", authorization); code != want && (want != 200 || code != 500) {
					t.Errorf("%q: %d, want %d", authorization, code, want)
				}
			}
			if strings.Contains(e.log.String(), "t0ken") {
				t.Errorf("tells a token:\n%s", e.log)
			}
		})
	}
}

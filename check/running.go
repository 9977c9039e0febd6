package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rosterd/component"
	"rosterd/config"
)

// What answers on metrics.listen.
const (
	nobody   = iota // nothing listens there, or it cannot be asked
	ours            // a rosterd of this configuration
	outdated        // a rosterd of this component, with another server or other hosts
	foreign         // another rosterd
	stranger        // another program
)

const (
	localWait = 3 * time.Second // for an answer of something on this machine
	maxAnswer = 1 << 20         // bytes of it
	announce  = 10 * time.Second
	look      = 50 * time.Millisecond // between two looks whether something has changed
)

// running is what answers on metrics.listen.
type running struct {
	kind   int
	status component.Status // unless nobody or a stranger
	role   string           // of an instance of a pair, if it is ours: active or standby
}

// ask asks whoever listens on metrics.listen what it is.
func ask(ctx context.Context, cfg config.Config) running {
	address, ok := Reachable(cfg.Metrics.Listen)
	if !ok {
		return running{}
	}
	code, body, _, err := get(ctx, address, "/status", false)
	switch {
	case ctx.Err() != nil, errors.Is(err, syscall.ECONNREFUSED):
		return running{}
	case errors.As(err, new(*net.DNSError)), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return running{} // listening says why
	}
	var answer struct {
		component.Status
		Pair struct{ Role string }
	}
	if err != nil || code != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Domain == "" {
		return running{kind: stranger}
	}
	status := answer.Status
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	switch {
	case status.Domain != cfg.XMPP.Domain:
		return running{kind: foreign, status: status}
	case status.Address != cfg.XMPP.Address, status.Connected && !slices.Equal(sorted(hostsOf(status)), sorted(cfg.XMPP.Hosts)):
		return running{kind: outdated, status: status}
	}
	return running{ours, status, answer.Pair.Role}
}

// settled waits for the status of the running rosterd, which may have connected a
// moment ago.
func (r running) settled(ctx context.Context, cfg config.Config, patience time.Duration) component.Status {
	ctx, cancel := context.WithTimeout(ctx, patience+localWait)
	defer cancel()
	wait(ctx, func() bool {
		early := func(w component.Routes) bool { return w.Query == component.QueryUnknown }
		if s := r.status; s.Connected && s.Any != component.AnyUnproven && !slices.ContainsFunc(s.Hosts, early) || !s.Connected && !comesSoon(s) {
			return true
		}
		if now := ask(ctx, cfg); now.kind == ours {
			r = now
		}
		return false
	})
	return r.status
}

// wait asks again and again, until done or ctx ends.
func wait(ctx context.Context, done func() bool) {
	again := time.NewTicker(look)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func hostsOf(status component.Status) (hosts []string) {
	for _, w := range status.Hosts {
		hosts = append(hosts, w.Host)
	}
	return hosts
}

// Reachable is where something that listens on an address is asked. It fails for
// port 0, which is another one each time.
func Reachable(listen string) (address string, ok bool) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return "", false
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
		if a.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), true
}

// get is one GET, of a program that is expected on this machine: without a proxy,
// and without following it elsewhere. With TLS, shown is its certificate, which it
// may show without giving an answer.
func get(ctx context.Context, address, path string, secure bool) (code int, body []byte, shown *x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, nil, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	stream := conn
	if secure {
		stream = tls.Client(conn, &tls.Config{
			// The certificate is for the callers' name of it. It is compared with
			// the file's, and nothing is sent that others must not know.
			InsecureSkipVerify: true,
			VerifyConnection: func(state tls.ConnectionState) error {
				shown = state.PeerCertificates[0] // a server has one
				return nil
			},
		})
	}
	if _, err := fmt.Fprintf(stream, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, address); err != nil {
		return 0, nil, shown, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(stream, maxAnswer)), nil)
	if err != nil {
		return 0, nil, shown, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, shown, err
}

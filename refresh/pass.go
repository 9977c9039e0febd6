package refresh

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rosterd/jid"
)

const (
	// TermPath is where an instance of a pair is told that another one is active.
	TermPath = "/roster_admin/term"
	// passedHeader is in the requests of the other instance, which are not passed on again.
	passedHeader = "Rosterd-Passed"

	handshakeWithin = 5 * time.Second // with the other instance, by TLS

	maxAnswer = 256 << 20 // bytes of an answer of the other instance, with all that it leaves
	maxTerm   = 1 << 10   // bytes of a body to TermPath
)

// term is what is told at TermPath: the number of the term that has begun.
type term struct {
	Term int64 `json:"term"`
}

// Left is the answer: what the instance that was active could not write.
type Left struct {
	Unwritten []byte `json:"unwritten,omitempty"`
	Lost      bool   `json:"lost,omitempty"` // and could not say either
	// Unknown: this process was not active, as one that was started again. It says nothing
	// of the one that was.
	Unknown bool `json:"unknown,omitempty"`
}

// told says that another instance is active.
func (h *handler) told(r *http.Request) Answer {
	var t term
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxTerm))
	if err != nil || r.Method != http.MethodPost || json.Unmarshal(body, &t) != nil {
		return failure(http.StatusBadRequest, "wants a POST of a term")
	}
	left := h.Told(r.Context(), t.Term)
	return Answer{Status: "ok", Message: "the term is over", Left: &left, code: http.StatusOK}
}

// merge adds to an answer what the active instance says of some users, whose names stood in
// the request as names says.
func (a *Answer) merge(of Answer, names map[jid.JID]string) {
	a.Updated += of.Updated
	a.Accepted += of.Accepted
	a.Errors += of.Errors
	for name, why := range of.Failed {
		if user, err := jid.Parse(name); err == nil && names[user] != "" {
			name = names[user]
		}
		a.failed(name, errors.New(why))
	}
}

// Peer asks the other instance of a pair. It is safe for concurrent use.
type Peer struct {
	token  func() string
	client *http.Client
}

// NewPeer asks with a token, or none if it is "". certificates are this instance's, which the
// other one trusts if it wants any of its callers; their authorities are trusted for the other
// one, besides the system's; nil: there is no TLS.
func NewPeer(token func() string, certificates *Certificates) *Peer {
	dialer := &net.Dialer{
		Timeout: time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConns: 8, IdleConnTimeout: time.Minute, DisableCompression: true}
	if certificates != nil {
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, handshakeWithin)
			defer cancel()
			secured := tls.Dialer{NetDialer: dialer, Config: certificates.ofClient()}
			return secured.DialContext(ctx, network, address)
		}
	}
	return &Peer{token: token, client: &http.Client{
		Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes connections that nobody uses.
func (p *Peer) Close() { p.client.CloseIdleConnections() }

// errNotPassed is why an answer of the other instance counts for nothing.
var errNotPassed = errors.New("the other instance does not do it")

// Pass has users refreshed by the instance at a URL, and returns its answer. It fails if
// that does not say what became of them. No request has more than so many bytes.
func (p *Peer) Pass(ctx context.Context, url string, users []jid.JID, maxBytes int64, async bool) (Answer, error) {
	all := Answer{code: http.StatusOK}
	for len(users) > 0 {
		var names []string
		size := int64(2)
		for _, user := range users {
			name := user.String()
			quoted, err := json.Marshal(name)
			if err != nil {
				return Answer{}, err
			}
			if size += int64(len(quoted)) + 1; size > maxBytes && len(names) > 0 {
				break
			}
			names = append(names, name)
		}
		users = users[len(names):]
		var part Answer
		var err error
		part.code, err = p.post(ctx, url, Path, names, &part, async)
		switch {
		case err != nil:
			return Answer{}, err
		case !said(part):
			return Answer{}, fmt.Errorf("%w: %d %s", errNotPassed, part.code, http.StatusText(part.code))
		case part.code == http.StatusServiceUnavailable, part.code == http.StatusAccepted && all.code == http.StatusOK:
			all.code, all.Status, all.Message = part.code, part.Status, part.Message
		}
		all.Retry = all.Retry || part.Retry
		all.merge(part, nil)
	}
	return all, nil
}

// PassAll is Pass for all users of a domain.
func (p *Peer) PassAll(ctx context.Context, to, domain string) (a Answer, err error) {
	if a.code, err = p.post(ctx, to, Path+"?all="+url.QueryEscape(domain), nil, &a, true); err == nil && !said(a) {
		err = fmt.Errorf("%w: %d %s", errNotPassed, a.code, http.StatusText(a.code))
	}
	return a, err
}

// said reports whether an answer says what became of users.
func said(a Answer) bool {
	switch a.code {
	case http.StatusOK, http.StatusAccepted, http.StatusInternalServerError, http.StatusServiceUnavailable:
		return a.Status != ""
	}
	return false
}

// Tell tells the instance at a URL that another one is active, as of a term. It answers when
// it has closed its stream.
func (p *Peer) Tell(ctx context.Context, url string, of int64) (Left, error) {
	var answer Answer
	code, err := p.post(ctx, url, TermPath, term{of}, &answer, false)
	if err == nil && (code != http.StatusOK || answer.Left == nil) {
		err = fmt.Errorf("%w: %d %s", errNotPassed, code, http.StatusText(code))
	}
	if err != nil {
		return Left{}, err
	}
	return *answer.Left, nil
}

func (p *Peer) post(ctx context.Context, url, path string, body, answer any, async bool) (code int, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(url, "/")+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(passedHeader, "1")
	if async {
		r.Header.Set("Prefer", respondAsyncToken)
	}
	if token := p.token(); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := p.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil && json.Unmarshal(text, answer) != nil {
		err = fmt.Errorf("%w: its answer is no JSON", errNotPassed)
	}
	return response.StatusCode, err
}

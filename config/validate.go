package config

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"rosterd/jid"
)

const (
	minTimeout  = 10 * time.Millisecond
	maxTimeout  = 10 * time.Minute
	maxInFlight = 10_000
	maxBytes    = 1 << 30
	minStanza   = 10_000 // what a server must take (RFC 6120, section 13.12)
	maxStanza   = 64 << 20
	maxRate     = 100_000 // users a second
	maxTime     = 365 * 24 * time.Hour
	maxTokens   = 100
	maxAge      = 24 * time.Hour
	maxBulk     = 10_000 // users in one request
)

// Texts that several errors have in common.
const (
	wantsDomain = "a domain name"
	wantsBytes  = "a number of bytes from 1 to 1073741824"
)

// forbiddenHeaders would break the request or the reading of its response:
// they are of the connection (RFC 9110, section 7.6.1), of the message's
// framing, or, Accept-Encoding, make the HTTP client leave a response packed.
var forbiddenHeaders = []string{
	"accept-encoding", "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// Validate reports the first value of c that is missing or senseless, in one
// line. [Load] has called it.
func (c Config) Validate() error {
	for _, check := range []func() error{c.XMPP.validate, c.validateURLs, c.Contacts.validate, c.Refresh.validate, c.Metrics.validate, c.State.validate, c.Limits.validate, c.Log.validate} {
		if err := check(); err != nil {
			return err
		}
	}
	if _, port, _ := net.SplitHostPort(c.Metrics.Listen); c.Metrics.Listen == c.Refresh.Listen && !isZero(port) {
		return problem("metrics.listen", "an address of its own", show(c.Metrics.Listen)+", which is refresh.listen")
	}
	return nil
}

func (x XMPP) validate() error {
	if host, port, ok := splitAddress(x.Address); !ok || host == "" || isZero(port) {
		return addressProblem("xmpp.address", x.Address, "1", Default().XMPP.Address)
	}
	if x.Domain == "" {
		return problem("xmpp.domain", "this component's own domain", nothing)
	}
	if err := checkDomain("xmpp.domain", x.Domain); err != nil {
		return err
	}
	if x.Secret == "" {
		return problem("xmpp.secret", "the secret shared with the server, here or in xmpp.secret_file", nothing)
	}
	if hasControls(x.Secret) {
		return problem("xmpp.secret", "a text without control characters", "")
	}
	if len(x.Hosts) == 0 {
		return problem("xmpp.hosts", "the domains whose users are served", nothing)
	}
	for i, h := range x.Hosts {
		if err := checkDomain("xmpp.hosts", h); err != nil {
			return err
		}
		if h == x.Domain {
			return problem("xmpp.hosts", "domains of users", show(h)+", which is xmpp.domain")
		}
		if slices.Contains(x.Hosts[:i], h) {
			return problem("xmpp.hosts", "each domain once", show(h)+" twice")
		}
	}
	if !slices.Contains([]string{"auto", "relay", "off"}, x.Presence) {
		return problem("xmpp.presence", "auto, relay or off", show(x.Presence))
	}
	if x.Presence == "relay" && !x.Unrestricted {
		// The server would drop every stanza, or worse, end the stream.
		return problem("xmpp.presence", "auto or off, as xmpp.unrestricted is false", show(x.Presence))
	}
	if x.MaxStanzaBytes < minStanza || x.MaxStanzaBytes > maxStanza {
		return problem("xmpp.max_stanza_bytes", "a number of bytes from 10000 to 67108864", strconv.Itoa(x.MaxStanzaBytes))
	}
	return x.TLS.validate()
}

// checkDomain wants a domain in its prepared form, as it is compared with what
// the server stamps.
func checkDomain(key, d string) error {
	if p, err := jid.PrepareDomain(d); err != nil {
		return problem(key, wantsDomain, show(d))
	} else if p != d {
		return problem(key, wantsDomain+" that is prepared, "+show(p), show(d))
	}
	return nil
}

func (c Contacts) validate() error {
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		return problem("contacts.timeout", "a time from 10ms to 10m", show(c.Timeout.String()))
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > maxInFlight {
		return problem("contacts.max_in_flight", "a number from 1 to 10000", strconv.Itoa(c.MaxInFlight))
	}
	if c.MaxBytes < 1 || c.MaxBytes > maxBytes {
		return problem("contacts.max_bytes", wantsBytes, strconv.FormatInt(c.MaxBytes, 10))
	}
	if c.MaxAge < 0 || c.MaxAge > maxAge {
		return problem("contacts.max_age", "a time from 0s to 24h", show(c.MaxAge.String()))
	}
	if c.BulkSize < 1 || c.BulkSize > maxBulk {
		return problem("contacts.bulk_size", "a number from 1 to 10000", strconv.Itoa(c.BulkSize))
	}
	if err := checkToken("contacts.token", c.Token); err != nil {
		return err
	}
	if err := checkPath("contacts.tls.ca", c.TLS.CA); err != nil {
		return err
	}
	if err := c.validateFailing(); err != nil {
		return err
	}
	return c.validateHeaders()
}

// validateFailing looks at what is done when the backend fails, or seems to.
func (c Contacts) validateFailing() error {
	if c.MaxStale < 0 || c.MaxStale > maxTime {
		return problem("contacts.max_stale", "a time from 0s, which is any, to 8760h", show(c.MaxStale.String()))
	}
	if c.NotFound != "error" && c.NotFound != "empty" {
		return problem("contacts.not_found", "error or empty", show(c.NotFound))
	}
	if !(c.MaxRemoved >= 0 && c.MaxRemoved <= 1) {
		return problem("contacts.max_removed", "a number from 0 to 1", showNumber(c.MaxRemoved))
	}
	if c.ConfirmAfter < minTimeout || c.ConfirmAfter > 24*time.Hour {
		return problem("contacts.confirm_after", "a time from 10ms to 24h", show(c.ConfirmAfter.String()))
	}
	if c.ResyncRate < 1 || c.ResyncRate > maxRate {
		return problem("contacts.resync_rate", "a number from 1 to 100000", strconv.Itoa(c.ResyncRate))
	}
	return nil
}

func showNumber(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func (c Contacts) validateHeaders() error {
	seen := make(map[string]bool)
	for _, n := range sortedKeys(c.Headers) {
		key, lower := headersKey+"."+showName(n), strings.ToLower(n)
		switch {
		case !httpguts.ValidHeaderFieldName(n):
			return problem(key, "the name of an HTTP header", "")
		case !httpguts.ValidHeaderFieldValue(c.Headers[n].Reveal()):
			return problem(key, "a text without control characters", "")
		case slices.Contains(forbiddenHeaders, lower):
			return problem(key, "to be left out, rosterd itself decides on this header", "")
		case lower == "authorization" && c.Token != "":
			return problem(key, "to stand alone", "contacts.token beside it")
		case seen[lower]:
			return problem(key, "each header once", "")
		}
		seen[lower] = true
	}
	return nil
}

func (r Refresh) validate() error {
	host, _, ok := splitAddress(r.Listen)
	if !ok {
		return addressProblem("refresh.listen", r.Listen, "0", Default().Refresh.Listen)
	}
	if err := checkToken("refresh.token", r.Token); err != nil {
		return err
	}
	if len(r.Tokens) > maxTokens {
		return problem("refresh.tokens", "at most 100 of them", strconv.Itoa(len(r.Tokens)))
	}
	for i, token := range r.Tokens {
		if err := checkToken("refresh.tokens", token); err != nil {
			return err
		}
		if token == "" || slices.Contains(r.Tokens[:i], token) {
			return problem("refresh.tokens", "each token once, and none empty", "")
		}
	}
	if err := r.TLS.validate(); err != nil {
		return err
	}
	if r.Token == "" && len(r.Tokens) == 0 && r.TLS.ClientCA == "" && !isLoopback(host) {
		return problem("refresh.token", "a token, here or in refresh.token_file, as refresh.listen "+show(r.Listen)+" is not loopback", nothing)
	}
	if r.MaxBytes < 1 || r.MaxBytes > maxBytes {
		return problem("refresh.max_bytes", wantsBytes, strconv.FormatInt(r.MaxBytes, 10))
	}
	return nil
}

func (s State) validate() error { return checkPath("state.path", s.Path) }

func (l Limits) validate() error {
	if l.QueriesBurst < 1 || l.QueriesBurst > 1_000_000 {
		return problem("limits.queries_burst", "a number from 1 to 1000000", strconv.Itoa(l.QueriesBurst))
	}
	if !(l.QueriesPerSecond >= 0.001 && l.QueriesPerSecond <= 1_000_000) {
		return problem("limits.queries_per_second", "a number from 0.001 to 1000000", showNumber(l.QueriesPerSecond))
	}
	return nil
}

func (m Metrics) validate() error {
	if _, _, ok := splitAddress(m.Listen); !ok {
		return addressProblem("metrics.listen", m.Listen, "0", Default().Metrics.Listen)
	}
	return nil
}

func (l Log) validate() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		return problem("log.level", "debug, info, warn or error", show(l.Level))
	}
	if l.Format != "text" && l.Format != "json" {
		return problem("log.format", "text or json", show(l.Format))
	}
	return nil
}

// checkToken wants what can be sent behind "Bearer " and arrive as it was:
// HTTP takes the spaces around a header's value away.
func checkToken(key string, s Secret) error {
	if hasControls(s) || strings.Trim(s.Reveal(), " ") != s.Reveal() {
		return problem(key, "a text without control characters, nor spaces around it", "")
	}
	return nil
}

func hasControls(s Secret) bool { return strings.ContainsFunc(s.Reveal(), isControl) }

func isControl(r rune) bool { return r < ' ' || r == 0x7F }

// checkPath wants what can be the name of a file, or nothing. Whether the file
// is there, and good, sees who opens it.
func checkPath(key, path string) error {
	if strings.ContainsFunc(path, isControl) {
		return problem(key, "a file name without control characters", show(path))
	}
	return nil
}

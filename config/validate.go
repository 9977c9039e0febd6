package config

import (
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"rosterd/jid"
)

// Texts that several errors have in common.
const (
	wantsDomain   = "a domain name"
	wantsDial     = "host:port with a port from 1 to 65535, as in 127.0.0.1:5347 or [::1]:5347"
	wantsListen   = "host:port with a port from 0 to 65535, as in 127.0.0.1:5290 or [::1]:5290"
	wantsBytes    = "a number of bytes from 1 to 1073741824"
	wantsPatience = "a time from 10ms to 24h, or never"

	wantsText = "a text without control characters"
	// wantsAdvertise is a URL without a path.
	wantsAdvertise = "the URL at which the other instance reaches refresh.listen of this one, http, or https with refresh.tls, as in http://rosterd-1.internal:5290, or its IP address alone"
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
	var p problems
	x := c.XMPP
	host, port, ok := splitHostPort(x.Address)
	p.want(ok && host != "" && port != 0, "xmpp.address", wantsDial, show(x.Address))
	p.want(x.Domain != "", "xmpp.domain", "this component's own domain", nothing)
	p.domain("xmpp.domain", x.Domain)
	p.want(x.Secret != "", "xmpp.secret", "the secret shared with the server, here or in xmpp.secret_file", nothing)
	p.want(isText(x.Secret), "xmpp.secret", wantsText, "")
	p.want(len(x.Hosts) > 0, "xmpp.hosts", "the domains whose users are served", nothing)
	for i, h := range x.Hosts {
		p.domain("xmpp.hosts", h)
		p.want(h != x.Domain, "xmpp.hosts", "domains of users", show(h)+", which is xmpp.domain")
		p.want(!slices.Contains(x.Hosts[:i], h), "xmpp.hosts", "each domain once", show(h)+" twice")
	}
	p.oneOf("xmpp.presence", x.Presence, "auto", "relay", "off")
	p.oneOf("xmpp.server_roster", x.ServerRoster, "auto", "off")
	// The server would drop every stanza, or worse, end the stream.
	p.want(x.Presence != "relay" || x.Unrestricted, "xmpp.presence", "auto or off, as xmpp.unrestricted is false", show(x.Presence))
	// A server must take 10,000 bytes (RFC 6120, section 13.12).
	within(&p, "xmpp.max_stanza_bytes", "a number of bytes from 10000 to 67108864", x.MaxStanzaBytes, 10_000, 64<<20)
	p.want(x.TLS.ServerName == "" || isDomain(x.TLS.ServerName), "xmpp.tls.server_name", wantsDomain, show(x.TLS.ServerName))
	p.file("xmpp.tls.ca", x.TLS.CA)

	b := c.Contacts
	for _, d := range sortedKeys(b.Hosts) {
		key := join(hostsKey, showName(d))
		p.want(isDomain(d), key, wantsDomain, "")
		p.domain(key, d)
		// Nobody would ever ask there: it is a slip of the pen.
		p.want(slices.Contains(x.Hosts, d), key, "a domain of xmpp.hosts", "")
	}
	if b.URL != "" { // though no domain may use it
		p.url("contacts.url", b.URL, wantsURL)
	}
	if b.BulkURL != "" {
		p.url("contacts.bulk_url", b.BulkURL, wantsBulkURL)
	}
	if b.EditURL != "" {
		p.url("contacts.edit_url", b.EditURL, wantsEditURL)
	}
	for _, h := range x.Hosts {
		_, err := b.TemplateFor(h)
		p.add(err)
		_, err = b.BulkURLFor(h)
		p.add(err)
		_, err = b.EditURLFor(h)
		p.add(err)
	}
	within(&p, "contacts.timeout", "a time from 10ms to 10m", b.Timeout, 10*time.Millisecond, 10*time.Minute)
	within(&p, "contacts.max_in_flight", "a number from 1 to 10000", b.MaxInFlight, 1, 10_000)
	within(&p, "contacts.max_bytes", wantsBytes, b.MaxBytes, 1, 1<<30)
	within(&p, "contacts.max_age", "a time from 0s to 24h", b.MaxAge, 0, 24*time.Hour)
	within(&p, "contacts.bulk_size", "a number from 1 to 10000", b.BulkSize, 1, 10_000)
	p.token("contacts.token", b.Token)
	p.file("contacts.tls.ca", b.TLS.CA)
	within(&p, "contacts.max_stale", "a time from 0s, which is any, to 8760h", b.MaxStale, 0, 365*24*time.Hour)
	p.oneOf("contacts.not_found", b.NotFound, "error", "empty")
	within(&p, "contacts.max_removed", "a number from 0 to 1", b.MaxRemoved, 0, 1)
	if b.ConfirmAfter != Never {
		within(&p, "contacts.confirm_after", wantsPatience, time.Duration(b.ConfirmAfter), 10*time.Millisecond, 24*time.Hour)
	}
	within(&p, "contacts.resync_rate", "a number from 1 to 100000", b.ResyncRate, 1, 100_000)
	headers := make(map[string]bool)
	for _, name := range sortedKeys(b.Headers) {
		key, lower := join(headersKey, showName(name)), strings.ToLower(name)
		p.want(httpguts.ValidHeaderFieldName(name), key, "the name of an HTTP header", "")
		p.want(httpguts.ValidHeaderFieldValue(b.Headers[name].Reveal()), key, wantsText, "")
		p.want(!slices.Contains(forbiddenHeaders, lower), key, "to be left out, rosterd itself decides on this header", "")
		p.want(lower != "authorization" || b.Token == "", key, "to stand alone", "contacts.token beside it")
		p.want(!headers[lower], key, "each header once", "")
		headers[lower] = true
	}

	r := c.Refresh
	host, _, ok = splitHostPort(r.Listen)
	p.want(ok, "refresh.listen", wantsListen, show(r.Listen))
	p.token("refresh.token", r.Token)
	p.want(len(r.Tokens) <= 100, "refresh.tokens", "at most 100 of them", strconv.Itoa(len(r.Tokens)))
	for i, token := range r.Tokens[:min(100, len(r.Tokens))] {
		p.token("refresh.tokens", token)
		p.want(token != "" && !slices.Contains(r.Tokens[:i], token), "refresh.tokens", "each token once, and none empty", "")
	}
	p.file("refresh.tls.cert", r.TLS.Cert)
	p.file("refresh.tls.key", r.TLS.Key)
	p.file("refresh.tls.client_ca", r.TLS.ClientCA)
	p.want(r.TLS.Cert != "" || r.TLS.Key == "", "refresh.tls.cert", "the file of the certificate that refresh.tls.key belongs to", nothing)
	p.want(r.TLS.Cert == "" || r.TLS.Key != "", "refresh.tls.key", "the file of the key that refresh.tls.cert belongs to", nothing)
	p.want(r.TLS.Cert != "" || r.TLS.ClientCA == "", "refresh.tls.client_ca", "refresh.tls.cert and refresh.tls.key beside it", nothing)
	p.want(r.Token != "" || len(r.Tokens) > 0 || r.TLS.ClientCA != "" || isLoopback(host), "refresh.token",
		"a token, here or in refresh.token_file, as refresh.listen "+show(r.Listen)+" is not loopback", nothing)
	if r.Advertise != "" {
		here, err := url.Parse(r.Advertise)
		p.want(err == nil && canDial(here) && here.User == nil && strings.Trim(here.Path, "/") == "" && !strings.ContainsAny(r.Advertise, "?#") &&
			(here.Scheme == "http" && r.TLS.Cert == "" || here.Scheme == "https" && r.TLS.Cert != ""), "refresh.advertise", wantsAdvertise, showURL(r.Advertise))
		p.want(c.State.URL != "", "refresh.advertise", "state.url beside it", show(r.Advertise))
	}
	within(&p, "refresh.max_bytes", wantsBytes, r.MaxBytes, 1, 1<<30)

	_, port, ok = splitHostPort(c.Metrics.Listen)
	p.want(ok, "metrics.listen", wantsListen, show(c.Metrics.Listen))
	p.file("state.path", c.State.Path)
	p.want(c.State.URL == "" || isDatabaseURL(c.State.URL.Reveal()), "state.url", wantsDatabase, "")
	p.want(c.State.URL == "" || c.State.Path == Default().State.Path, "state.path", "to be left out, as state.url is set", show(c.State.Path))
	p.want(c.State.URL == "" || r.Advertise != "", "refresh.advertise", wantsAdvertise+", as state.url is set", nothing)
	within(&p, "state.forget_after", "a time from 0s, which is never", c.State.ForgetAfter, 0, math.MaxInt64)
	within(&p, "limits.queries_burst", "a number from 1 to 1000000", c.Limits.QueriesBurst, 1, 1_000_000)
	within(&p, "limits.queries_per_second", "a number from 0.001 to 1000000", c.Limits.QueriesPerSecond, 0.001, 1_000_000)
	a := c.Ejabberd.API
	_, err := a.BaseURL()
	p.add(err)
	p.token("ejabberd.api.token", a.Token)
	p.want(a.Token == "" || a.User == "", "ejabberd.api.user", "to stand alone", "ejabberd.api.token beside it")
	user, err := jid.Parse(a.User)
	// HTTP ends the name at the first ':' (RFC 7617, section 2).
	p.want(a.User == "" || err == nil && user.Local() != "" && user.IsBare() && !strings.Contains(a.User, ":"), "ejabberd.api.user",
		"the JID of an account, as in admin@example.org", showAccount(a.User))
	p.want(isText(a.Password), "ejabberd.api.password", wantsText, "")
	p.want((a.User == "") == (a.Password == ""), "ejabberd.api.password", "to be set together with ejabberd.api.user", "")
	p.want(a.URL != "" || a.Token == "" && a.User == "", "ejabberd.api.url", "the URL of ejabberd's HTTP API", nothing)
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.oneOf("log.format", c.Log.Format, "text", "json")
	p.want(c.Metrics.Listen != r.Listen || port == 0, "metrics.listen", "an address of its own", show(r.Listen)+", which is refresh.listen")
	return p.first
}

// problems collects the results of checks, of which it keeps the first error.
type problems struct{ first error }

func (p *problems) add(err error) {
	if p.first == nil {
		p.first = err
	}
}

// want adds the problem of a value that is not ok.
func (p *problems) want(ok bool, key, wants, got string) {
	if !ok {
		p.add(problem(key, wants, got))
	}
}

// within wants a number, or a time, from low to high, which refuses NaN.
func within[T int | int64 | float64 | time.Duration](p *problems, key, wants string, got, low, high T) {
	p.want(low <= got && got <= high, key, wants, show(got))
}

func (p *problems) oneOf(key, got string, words ...string) {
	last := len(words) - 1
	p.want(slices.Contains(words, got), key, strings.Join(words[:last], ", ")+" or "+words[last], show(got))
}

// domain wants a prepared domain: it is compared with what the server stamps.
func (p *problems) domain(key, d string) {
	p.want(isDomain(d), key, wantsDomain, show(d))
	p.want(prepared(d) == d, key, wantsDomain+" that is prepared, "+show(prepared(d)), show(d))
}

func (p *problems) url(key, text, wants string) {
	_, err := parseURL(key, text, wants, "example.org")
	p.add(err)
}

// file wants a name that a file can have, or "". Whoever opens the file finds out
// whether it is there, and good.
func (p *problems) file(key, name string) {
	p.want(isText(name), key, "a file name without control characters", show(name))
}

// token wants a text that arrives unchanged when it is sent behind "Bearer ": HTTP
// takes away the spaces around a header's value.
func (p *problems) token(key string, s Secret) {
	p.want(isText(s) && strings.Trim(s.Reveal(), " ") == s.Reveal(), key, wantsText+", nor spaces around it", "")
}

func isText[T ~string](s T) bool {
	return !strings.ContainsFunc(string(s), func(r rune) bool { return r < ' ' || r == 0x7F })
}

func isDomain(s string) bool {
	_, err := jid.PrepareDomain(s)
	return err == nil
}

// prepared is the prepared form of a domain. It returns any other text unchanged.
func prepared(domain string) string {
	if d, err := jid.PrepareDomain(domain); err == nil {
		return d
	}
	return domain
}

// splitHostPort returns the parts of an address. The host is a name, an IP address (IPv6
// in brackets) or empty, which is every address of the machine.
func splitHostPort(address string) (host string, port uint64, ok bool) {
	host, text, err := net.SplitHostPort(address)
	port, portErr := strconv.ParseUint(text, 10, 16)
	_, ipErr := netip.ParseAddr(host)
	return host, port, err == nil && portErr == nil && (ipErr == nil || host == "" || isDomain(host))
}

// isLoopback reports whether only this machine can reach a host.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

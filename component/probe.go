package component

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

// A probe is a roster query of our own to a served host's users, to nobody of them.
// Where the host delegates to us, it comes back to us for an answer, as theirs do;
// and the answer then takes the way that theirs take. COMPAT ejabberd, which
// delegates what goes to the host itself apart from that, and earlier.
//
// What was announced is no proof: servers forget a delegation and do not say so.
// COMPAT ejabberd takes it away when another connection of the component ends;
// Prosody drops it when mod_delegation is reloaded, or the host activated anew.

// Undelegated is the end of a stream because a host's roster queries do not reach
// it any more. A new stream brings them back, if anything does.
type Undelegated struct{ Host string }

func (e *Undelegated) Error() string {
	return "roster queries of " + e.Host + " have ceased to be delegated"
}

// Rival is the end of a stream because an older rosterd is connected as the same
// component: COMPAT ejabberd, which shares queries and presences among them.
type Rival struct{ Domain string }

func (e *Rival) Error() string { return "another rosterd is connected as " + e.Domain }

// prober is the address that probes are from. COMPAT Prosody, which does not
// delegate what is from the component's bare domain.
func (c *Component) prober() string { return c.names.domain() + "/rosterd" }

// probeAddress is the address that probes of a host, as the server spells it, are to.
func (c *Component) probeAddress(spelling string) string { return c.nobody + "@" + spelling }

// probe makes a probe. In the answer to it, ours says that it came back.
func (c *Component) probe(id, to string) []byte {
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: c.prober(), To: to})
	return append(b, "<query xmlns='"+nsRoster+"'/></iq>"...)
}

// suspectFor is how long the presence of another rosterd is looked for.
const suspectFor = 30 * time.Second

// suspect has the hosts probed often for a while: another rosterd may be, or have
// been, connected as the same component.
func (s *stream) suspect() { s.suspected.Store(int64(time.Since(s.began) + suspectFor)) }

// suspicious reports whether that is so now.
func (s *stream) suspicious() bool { return int64(time.Since(s.began)) < s.suspected.Load() }

// proveAll probes each host when a stream begins, when announcements are due, and
// every [Timing].Prove from then on; and often while another rosterd is suspected.
// It returns when ctx ends.
func (c *Component) proveAll(ctx context.Context, s *stream) {
	t := c.opts.Timing
	regular, often := time.NewTicker(t.Prove), time.NewTicker(t.ProveSoon)
	due := time.NewTimer(t.Announce)
	defer regular.Stop()
	defer often.Stop()
	defer due.Stop()
	all := func() {
		for _, host := range c.opts.Hosts {
			c.prove(s, host)
		}
	}
	all()
	for _, host := range c.opts.Hosts {
		c.identify(s, host)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			all()
		case <-regular.C:
			all()
		case <-often.C:
			if s.suspicious() {
				all()
			}
		}
	}
}

// prove sends a probe and draws the conclusion from what becomes of it. It does
// not block: where the server takes nothing now, there is no probe.
func (c *Component) prove(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		c.proveAs(s, host, spelling)
	}
}

// proveAs is prove of a host that may have this spelling. Another one's answer says
// nothing.
func (c *Component) proveAs(s *stream, host, spelling string) {
	before := s.grants.of(host)
	to := c.probeAddress(spelling)
	id, ok := s.iqs.register(to, func(a answer) {
		s.takesAny.Store(!a.lost)
		switch {
		case a.lost:
		case a.ours:
			c.probed(s, host)
		case spelling != c.names.write(host):
		case a.iq == nil:
			c.untestable(s, host)
		case errorCondition(a.iq) == errConflict.condition:
			s.suspect() // it came to another rosterd
		default:
			c.missed(s, host, before)
		}
	})
	if !ok || !s.out.offer(c.probe(id, to)) {
		s.iqs.forget(id)
		return
	}
	// A server may drop it. It reads in order: when it has answered a ping behind
	// it, the probe does not come any more.
	c.sendPing(s, "behind-"+c.nobodyAt(spelling), func(a answer) {
		if a.iq == nil {
			return
		}
		s.takesAny.Store(true)
		time.AfterFunc(c.opts.Timing.Arrive, func() {
			switch {
			case !s.iqs.giveUp(id), spelling != c.names.write(host):
			case before.probed:
				c.missed(s, host, before)
			default:
				c.untestable(s, host)
			}
		})
	})
}

// reached notes that a host's query has come through its delegation.
func (c *Component) reached(s *stream, host string) {
	if s.grants.of(host).queries == arrivalProven {
		return
	}
	_, after := s.grants.change(host, func(g *grant) { g.queries = arrivalProven })
	if after.delegation == "" {
		s.suspect() // who was told of the delegation, if it was not us?
	}
	c.opts.Logger.Info("roster queries arrive", "host", host)
}

// probed notes that a probe has come.
func (c *Component) probed(s *stream, host string) {
	if !s.grants.of(host).probed {
		s.grants.change(host, func(g *grant) { g.probed = true })
	}
	c.reached(s, host)
}

// untestable notes that nobody answers probes.
func (c *Component) untestable(s *stream, host string) {
	s.grants.change(host, func(g *grant) {
		if g.queries == arrivalUnknown {
			g.queries = arrivalUntestable
		}
	})
}

// missed notes that the server has answered a probe itself, or lost it. It ends the
// stream if probes arrived before, or should have for long, by what was announced.
// Where users' queries arrive and no probe ever did, a probe tells nothing.
func (c *Component) missed(s *stream, host string, before grant) {
	_, after := s.grants.change(host, func(g *grant) {
		switch {
		case g.queries == arrivalProven && !(before.queries == arrivalProven && before.probed): // a query came meanwhile, or no probe ever did
		case g.filtered && !before.probed:
			g.queries = arrivalUntestable // a probe is none of the queries that are delegated
		default:
			g.queries = arrivalMissed
		}
	})
	if after.queries == arrivalMissed && (before.queries == arrivalProven || before.queries == arrivalMissed && before.delegation != "") {
		s.end(&Undelegated{host})
	}
}

// arrived answers a probe that came back. It may be another rosterd's: then one of
// the two must go. The younger one does; the older one will find that the server
// has taken its delegation away with the other's connection.
func (c *Component) arrived(s *stream, host string, probe delegated, id string) {
	if s.iqs.arrive(id) {
		c.offer(s, probe.refusal(errNotAllowed))
		c.probed(s, host)
		return
	}
	c.offer(s, probe.refusal(errConflict))
	s.suspect()
	if born, ok := bornOf(id); ok && born < c.born {
		c.closeStream(s, &Rival{c.opts.Domain})
	}
}

// idPrefix begins the ids of a stream. It tells when the component was made, and
// nobody can guess the rest.
func (c *Component) idPrefix() string {
	return strconv.FormatInt(c.born, 36) + "-" + rand.Text()[:13] + "-"
}

// bornOf is when the component was made of which an id is, in microseconds since
// 1970.
func bornOf(id string) (micros int64, ok bool) {
	parts := strings.Split(id, "-")
	if len(parts) != 3 || len(parts[1]) != 13 {
		return 0, false
	}
	micros, err := strconv.ParseInt(parts[0], 36, 64)
	return micros, err == nil && micros > 0
}

// maxLocalRetry is the longest pause where the server is on this machine: an
// attempt costs nothing there, and each second counts.
const maxLocalRetry = 2 * time.Second

// newBackoff is that of the attempts to connect.
func (c *Component) newBackoff() *backoff {
	longest := c.opts.Timing.MaxRetry
	host, _, _ := net.SplitHostPort(c.opts.Address)
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		longest = min(longest, maxLocalRetry)
	}
	return &backoff{min: c.opts.Timing.MinRetry, max: longest}
}

// pauseAfter is the pause before the next attempt to connect, after one has
// failed with err, or a stream has ended with it.
func (c *Component) pauseAfter(err error, retry *backoff) time.Duration {
	var (
		refused *StreamError
		rival   *Rival
	)
	switch {
	case errors.As(err, &rival):
		return c.opts.Timing.MaxRetry // each of our attempts disturbs the other
	case errors.As(err, &refused) && refused.Handshake && refused.Condition == "conflict":
		return c.opts.Timing.MinRetry // the other may be gone at any time
	}
	return retry.next()
}

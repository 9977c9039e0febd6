package component

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"strconv"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

// Servers forget a delegation that they announced. COMPAT ejabberd does so when another
// connection of the component ends; Prosody when mod_delegation is reloaded, or the host
// activated anew. So each host is probed, with a roster query to a user who does not
// exist. If the host delegates, it comes back to us, as the users' queries do. COMPAT
// ejabberd delegates what goes to the host itself in another way, and earlier.

// undelegated ends a stream: a host's roster queries do not reach it any more.
type undelegated struct{ host string }

func (e *undelegated) Error() string {
	return "roster queries of " + e.host + " have ceased to be delegated"
}

// unreached ends a stream of an instance of a pair: a host's roster queries do not reach it.
// COMPAT ejabberd, which takes the delegation away when it learns, too late, that the
// instance before has gone.
type unreached struct{ host string }

func (e *unreached) Error() string { return "roster queries of " + e.host + " do not arrive" }

// unprivileged ends a stream: what a host has permitted on it, it drops now.
type unprivileged struct{ host string }

func (e *unprivileged) Error() string {
	return e.host + " drops roster pushes, which it has announced to permit"
}

// maxReach is how many streams are ended for either: a host may not delegate at all.
const maxReach = 3

// reach ends a stream if it is not proven that queries of a host reach it, but for the last of some: a probe may be
// lost in silence. COMPAT ejabberd 26.07. Without an announcement a query that came is no proof: a moment later the
// server may have taken the delegation away, which is noticed only where probes came.
func (c *Component) reach(s *stream) {
	for _, host := range c.opts.Hosts {
		g := s.grants.of(host)
		if proven := g.delegated() && (g.probed || g.delegation != ""); !proven && c.reached < maxReach {
			c.reached++
			s.end(&unreached{host})
			return
		}
	}
	c.reached = maxReach
}

// rival ends a stream: an older rosterd is connected as the same component. COMPAT
// ejabberd, which shares queries and presences among them.
type rival struct{ domain string }

func (e *rival) Error() string { return "another rosterd is connected as " + e.domain }

func isRival(err error) bool {
	_, is := errors.AsType[*rival](err)
	return is
}

// probe returns a probe of a host, as the server spells it.
func (c *Component) probe(spelling string) request {
	return request{from: c.prober(), to: c.nobody + "@" + spelling, payload: "<query xmlns='" + nsRoster + "'/>"}
}

// prober is the address that probes are from. COMPAT Prosody, which does not delegate
// what is from the component's bare domain.
func (c *Component) prober() string { return c.names.domain() + "/rosterd" }

// nobodyAt is an address at which a server answers for a host at once, with an error
// (RFC 6121, section 8.5.1). COMPAT ejabberd from 24.10 on, which passes on no ping to
// the host itself.
func (c *Component) nobodyAt(spelling string) string { return c.nobody + "@" + spelling + "/nowhere" }

// suspect has the hosts probed often for a while: another rosterd may be, or have
// been, connected as the same component.
func (s *stream) suspect() { s.suspected.Store(int64(time.Since(s.began) + 30*time.Second)) }

// proveDelegation sends a host a probe, and draws the conclusion from what becomes of
// it. It does not block: if the queue is full, there is no probe. Only the answer to
// the right spelling of the host counts.
func (c *Component) proveDelegation(s *stream, host string) {
	before := s.grants.of(host)
	for _, spelling := range c.names.candidates(host) {
		probe := c.probe(spelling)
		probe.proof = true
		id := s.request(probe, s.out.offer, func(a answer) {
			if a.lost() {
				return
			}
			s.takesAny.Store(true)
			switch {
			case spelling != c.names.write(host):
			case a.err != nil:
				s.probeUnanswered(host)
			case errorCondition(a.iq) == errConflict.condition:
				s.suspect() // it came to another rosterd
			default:
				s.probeFailed(host, before)
			}
		})
		// A server may drop it. When it has answered a ping behind it, the probe does
		// not come any more.
		s.ping("behind-"+c.nobodyAt(spelling), s.out.offer, func(a answer) {
			if a.iq == nil {
				return
			}
			s.takesAny.Store(true)
			time.AfterFunc(c.opts.Timing.Arrive, func() {
				switch {
				case !s.iqs.cancel(id), spelling != c.names.write(host):
				case before.probed:
					s.probeFailed(host, before)
				default:
					s.probeUnanswered(host)
				}
			})
		})
	}
}

// queryArrived notes that a host's query has come through its delegation.
func (c *Component) queryArrived(s *stream, host string) {
	if s.grants.of(host).queries == queriesArrive {
		return
	}
	_, after := s.grants.change(host, func(g *grant) { g.queries = queriesArrive })
	if after.delegation == "" {
		s.suspect() // who was told of the delegation, if it was not us?
	}
	c.opts.Logger.Info("roster queries arrive", "host", host)
}

// probeUnanswered notes that nobody answers probes.
func (s *stream) probeUnanswered(host string) {
	s.grants.change(host, func(g *grant) {
		if g.queries == queriesUnknown {
			g.queries = queriesUnproven
		}
	})
}

// probeFailed notes that the server has answered a probe itself, or lost it. It ends
// the stream if probes arrived before, or failed before in spite of an announcement.
// Where users' queries arrive and no probe ever did, a probe tells nothing.
func (s *stream) probeFailed(host string, before grant) {
	_, after := s.grants.change(host, func(g *grant) {
		switch {
		case g.queries == queriesArrive && !(before.queries == queriesArrive && before.probed):
		case g.filtered && !before.probed:
			g.queries = queriesUnproven // a probe is none of the queries that are delegated
		default:
			g.queries = queriesElsewhere
		}
	})
	if after.queries == queriesElsewhere && (before.queries == queriesArrive || before.queries == queriesElsewhere && before.delegation != "") {
		s.end(&undelegated{host})
	}
}

// probeArrived answers a probe that was delegated to us. If it is another rosterd's, the
// younger of the two goes; the older one will find that the server has taken its
// delegation away with the other's connection.
func (c *Component) probeArrived(s *stream, host string, e envelope, id string) {
	if s.iqs.arrived(id) {
		c.offer(s, e.refusal(errNotAllowed))
		s.takesAny.Store(true)
		if !s.grants.of(host).probed {
			s.grants.change(host, func(g *grant) { g.probed = true })
		}
		c.queryArrived(s, host)
		return
	}
	c.offer(s, e.refusal(errConflict))
	s.suspect()
	if born, ok := bornOf(id); ok && born < c.born && !c.opts.Pair {
		c.closeStream(s, &rival{c.opts.Domain})
	}
}

// idPrefix begins the ids of a stream. It tells when the component was made, and
// nobody can guess the rest.
func (c *Component) idPrefix() string {
	return strconv.FormatInt(c.born, 36) + "-" + rand.Text()[:13] + "-"
}

// bornOf returns when the component was made that made an id, see [Component].born.
func bornOf(id string) (micros int64, ok bool) {
	parts := strings.Split(id, "-")
	if len(parts) != 3 || len(parts[1]) != 13 {
		return 0, false
	}
	micros, err := strconv.ParseInt(parts[0], 36, 64)
	return micros, err == nil && micros > 0
}

// identify asks a host for its software (XEP-0092).
func (c *Component) identify(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		r := request{to: spelling, payload: "<query xmlns='" + nsVersion + "'/>"}
		s.request(r, s.out.offer, func(a answer) {
			var version struct {
				Name    string `xml:"query>name"`
				Version string `xml:"query>version"`
			}
			if a.iq == nil || xml.Unmarshal(a.iq.Raw, &version) != nil || version.Name == "" {
				return
			}
			const max = 128 // bytes
			software := strings.TrimSpace(version.Name + " " + version.Version)
			software = strings.ToValidUTF8(software[:min(len(software), max)], "")
			s.grants.change(host, func(g *grant) { g.software = software })
			if s.grants.of(host).keepsQueries() {
				c.opts.Logger.Error("rosterd cannot serve this host", "host", host, "software", short(software),
					"check", "the server answers every roster query from its own rosters, whoever is asked")
			}
		})
	}
}

// elsewhere are the conditions with which servers answer for a domain that is none of
// theirs, "not-allowed" without federation.
var elsewhere = map[string]bool{"remote-server-not-found": true, "remote-server-timeout": true, "not-allowed": true}

// Lacks reports whether the server says that it has no virtual host of that name. It
// waits for the answer until ctx ends; without one it is false.
func (c *Component) Lacks(ctx context.Context, host string) bool {
	s, _ := c.current()
	if s == nil {
		return false
	}
	for _, spelling := range c.names.candidates(host) {
		answers := make(chan answer, 1)
		s.ping(c.nobodyAt(spelling), s.out.offer, func(a answer) { answers <- a })
		select {
		case a := <-answers:
			if a.iq == nil || !isError(a.iq) || !elsewhere[errorCondition(a.iq)] {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// absence is how a host answers for a resource that is not there.
type absence int

const (
	absenceUnknown   absence = iota
	absenceAmbiguous         // as a client may that does not know XEP-0199, or a server for a user who has blocked us
	absenceCertain           // with an error that has a text, as ejabberd's has
)

// testAbsence finds out how a server answers for a resource that is not there. If the
// address comes back as it was sent, the server stamps those of users as they were typed.
// A host that reports who is there has done so before it answers this.
func (c *Component) testAbsence(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		to := "Rosterd-Asks-For-Nobody-" + rand.Text() + "@" + spelling + "/nowhere"
		r := request{to: to, prepared: strings.ToLower(to), payload: pingPayload}
		s.request(r, s.out.offer, func(a answer) {
			if a.iq == nil {
				return
			}
			condition := errorCondition(a.iq)
			ours := condition != "" && !elsewhere[condition] // of the server that the users have
			if ours {
				c.names.host(spelling)
			}
			s.grants.change(host, func(g *grant) {
				if g.reported.IsZero() {
					g.reported = time.Now()
				}
				if condition == "service-unavailable" {
					if g.absent = absenceAmbiguous; isCertainlyGone(a.iq) {
						g.absent = absenceCertain
					}
				}
				if ours {
					if g.stamps = stampsPrepared; a.iq.Get("from") == to {
						g.stamps = stampsTyped
					}
				}
			})
		})
	}
}

// Whether the server takes stanzas from every address of the served hosts.
const (
	AnyUnproven = "unproven" // it is being tried, or there is no stream
	AnyTaken    = "taken"
	AnyRefused  = "refused" // it has ended a stream because of one: the routes are those without
)

// takesAny is one of these, or "" without [Options].Unrestricted. s may be nil.
func (c *Component) takesAny(s *stream) string {
	switch {
	case !c.opts.Unrestricted:
		return ""
	case !c.unrestricted.Load():
		return AnyRefused
	case s != nil && s.takesAny.Load():
		return AnyTaken
	}
	return AnyUnproven
}

// tryAddress begins a stream with a stanza from a host's address, to the component
// itself. A server that does not take it ends the stream, at once and not at somebody's
// push much later. Any answer to what follows says that the server has taken it. It has
// a resource: COMPAT ejabberd 24.12, where mod_privilege fails at an answer without
// payload to a domain.
func (c *Component) tryAddress(s *stream) {
	if c.unrestricted.Load() {
		r := request{kind: stanza.IQTypeResult, from: c.names.write(c.opts.Hosts[0]), to: c.prober()}
		_ = s.out.offer(s.iq(r, s.iqs.id())) // the queue is empty yet
	}
}

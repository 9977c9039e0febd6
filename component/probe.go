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

// An announcement is no proof: servers forget a delegation and do not say so. COMPAT
// ejabberd takes it away when another connection of the component ends; Prosody drops
// it when mod_delegation is reloaded, or the host activated anew.
//
// So each host is probed. A probe is a roster query of our own to nobody of the host's
// users. Where the host delegates to us, it comes back to us for an answer, as the
// users' queries do; and that answer takes the way of the answers to them. COMPAT
// ejabberd delegates what goes to the host itself apart from that, and earlier.

// undelegated ends a stream: a host's roster queries do not reach it any more. A new
// stream brings them back, if anything does.
type undelegated struct{ host string }

func (e *undelegated) Error() string {
	return "roster queries of " + e.host + " have ceased to be delegated"
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

// nobodyAt is an address at which a server answers for a host, as it spells it, at
// once: as nobody is there, with an error (RFC 6121, section 8.5.1). COMPAT ejabberd
// from 24.10 on, which passes on no ping to the host itself.
func (c *Component) nobodyAt(spelling string) string { return c.nobody + "@" + spelling + "/nowhere" }

// suspectFor is how long the presence of another rosterd is looked for.
const suspectFor = 30 * time.Second

// suspect has the hosts probed often for a while: another rosterd may be, or have
// been, connected as the same component.
func (s *stream) suspect() { s.suspected.Store(int64(time.Since(s.began) + suspectFor)) }

// proveDelegation sends a host a probe, and draws the conclusion from what becomes of
// it. It does not block: where the server takes nothing now, there is no probe. If it
// is not known how the server spells the host, only the answer to the right spelling
// counts.
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
		// A server may drop it. It reads in order: when it has answered a ping behind
		// it, the probe does not come any more.
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
// the stream if probes arrived before, or should have for long, by what was announced.
// Where users' queries arrive and no probe ever did, a probe tells nothing.
func (s *stream) probeFailed(host string, before grant) {
	_, after := s.grants.change(host, func(g *grant) {
		switch {
		case g.queries == queriesArrive && !(before.queries == queriesArrive && before.probed): // a query came meanwhile, or no probe ever did
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

// probeArrived answers a probe that was delegated to us. It may be another rosterd's:
// then one of the two must go. The younger one does; the older one will find that the
// server has taken its delegation away with the other's connection.
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
	if born, ok := bornOf(id); ok && born < c.born {
		c.closeStream(s, &rival{c.opts.Domain})
	}
}

// idPrefix begins the ids of a stream. It tells when the component was made, and
// nobody can guess the rest.
func (c *Component) idPrefix() string {
	return strconv.FormatInt(c.born, 36) + "-" + rand.Text()[:13] + "-"
}

// bornOf returns when the component was made that made an id, in microseconds since
// 1970.
func bornOf(id string) (micros int64, ok bool) {
	parts := strings.Split(id, "-")
	if len(parts) != 3 || len(parts[1]) != 13 {
		return 0, false
	}
	micros, err := strconv.ParseInt(parts[0], 36, 64)
	return micros, err == nil && micros > 0
}

// identify finds out whether roster queries of a host that does not delegate can come
// here at all. COMPAT jabberd2, tried: 2.7.0: they cannot, even if they are addressed to
// us. Nothing but the name that a server gives itself (XEP-0092) tells.
func (c *Component) identify(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		r := request{to: spelling, payload: "<query xmlns='" + nsVersion + "'/>"}
		s.request(r, s.out.offer, func(a answer) {
			var version struct {
				Name    string `xml:"query>name"`
				Version string `xml:"query>version"`
			}
			if a.iq == nil || xml.Unmarshal(a.iq.Raw, &version) != nil || !strings.HasPrefix(strings.ToLower(version.Name), "jabberd") {
				return
			}
			software := short(version.Name + " " + version.Version)
			s.grants.change(host, func(g *grant) { g.keeps = software })
			c.opts.Logger.Error("rosterd cannot serve this host", "host", host, "software", software,
				"check", "the server answers every roster query from its own rosters, whoever is asked")
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

// testAbsence finds out how a server answers for a resource that is not there, and
// whether an address comes back as it was sent: then it stamps those of users as they
// were typed. Until it has answered, the absence of an earlier stream holds. By then a
// host has also reported who is there, if it does so: it does at once, and answers
// this afterwards.
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

// Whether the server takes stanzas from every address of the served hosts, as
// [Options].Unrestricted says.
const (
	AnyUnproven = "unproven" // it is being tried, or there is no stream
	AnyTaken    = "taken"
	AnyRefused  = "refused" // it has ended a stream because of one: the routes are those without
)

// takesAny is one of these, or "" if nobody says so. s may be nil.
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

// tryAddress tries it with the first thing that is sent on a stream: one that nobody
// acts on, to the component itself. A server that does not take it ends the stream,
// which is better than to lose somebody's push in this way, much later. Any answer to
// what follows, see [Component.proveDelegation], says that it does. It has a resource:
// COMPAT ejabberd 24.12, where mod_privilege fails at an answer without payload to a
// domain.
func (c *Component) tryAddress(s *stream) {
	if c.unrestricted.Load() {
		r := request{kind: stanza.IQTypeResult, from: c.names.write(c.opts.Hosts[0]), to: c.prober()}
		_ = s.out.offer(s.iq(r, s.iqs.id())) // the queue is empty yet
	}
}

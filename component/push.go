package component

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
)

// The values of the label result of rosterd_pushes_total.
const (
	pushOK         = "ok"         // the client confirmed
	pushGone       = "gone"       // the resource is not there any more
	pushRefused    = "refused"    // the server does not let rosterd push
	pushLost       = "lost"       // the stream broke first
	pushUnanswered = "unanswered" // sent, and nobody confirmed it
)

// PushResults are all values of the label.
var PushResults = []string{pushOK, pushGone, pushRefused, pushLost, pushUnanswered}

// Actions are all values of the label action of rosterd_pushes_total.
var Actions = []string{string(roster.Added), string(roster.Changed), string(roster.Removed)}

var (
	errPushLost     = errors.New("the stream to the server broke before the push was confirmed")
	errTooLarge     = fmt.Errorf("a contact's name and groups take more than %d bytes", maxSent-maxWrap)
	errNotAnnounced = errors.New("the server has not announced its privileges yet")
)

// Push sends each change to each of the resources, all of one user: a roster
// push (RFC 6121, section 2.1.6) that the server sends in the user's name
// (XEP-0356, section 6). It blocks while the queue to the server is full.
// settled is called once, when every push was answered, refused or given up.
func (c *Component) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) {
	p := &pushes{c: c, left: len(to)*len(changes) + 1, owed: make(map[jid.JID]struct{}), settled: settled}
	host := to[0].Domain()
	s, g := c.permitted(host)
	p.sendAll(s, g, to, changes)
	p.done() // the one that held back settled until all were counted
	// What was not sent because permission had not come yet is sent again when
	// it comes; it may have come meanwhile.
	if _, now := c.permitted(host); now.push && !g.push {
		c.rosters.Resume(host)
	}
}

// permitted is the stream, nil if there is none, and what a host grants on it.
func (c *Component) permitted(host string) (*stream, grant) {
	s, _ := c.current()
	if s == nil {
		return nil, grant{}
	}
	return s, s.grants.of(host)
}

// pushes are those of one call of Push.
type pushes struct {
	c *Component

	mu      sync.Mutex
	left    int
	owed    map[jid.JID]struct{}
	outcome roster.Outcome
	settled func(roster.Outcome)
}

// sendAll sends what can be sent, and fails the rest.
func (p *pushes) sendAll(s *stream, g grant, to []jid.JID, changes []roster.Change) {
	for _, change := range changes {
		payload := appendChange(nil, change)
		for _, full := range to {
			switch {
			case s == nil:
				p.fail(change, pushLost, errPushLost)
			case !g.push && g.privilege == "" && time.Since(s.began) < p.c.opts.Timing.Announce:
				p.fail(change, pushLost, errNotAnnounced)
			case len(payload) > maxSent-maxWrap:
				p.fail(change, pushRefused, errTooLarge)
			case !g.push:
				p.fail(change, pushRefused, fmt.Errorf("%s has not permitted privileged IQs of type set for %s", to[0].Domain(), nsRoster))
			default:
				p.send(s, g.privilege, full, change, payload)
			}
		}
	}
}

func (p *pushes) send(s *stream, ns string, full jid.JID, change roster.Change, payload []byte) {
	user := full.Bare().String()
	id, ok := s.iqs.register(user, func(a answer) { p.answered(full, change, a) })
	if !ok {
		p.fail(change, pushLost, errPushLost)
		return
	}
	b := appendOpen(nil, "iq", stanza.Attrs{Type: stanza.IQTypeSet, Id: id, From: p.c.opts.Domain, To: user})
	b = append(append(append(b, "><privileged_iq xmlns='"...), ns...), "'>"...)
	b = append(appendOpen(b, "iq xmlns='"+stanza.NSClient+"'", stanza.Attrs{Type: stanza.IQTypeSet, Id: id, To: full.String()}), '>')
	b = append(append(b, payload...), "</iq></privileged_iq></iq>"...)
	if s.out.put(b) != nil && s.iqs.forget(id) {
		p.fail(change, pushLost, errPushLost)
	}
}

// answered is called once for each push that was sent.
func (p *pushes) answered(full jid.JID, change roster.Change, a answer) {
	switch {
	case a.lost:
		p.fail(change, pushLost, errPushLost)
	case a.iq == nil:
		// A client that sleeps (XEP-0198) gets the push when it wakes up: it is
		// on its way, and no sign that the resource is gone.
		p.succeed(change, pushUnanswered)
	default:
		switch result, condition := pushResult(a.iq); result {
		case pushRefused:
			p.fail(change, result, fmt.Errorf("the server refused the push: %s", condition))
		case pushGone:
			p.c.gone(full)
			p.succeed(change, result)
		default:
			p.succeed(change, result)
		}
	}
}

// refusals are the conditions in a server's answer to a privileged IQ that mean
// that it will not do such things.
var refusals = map[string]bool{"bad-request": true, "feature-not-implemented": true, "forbidden": true,
	"jid-malformed": true, "not-acceptable": true, "not-allowed": true, "not-authorized": true,
	"policy-violation": true, "registration-required": true, "subscription-required": true}

// pushResult tells what the answer to a privileged IQ means.
func pushResult(iq *element) (result, cond string) {
	if iq.get("type") == string(stanza.IQTypeError) {
		if e := iq.child(stanza.NSComponent, "error"); e != nil {
			cond = condition(e, nsStanzas)
		}
		switch {
		case refusals[cond]:
			return pushRefused, cond
		case cond == "internal-server-error":
			// COMPAT Prosody, which says so when the client answered with an error
			// or slept for 120 s, and also when more than 256 pushes wait for
			// their answers, of those it forgets: the push was delivered.
			return pushUnanswered, ""
		}
		return pushGone, ""
	}
	for _, ns := range [...]string{nsPrivilege1, nsPrivilege2} {
		if w := iq.child(ns, "privilege"); w != nil {
			if f := w.child(nsForward, "forwarded"); f != nil {
				if inner := f.child(stanza.NSClient, "iq"); inner != nil && inner.get("type") == string(stanza.IQTypeError) {
					return pushGone, ""
				}
			}
		}
	}
	return pushOK, ""
}

func (p *pushes) succeed(change roster.Change, result string) {
	p.c.opts.Metrics.Pushes.WithLabelValues(string(change.Action), result).Inc()
	p.done()
}

func (p *pushes) fail(change roster.Change, result string, err error) {
	p.c.opts.Metrics.Pushes.WithLabelValues(string(change.Action), result).Inc()
	p.c.undeliverable(result, err)
	p.mu.Lock()
	p.owed[change.Item.JID] = struct{}{}
	p.outcome.Err = err
	p.outcome.Lost = p.outcome.Lost || result == pushLost
	p.mu.Unlock()
	p.done()
}

// done counts one push less; the last one tells.
func (p *pushes) done() {
	p.mu.Lock()
	p.left--
	last := p.left == 0
	p.mu.Unlock()
	if !last {
		return
	}
	for contact := range p.owed {
		p.outcome.Owed = append(p.outcome.Owed, contact)
	}
	p.settled(p.outcome)
}

// undeliverable logs why a push cannot be delivered, once for each cause and
// stream: the causes are few, the pushes many.
func (c *Component) undeliverable(result string, err error) {
	if _, now := c.undelivered.log(err.Error()); !now {
		return
	}
	switch {
	case result == pushLost:
		c.opts.Logger.Info("roster pushes are not confirmed, they are sent again", "err", err)
	case errors.Is(err, errTooLarge):
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err)
	default:
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err, "check", checkPush(c.opts.Domain))
	}
}

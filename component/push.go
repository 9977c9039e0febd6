package component

import (
	"errors"
	"fmt"
	"sync"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// The values of the label result of rosterd_pushes_total.
const (
	pushOK         = "ok"         // the client confirmed
	pushGone       = "gone"       // the resource is not there any more
	pushRefused    = "refused"    // the server does not let rosterd push
	pushLost       = "lost"       // the stream broke first, or the queue to the server was full
	pushUnanswered = "unanswered" // sent, and nobody confirmed it
	pushSent       = "sent"       // sent in a way that nobody confirms
)

// PushResults are all values of the label.
var PushResults = []string{pushOK, pushGone, pushRefused, pushLost, pushUnanswered, pushSent}

// Actions are all values of the label action of rosterd_pushes_total.
var Actions = []string{string(roster.Added), string(roster.Changed), string(roster.Removed)}

var (
	errPushLost     = fmt.Errorf("%w: the push was not confirmed", roster.ErrNotConnected)
	errPushBlocked  = errors.New("the user has blocked the component")
	errPushFull     = errors.New("the server takes roster pushes too slowly")
	errTooLarge     = errors.New("a contact's name and groups take more than fits into xmpp.max_stanza_bytes")
	errNotAnnounced = fmt.Errorf("%w long enough: it has not announced its privileges yet", roster.ErrNotConnected)
)

// Push sends each change to each of the resources, all of one user, in the best
// way that the user's host grants: see [Ways]. It blocks while the queue to the
// server is full. It fails if nothing can be sent; else settled is called once,
// when every push was answered, refused or given up.
func (c *Component) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	s, g, way, err := c.pushWay(to[0].Domain())
	if err != nil {
		c.undeliverable(err)
		for _, change := range changes {
			c.pushed(change, resultOf(err), len(to))
		}
		return err
	}
	c.behindAnswers(s, to[0].Domain(), to)
	p := &pushes{c: c, left: len(to)*len(changes) + 1, owed: make(map[jid.JID]struct{}), settled: settled}
	defer p.done() // the one that holds back settled until all are counted
	defer p.sent(s, g, to[0].Domain())
	if way == PushExchange {
		p.exchange(s, to, changes)
		return nil
	}
	written := c.names.changes(changes)
	for i, change := range changes {
		payload := appendChange(nil, written[i])
		for _, full := range to {
			if way == PushDirect {
				p.sendDirect(s, full, change, payload)
			} else {
				p.send(s, g.privilege, full, change, payload)
			}
		}
	}
	return nil
}

// pushWay is the stream to send a host's pushes on, and how.
func (c *Component) pushWay(host string) (s *stream, g grant, way string, err error) {
	if s, _ = c.current(); s == nil {
		return nil, grant{}, "", errPushLost
	}
	g = s.grants.of(host)
	if !announcedPush(g, c.late(s)) {
		return nil, grant{}, "", errNotAnnounced
	}
	return s, g, c.ways(host, g, c.late(s)).Push, nil
}

// announcedPush reports whether it is known by now how a host lets rosterd push.
func announcedPush(g grant, late bool) bool { return g.push || g.privilege != "" || late }

// pushed counts n pushes of a change.
func (c *Component) pushed(change roster.Change, result string, n int) {
	c.opts.Metrics.Pushes.WithLabelValues(string(change.Action), result).Add(float64(n))
}

// resultOf is the label for a push that failed.
func resultOf(err error) string {
	if errors.Is(err, roster.ErrNotConnected) || errors.Is(err, errPushFull) {
		return pushLost
	}
	return pushRefused
}

// pushes are those of one call of Push.
type pushes struct {
	c *Component

	mu      sync.Mutex
	left    int
	owed    map[jid.JID]struct{}
	passing bool // one failed for a reason that may pass
	outcome roster.Outcome
	settled func(roster.Outcome)

	// Of the goroutine that sends:
	unconfirmed []roster.Change // sent in a way that nobody confirms
	ids         []sentPush      // sent as privileged IQs
	full        bool            // the queue had no room
}

// sentPush is a push whose answer is waited for.
type sentPush struct {
	id     string
	change roster.Change
}

func (p *pushes) send(s *stream, ns string, full jid.JID, change roster.Change, payload []byte) {
	to := p.c.address(full)
	id, ok := s.iqs.register(bareOf(to), func(a answer) { p.answered(full, change, a) })
	if !ok {
		p.fail(change, errPushLost)
		return
	}
	b := append(append(appendPrivileged(id, p.c.names.domain(), ns, to), payload...), "</iq></privileged_iq></iq>"...)
	if err := p.put(s, b); err != nil && s.iqs.forget(id) {
		p.fail(change, err)
		return
	}
	p.ids = append(p.ids, sentPush{id, change})
}

// appendPrivileged makes the beginning of a privileged IQ set to a full address, in
// its user's name, up to the payload (XEP-0356, section 6).
func appendPrivileged(id, from, ns, to string) []byte {
	return appendPrivilegedIQ(stanza.IQTypeSet, id, from, ns, to)
}

func appendPrivilegedIQ(kind stanza.StanzaType, id, from, ns, to string) []byte {
	b := appendRequest(nil, "", stanza.Attrs{Type: kind, Id: id, From: from, To: bareOf(to)})
	b = append(append(append(b, "<privileged_iq xmlns='"...), ns...), "'>"...)
	return appendRequest(b, stanza.NSClient, stanza.Attrs{Type: kind, Id: id, To: to})
}

// put queues a stanza. When the queue had no room for one, the others do not wait.
func (p *pushes) put(s *stream, data []byte) error {
	switch {
	case len(data) > p.c.opts.MaxStanza:
		return errTooLarge
	case p.full:
		return errPushFull
	}
	switch err := s.out.put(data, nil); {
	case errors.Is(err, errQueueFull):
		p.full = true
		return errPushFull
	case err != nil:
		return errPushLost
	}
	return nil
}

// sendDirect sends a roster push from the user's bare JID, which a server lets
// an unrestricted component do. The client's answer goes to that address, too:
// nobody hears of it here.
func (p *pushes) sendDirect(s *stream, full jid.JID, change roster.Change, payload []byte) {
	to := p.c.address(full)
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeSet, Id: s.iqs.id(), From: bareOf(to), To: to})
	if err := p.put(s, append(append(b, payload...), "</iq>"...)); err != nil {
		p.fail(change, err)
		return
	}
	p.unconfirmed = append(p.unconfirmed, change)
}

// sent settles the pushes that nobody confirms, when it is known that the server
// has read them, or that the stream was lost before. What the server itself had
// to say of them, it has said by then.
func (p *pushes) sent(s *stream, g grant, host string) {
	ids := p.ids
	if !g.unconfirmed {
		ids = nil
	}
	if len(p.unconfirmed)+len(ids) == 0 {
		return
	}
	p.c.behind(s, host, func(a answer) {
		settle := func(change roster.Change) {
			if a.lost {
				p.fail(change, errPushLost)
			} else {
				p.succeed(change, pushSent)
			}
		}
		for _, change := range p.unconfirmed {
			settle(change)
		}
		for _, push := range ids {
			if s.iqs.forget(push.id) {
				settle(push.change)
			}
		}
	})
}

// answered is called once for each push that was sent.
func (p *pushes) answered(full jid.JID, change roster.Change, a answer) {
	switch {
	case a.lost:
		p.fail(change, errPushLost)
	case a.iq == nil:
		// A client that sleeps (XEP-0198) gets the push when it wakes up: it is
		// on its way, and no sign that the resource is gone.
		p.succeed(change, pushUnanswered)
	default:
		switch result, condition := pushResult(a.iq); result {
		case pushRefused:
			p.fail(change, fmt.Errorf("the server refused the push: %s", condition))
		case pushBlocked:
			p.fail(change, errPushBlocked)
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

// pushBlocked is what [pushResult] says beside the values of the label: COMPAT
// Prosody, where no privileged IQ reaches a user who has blocked the component.
const pushBlocked = "blocked"

// pushResult tells what the answer to a privileged IQ means.
func pushResult(iq *xmlstream.Element) (result, cond string) {
	if iq.Get("type") == string(stanza.IQTypeError) {
		if e := iq.Child(stanza.NSComponent, "error"); e != nil {
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
		case cond == "service-unavailable":
			return pushBlocked, "" // of a resource that is gone it says so in the wrapped answer
		}
		return pushGone, ""
	}
	if inner := privileged(iq); inner != nil && inner.Get("type") == string(stanza.IQTypeError) {
		if inner.HasLang() {
			return pushUnanswered, "" // it is the client's own, which has got the push
		}
		return pushGone, ""
	}
	return pushOK, ""
}

func (p *pushes) succeed(change roster.Change, result string) {
	p.c.pushed(change, result, 1)
	p.done()
}

func (p *pushes) fail(change roster.Change, err error) {
	p.c.undeliverable(err)
	p.c.pushed(change, resultOf(err), 1)
	p.mu.Lock()
	p.owed[change.Item.JID] = struct{}{}
	p.outcome.Err = err
	p.outcome.Lost = p.outcome.Lost || errors.Is(err, roster.ErrNotConnected)
	p.passing = p.passing || resultOf(err) != pushRefused
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
	p.outcome.Refused = p.outcome.Err != nil && !p.passing
	p.settled(p.outcome)
}

// undeliverable logs why a push cannot be delivered, once for each cause and
// stream: the causes are few, the pushes many.
func (c *Component) undeliverable(err error) {
	if _, now := c.undelivered.log(err.Error()); !now {
		return
	}
	switch {
	case errors.Is(err, errPushBlocked): // which is his own business
	case errors.Is(err, roster.ErrNotConnected):
		c.opts.Logger.Info("roster pushes are not confirmed, they are sent again", "err", err)
	case errors.Is(err, errTooLarge), errors.Is(err, errPushFull):
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err)
	default:
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err,
			"check", "does the server's configuration give "+c.opts.Domain+" the privilege iq, set, "+nsRoster+"?")
	}
}

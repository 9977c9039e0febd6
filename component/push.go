package component

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/serverroster"
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

	// pushBlocked is no label: COMPAT Prosody, where no privileged IQ reaches a user
	// who has blocked the component.
	pushBlocked = "blocked"
)

// PushResults are all values of the label.
var PushResults = []string{pushOK, pushGone, pushRefused, pushLost, pushUnanswered, pushSent}

// Actions are all values of the label action of rosterd_pushes_total.
var Actions = []string{string(roster.Added), string(roster.Changed), string(roster.Removed)}

var (
	errPushBlocked  = errors.New("the user has blocked the component")
	errServerPush   = errors.New("the server's own push")
	errAwaited      = fmt.Errorf("%w: ejabberd's API does not work at present", errServerPush)
	errDropped      = errors.New("the server drops roster pushes, which it has announced to permit")
	errTooLarge     = errors.New("a contact's name and groups take more than fits into xmpp.max_stanza_bytes")
	errNotAnnounced = fmt.Errorf("%w long enough: it has not announced its privileges yet", roster.ErrNotConnected)
)

// Push sends each change to each of the resources, all of one user, on the best route
// that the user's host grants: see [Routes]. It blocks while the queue to the server
// is full. It fails if nothing can be sent; else settled is called once, when every
// push was answered, refused or given up.
func (c *Component) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	host := to[0].Domain()
	var g grant
	var err error
	s, _ := c.current()
	if s == nil {
		err = errStreamClosed
	} else if g = s.grants.of(host); !c.pushesKnown(s, g) {
		err = errNotAnnounced
	} else if c.awaitsAPI(g, host) {
		err = errAwaited
	}
	if err != nil {
		c.logUndelivered(err)
		for _, change := range changes {
			c.countPushes(change, resultOf(err), len(to))
		}
		return err
	}
	c.awaitBarrier(s, host, to)
	p := &pushes{c: c, s: s, left: len(to)*len(changes) + 1, missing: make(map[jid.JID]struct{}), privileged: make(map[string]roster.Change), settled: settled}
	defer p.done() // the one that holds back settled until all are counted
	defer p.settleUnconfirmed(host, g)
	route := c.routes(s, host, g).Push
	switch route {
	case PushServer:
		p.left = len(changes) + 1
		p.byServer(to[0].Bare(), len(to), changes)
		return nil
	case PushExchange:
		p.suggest(to, changes)
		return nil
	}
	written := c.names.changes(changes)
	for i, change := range changes {
		payload := string(appendChange(nil, written[i]))
		for _, full := range to {
			if route == PushDirect {
				// The client's answer goes to its user's bare JID, too.
				to := c.address(full)
				r := request{kind: stanza.IQTypeSet, from: bareOf(to), to: to, payload: payload}
				p.sendUnconfirmed(s.iq(r, s.iqs.id()), change)
			} else {
				p.sendPrivileged(full, g.privilege, change, payload)
			}
		}
	}
	return nil
}

// awaitsAPI reports whether a host can only be made to push by an API that does not work at
// present: suggestions, on which few clients act, are no substitute for what is to come.
func (c *Component) awaitsAPI(g grant, host string) bool {
	if c.opts.API == nil || c.opts.ServerRoster == "off" || c.pushRoute(g) != PushExchange {
		return false
	}
	works, _ := c.opts.API.State(host)
	return !works
}

// pushesKnown reports whether it is known by now how a host lets rosterd push.
func (c *Component) pushesKnown(s *stream, g grant) bool {
	return g.push || g.privilege != "" || c.announcementsOver(s)
}

// appendChange appends the payload of a roster push (RFC 6121, section 2.1.6).
func appendChange(b []byte, c roster.Change) []byte {
	b = append(appendQuery(b, c.Version), '>')
	if c.Action == roster.Removed {
		b = xmlstream.AppendAttr(append(b, "<item"...), "jid", c.Item.JID.String())
		b = append(b, " subscription='remove'/>"...)
	} else {
		b = roster.AppendItem(b, c.Item)
	}
	return append(b, "</query>"...)
}

// pushes are those of one call of Push.
type pushes struct {
	c *Component
	s *stream

	mu      sync.Mutex
	left    int                  // to be settled
	missing map[jid.JID]struct{} // contacts of which some resource did not get the change
	passing bool                 // one failed for a reason that may pass
	outcome roster.Outcome
	settled func(roster.Outcome)

	// Of the goroutine that sends:
	unconfirmed []roster.Change          // sent in a way that nobody confirms
	privileged  map[string]roster.Change // by the id of the IQ whose answer is waited for
	full        bool                     // the queue had no room
}

// put queues a stanza. When the queue had no room for one, the others do not wait.
func (p *pushes) put(data []byte) error {
	switch {
	case len(data) > p.c.opts.MaxStanza:
		return errTooLarge
	case p.full:
		return errQueueFull
	}
	err := p.s.out.put(data)
	p.full = err == errQueueFull
	return err
}

// byServer has the server push changes by itself to all clients of a user, n of which are to
// get them. What its API has confirmed, it has pushed.
func (p *pushes) byServer(user jid.JID, n int, changes []roster.Change) {
	contacts := make([]jid.JID, len(changes))
	for i, change := range changes {
		contacts[i] = change.Item.JID
	}
	settled := func(missing []jid.JID, err error) {
		lacks := make(map[jid.JID]bool, len(missing))
		for _, contact := range missing {
			lacks[contact] = true
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", errServerPush, err)
		}
		for _, change := range changes {
			if lacks[change.Item.JID] {
				p.c.countPushes(change, resultOf(err), n-1)
				p.fail(change, err)
			} else {
				p.c.countPushes(change, pushSent, n-1)
				p.succeed(change, pushSent)
			}
		}
	}
	if p.c.opts.ServerPush == nil {
		settled(contacts, serverroster.ErrNotPushed)
		return
	}
	p.c.opts.ServerPush(user, contacts, settled)
}

// PushesByServer reports whether what is pushed to a host's users is pushed by the server alone,
// see [PushServer].
func (c *Component) PushesByServer(host string) bool {
	s, _ := c.current()
	return s != nil && c.routes(s, host, s.grants.of(host)).Push == PushServer
}

// sendPrivileged sends a push that the client confirms, if its server lets it.
func (p *pushes) sendPrivileged(full jid.JID, privilege string, change roster.Change, payload string) {
	r := request{kind: stanza.IQTypeSet, to: p.c.address(full), privilege: privilege, payload: payload}
	id := p.s.request(r, p.put, func(a answer) { p.answered(full, change, a) })
	p.privileged[id] = change
}

// sendUnconfirmed sends a stanza that takes a change to a resource.
func (p *pushes) sendUnconfirmed(data []byte, changes ...roster.Change) {
	err := p.put(data)
	for _, change := range changes {
		if err != nil {
			p.fail(change, err)
		} else {
			p.unconfirmed = append(p.unconfirmed, change)
		}
	}
}

// suggest sends changes as suggestions, in messages from the component itself
// (XEP-0144): nothing better is left where the server lets nobody push.
func (p *pushes) suggest(to []jid.JID, changes []roster.Change) {
	room := p.c.opts.MaxStanza - maxQuery
	for _, full := range to {
		room = min(room, p.c.opts.MaxStanza-maxQuery-len(xmlstream.AppendEscaped(nil, p.c.address(full))))
	}
	written := p.c.names.changes(changes)
	for len(changes) > 0 {
		payload, n := appendExchange(nil, written, room)
		for _, full := range to {
			// A headline is for those who are there (RFC 6121, section 8.5.2.1.1):
			// any other type a server may keep for the next login.
			b := appendStart(nil, "message", "", stanza.Attrs{Type: stanza.MessageTypeHeadline, From: p.s.domain, To: p.c.address(full)})
			p.sendUnconfirmed(append(append(b, payload...), "</message>"...), changes[:n]...)
		}
		changes, written = changes[n:], written[n:]
	}
}

// exchangeActions are XEP-0144's words (section 3) for what a change does.
var exchangeActions = map[roster.Action]string{roster.Added: "add", roster.Changed: "modify", roster.Removed: "delete"}

// appendExchange appends as many changes as max bytes hold, at least one, and
// returns how many.
func appendExchange(b []byte, changes []roster.Change, max int) ([]byte, int) {
	start := len(b)
	b = append(b, "<x xmlns='"+nsExchange+"'>"...)
	for i, change := range changes {
		before := len(b)
		b = xmlstream.AppendAttr(append(b, "<item"...), "action", exchangeActions[change.Action])
		b = xmlstream.AppendAttr(b, "jid", change.Item.JID.String())
		if change.Item.Name != "" {
			b = xmlstream.AppendAttr(b, "name", change.Item.Name)
		}
		b = append(roster.AppendGroups(append(b, '>'), change.Item.Groups), "</item>"...)
		if len(b)-start > max && i > 0 {
			return append(b[:before], "</x>"...), i
		}
	}
	return append(b, "</x>"...), len(changes)
}

// settleUnconfirmed settles the pushes that nobody confirms when the server answers a
// ping behind them, or the stream is lost. Its own errors have come by then.
func (p *pushes) settleUnconfirmed(host string, g grant) {
	if g.unconfirmed && len(p.privileged) > 0 {
		p.settlePrivileged(host, g)
	}
	if len(p.unconfirmed) == 0 {
		return
	}
	p.s.ping(p.c.nobodyAt(p.c.names.write(host)), p.s.out.put, func(a answer) {
		err := error(nil)
		if a.lost() {
			err = errStreamClosed
		}
		for _, change := range p.unconfirmed {
			p.settle(change, err)
		}
	})
}

// settlePrivileged does so for privileged pushes, by one to nobody behind them: the server
// answers that one itself. COMPAT ejabberd from 24.10 on, which takes the privileges away when
// another connection of the component ends, announces nothing, and drops what they allowed.
func (p *pushes) settlePrivileged(host string, g grant) {
	settle := func(err error) {
		for id, change := range p.privileged {
			if p.s.iqs.cancel(id) {
				p.settle(change, err)
			}
		}
	}
	nobody := p.c.nobodyAt(p.c.names.write(host))
	r := request{kind: stanza.IQTypeSet, to: nobody, privilege: g.privilege, payload: "<query xmlns='" + nsRoster + "'/>"}
	id := p.s.request(r, p.s.out.put, func(a answer) {
		if a.iq != nil {
			p.c.dropped.Store(0)
			p.s.dropped.Store(false)
		}
		settle(a.err)
	})
	p.s.ping(nobody, p.s.out.put, func(a answer) {
		if a.iq == nil {
			return
		}
		time.AfterFunc(p.c.opts.Timing.Arrive, func() {
			if !p.s.iqs.cancel(id) {
				return
			}
			if p.s.dropped.CompareAndSwap(false, true) {
				p.c.dropped.Add(1)
			}
			if p.c.dropped.Load() > maxReach {
				settle(errDropped)
				return
			}
			settle(errStreamClosed)
			p.s.end(&unprivileged{host})
		})
	})
}

// settle counts a push that nobody confirms.
func (p *pushes) settle(change roster.Change, err error) {
	if err != nil {
		p.fail(change, err)
	} else {
		p.succeed(change, pushSent)
	}
}

// answered is called once for each privileged push.
func (p *pushes) answered(full jid.JID, change roster.Change, a answer) {
	switch {
	case a.lost():
		p.fail(change, a.err)
	case a.err != nil:
		p.succeed(change, pushUnanswered) // a client that sleeps (XEP-0198) gets it later
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

// refusals are the conditions in a server's answer to a privileged IQ that mean that
// it will not do such things.
var refusals = map[string]bool{"bad-request": true, "feature-not-implemented": true, "forbidden": true,
	"jid-malformed": true, "not-acceptable": true, "not-allowed": true, "not-authorized": true,
	"policy-violation": true, "registration-required": true, "subscription-required": true}

// pushResult tells what the answer to a privileged IQ means.
func pushResult(iq *xmlstream.Element) (result, condition string) {
	if isError(iq) {
		switch condition = errorCondition(iq); {
		case refusals[condition]:
			return pushRefused, condition
		case condition == "internal-server-error":
			// COMPAT Prosody, which says so when the client answered with an error
			// or slept for 120 s, and also when more than 256 pushes wait for
			// their answers, of those it forgets: the push was delivered.
			return pushUnanswered, ""
		case condition == "service-unavailable":
			return pushBlocked, "" // of a resource that is gone it says so in the wrapped answer
		}
		return pushGone, ""
	}
	if inner := privileged(iq); inner != nil && isError(inner) {
		if inner.HasLang() {
			return pushUnanswered, "" // it is the client's own, which has got the push
		}
		return pushGone, ""
	}
	return pushOK, ""
}

// privileged returns the answer to a privileged IQ, as the server forwards it.
func privileged(iq *xmlstream.Element) *xmlstream.Element {
	w := iq.Child(nsPrivilege2, "privilege")
	if w == nil {
		w = iq.Child(nsPrivilege1, "privilege")
	}
	return w.Child(nsForward, "forwarded").Child(stanza.NSClient, "iq")
}

func (p *pushes) succeed(change roster.Change, result string) {
	p.c.countPushes(change, result, 1)
	p.done()
}

func (p *pushes) fail(change roster.Change, err error) {
	p.c.logUndelivered(err)
	p.c.countPushes(change, resultOf(err), 1)
	p.mu.Lock()
	p.missing[change.Item.JID] = struct{}{}
	p.outcome.Err = err
	p.outcome.Lost = p.outcome.Lost || errors.Is(err, roster.ErrNotConnected)
	p.passing = p.passing || resultOf(err) != pushRefused
	p.mu.Unlock()
	p.done()
}

// done counts one push as settled, and tells when it was the last one.
func (p *pushes) done() {
	p.mu.Lock()
	p.left--
	last := p.left == 0
	p.mu.Unlock()
	if !last {
		return
	}
	p.outcome.Owed = slices.Collect(maps.Keys(p.missing))
	p.outcome.Refused = p.outcome.Err != nil && !p.passing
	p.settled(p.outcome)
}

// resultOf is the label for a push that failed.
func resultOf(err error) string {
	if errors.Is(err, roster.ErrNotConnected) || errors.Is(err, errQueueFull) || err == errNoAnswer || errors.Is(err, errServerPush) && !errors.Is(err, serverroster.ErrNotPushed) {
		return pushLost
	}
	return pushRefused
}

// countPushes counts n pushes of a change.
func (c *Component) countPushes(change roster.Change, result string, n int) {
	c.opts.Metrics.Pushes.WithLabelValues(string(change.Action), result).Add(float64(n))
}

// logUndelivered logs why a push cannot be delivered, once for each cause and stream.
func (c *Component) logUndelivered(err error) {
	if _, now := c.undelivered.allow(err.Error()); !now {
		return
	}
	switch {
	case errors.Is(err, errPushBlocked): // which is the user's own business
	case errors.Is(err, roster.ErrNotConnected):
		c.opts.Logger.Info("roster pushes are not confirmed, they are sent again", "err", err)
	case errors.Is(err, errTooLarge), errors.Is(err, errQueueFull), err == errNoAnswer, errors.Is(err, errServerPush):
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err)
	default:
		c.opts.Logger.Error("roster pushes cannot be delivered", "err", err,
			"check", "does the server's configuration give "+c.opts.Domain+" the privilege iq, set, "+nsRoster+"?")
	}
}

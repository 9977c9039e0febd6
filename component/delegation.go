package component

import (
	"errors"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
)

func isDelegation(e *element) bool {
	return e.is(nsDelegation1, "delegation") || e.is(nsDelegation2, "delegation")
}

// The values of the label result of rosterd_queries_total.
const (
	queryOK        = "ok"
	queryFailed    = "error"     // the backend failed
	queryOverdue   = "timeout"   // the backend did not answer within 25 s
	queryBusy      = "busy"      // too many queries waited
	queryForbidden = "forbidden" // somebody asked for the roster of somebody else
	querySet       = "not_allowed"
	queryOther     = "invalid" // not a roster query
)

// QueryResults are all values of the label.
var QueryResults = []string{queryOK, queryFailed, queryOverdue, queryBusy, queryForbidden, querySet, queryOther}

// delegated is what the answer to a forwarded query must repeat (XEP-0355,
// section 4.3), or to one that was sent to the component itself: then only inner
// is set. It keeps nothing of the stanzas, for many may wait.
type delegated struct {
	outer reply  // to the server's IQ
	ns    string // of the delegation
	inner reply  // to the user's IQ
}

// handleDelegated answers a query that a served host forwarded, or hands it
// over. The host has stamped the outer IQ; the inner sender gets his own
// roster alone.
func (c *Component) handleDelegated(s *stream, iq, delegation *element) {
	host := iq.get("from")
	if g := s.grants.of(host); g.delegation == "" && !g.proven {
		s.grants.change(host, func(g *grant) { g.proven = true })
	}
	var inner *element
	if forwarded := delegation.child(nsForward, "forwarded"); forwarded != nil {
		inner = forwarded.child(stanza.NSClient, "iq")
	}
	if inner == nil || !isRequest(inner) || !repeatable(inner) {
		c.count(queryOther)
		c.refuse(s, iq, errBadRequest)
		return
	}
	d := delegated{outer: replyTo(iq), ns: strings.Clone(delegation.name.Space), inner: replyTo(inner)}
	full, own := ownQuery(inner, host)
	payload := inner.only()
	switch {
	case inner.get("from") == c.opts.Domain:
		c.offer(s, d.refusal(errNotAllowed)) // our own, see fence
	case !own:
		c.opts.Logger.Debug("query for somebody else's roster refused",
			"from", short(inner.get("from")), "to", short(inner.get("to")))
		c.count(queryForbidden)
		c.offer(s, d.refusal(errForbidden))
	case payload == nil:
		c.count(queryOther)
		c.offer(s, d.refusal(errBadRequest))
	case !payload.is(nsRoster, "query"):
		c.count(queryOther)
		c.offer(s, d.refusal(errServiceUnavailable))
	case inner.get("type") == string(stanza.IQTypeSet):
		c.count(querySet)
		c.offer(s, d.refusal(errNotAllowed))
	default:
		c.query(s, d, full)
	}
}

// handlePlain answers a roster query that a user sent to the component itself,
// as clients do where the server delegates nothing. It can only be about his
// own roster.
func (c *Component) handlePlain(s *stream, iq *element) bool {
	full, ok := stampedUser(iq.get("from"))
	if !ok || !c.hosts[full.Domain()] {
		return false
	}
	if iq.get("type") == string(stanza.IQTypeSet) {
		c.count(querySet)
		c.refuse(s, iq, errNotAllowed)
		return true
	}
	c.query(s, delegated{inner: replyTo(iq)}, full)
	return true
}

// ownQuery reports who asks, and whether for his own roster: a user of the host
// that forwarded the query, to no address or to his own bare JID. On the
// servers any user, and any stranger, can have a query forwarded that is
// addressed to somebody else.
func ownQuery(inner *element, host string) (full jid.JID, own bool) {
	full, ok := stampedUser(inner.get("from"))
	if !ok || full.Domain() != host {
		return jid.JID{}, false
	}
	if to, has := inner.attr("to"); has {
		account, err := jid.ParseStamped(to)
		return full, err == nil && account == full.Bare()
	}
	return full, true
}

// query hands a roster get over, to be answered when the roster is there.
func (c *Component) query(s *stream, d delegated, full jid.JID) {
	began := time.Now()
	c.presences.Login(full)
	err := c.rosters.Get(full, func(r *roster.Roster, err error) (rest []roster.Item) {
		defer func() { c.opts.Metrics.QueryDuration.Observe(time.Since(began).Seconds()) }()
		if err != nil {
			c.failed(full, err)
			c.answer(full, d.refusal(waitError(err)), d.ns != "")
			return nil
		}
		c.count(queryOK)
		data, rest := d.result(r)
		c.answer(full, data, d.ns != "")
		return rest
	})
	if err != nil {
		c.failed(full, err)
		c.offer(s, d.refusal(waitError(err)))
	}
}

// answer sends the answer to a roster get, on the stream that is there now:
// COMPAT Prosody takes it on a later stream than that of the query, and would
// let the client wait for good without it.
func (c *Component) answer(full jid.JID, data []byte, delegated bool) {
	lost := func() { c.rosters.Undelivered(full) }
	s, _ := c.current()
	if s != nil && delegated {
		s.fence.note(full) // first: whoever sees the answer may send the next thing
	}
	if s == nil || s.out.put(data, lost) != nil {
		lost()
	}
}

func (c *Component) count(result string) { c.opts.Metrics.Queries.WithLabelValues(result).Inc() }

// failed counts a roster get that is answered with an error, and logs it; one
// cause that concerns many users is one line a minute.
func (c *Component) failed(full jid.JID, err error) {
	if silent, now := c.unanswered.log(err.Error()); now {
		c.opts.Logger.Warn("roster query answered with an error", "user", full.Bare(), "err", err, "not_logged_before", silent)
	}
	switch {
	case errors.Is(err, roster.ErrOverdue):
		c.count(queryOverdue)
	case errors.Is(err, roster.ErrBusy):
		c.count(queryBusy)
	default:
		c.count(queryFailed)
	}
}

// waitError is the stanza error for a roster that cannot be given now. A client
// keeps the roster it has, and may try again (RFC 6120, section 8.3.2).
func waitError(err error) stanzaError {
	switch {
	case errors.Is(err, roster.ErrOverdue):
		return errTimeout
	case errors.Is(err, roster.ErrBusy):
		return errResourceConstraint
	}
	return errBackend
}

// result is the answer that carries a roster, and what of it did not fit.
func (d delegated) result(r *roster.Roster) (data []byte, rest []roster.Item) {
	data = d.wrap(stanza.IQTypeResult, func(b []byte) []byte {
		b, rest = appendRoster(b, r, maxSent-maxWrap)
		return b
	})
	return data, rest
}

// refusal is the answer that carries an error.
func (d delegated) refusal(e stanzaError) []byte {
	return d.wrap(stanza.IQTypeError, func(b []byte) []byte { return appendError(b, e) })
}

// wrap puts the user's answer into the server's (XEP-0355, section 4.3). The
// inner answer comes from where the query went to, if it had an address:
// COMPAT ejabberd, which puts the bare JID there and wants it back.
func (d delegated) wrap(kind stanza.StanzaType, payload func([]byte) []byte) []byte {
	if d.ns == "" {
		return append(payload(d.inner.append(nil, "", kind)), "</iq>"...)
	}
	b := append(d.outer.append(nil, "", stanza.IQTypeResult), "<delegation xmlns='"...)
	b = append(append(b, d.ns...), "'><forwarded xmlns='"+nsForward+"'>"...)
	b = d.inner.append(b, stanza.NSClient, kind)
	return append(payload(b), "</iq></forwarded></delegation></iq>"...)
}

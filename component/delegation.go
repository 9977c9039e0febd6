package component

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

func isDelegation(e *xmlstream.Element) bool {
	return e.Is(nsDelegation1, "delegation") || e.Is(nsDelegation2, "delegation")
}

// The values of the label result of rosterd_queries_total.
const (
	queryOK        = "ok"
	queryStale     = "stale"     // the backend failed, the last known roster was given
	queryFailed    = "error"     // the backend failed, and there was none
	queryOverdue   = "timeout"   // the backend did not answer within 25 s
	queryBusy      = "busy"      // too many queries waited
	queryLimited   = "limited"   // the sender's budget of queries was used up
	queryAmbiguous = "ambiguous" // two accounts of the server could be the sender
	queryForbidden = "forbidden" // somebody asked for the roster of somebody else
	querySet       = "not_allowed"
	queryOther     = "invalid" // not a roster query
)

// QueryResults are all values of the label.
var QueryResults = []string{queryOK, queryStale, queryFailed, queryOverdue, queryBusy, queryLimited, queryAmbiguous, queryForbidden, querySet, queryOther}

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
func (c *Component) handleDelegated(s *stream, iq, delegation *xmlstream.Element) {
	host, _ := c.names.host(iq.Get("from"))
	var inner *xmlstream.Element
	if forwarded := delegation.Child(nsForward, "forwarded"); forwarded != nil {
		inner = forwarded.Child(stanza.NSClient, "iq")
	}
	if inner == nil || !isRequest(inner) || !c.repeatable(inner) {
		c.count(queryOther)
		c.refuse(s, iq, errBadRequest)
		return
	}
	d := delegated{outer: replyTo(iq), ns: strings.Clone(delegation.Name.Space), inner: replyTo(inner)}
	from := inner.Get("from")
	if from == c.prober() {
		c.arrived(s, host, d, inner.Get("id"))
		return
	}
	c.reached(s, host)
	u, err := c.sender(s, from)
	payload := inner.Only()
	switch {
	case !c.within(from, u): // whoever sent it, be it for his own roster or not
		c.offer(s, d.refusal(errResourceConstraint))
		if err == nil && isOwn(u, inner, host) {
			c.refusedSet(s, d, u.full, inner)
		}
	case err == errAmbiguous:
		c.ambiguous(from)
		c.count(queryAmbiguous)
		c.offer(s, d.refusal(errForbidden))
	case err != nil || !isOwn(u, inner, host):
		c.opts.Logger.Debug("query for somebody else's roster refused",
			"from", short(from), "to", short(inner.Get("to")))
		c.count(queryForbidden)
		c.offer(s, d.refusal(errForbidden))
	case payload == nil:
		c.count(queryOther)
		c.offer(s, d.refusal(errBadRequest))
	case !payload.Is(nsRoster, "query"):
		c.count(queryOther)
		c.offer(s, d.refusal(errServiceUnavailable))
	case inner.Get("type") == string(stanza.IQTypeSet):
		c.count(querySet)
		c.offer(s, d.refusal(errManagedElsewhere))
		c.refusedSet(s, d, u.full, inner)
	default:
		c.query(s, d, u, payload)
	}
}

// handlePlain answers a roster query that a user sent to the component itself,
// as clients do where the server delegates nothing. It can only be about his
// own roster.
func (c *Component) handlePlain(s *stream, iq *xmlstream.Element) bool {
	from := iq.Get("from")
	u, err := c.sender(s, from)
	if err == errNobody {
		return false
	}
	d := delegated{inner: replyTo(iq)}
	switch {
	case !c.within(from, u):
		c.refuse(s, iq, errResourceConstraint)
		if err == nil {
			c.refusedSet(s, d, u.full, iq)
		}
	case err != nil:
		c.ambiguous(from)
		c.count(queryAmbiguous)
		c.refuse(s, iq, errForbidden)
	case iq.Get("type") == string(stanza.IQTypeSet):
		c.count(querySet)
		c.refuse(s, iq, errManagedElsewhere)
		c.refusedSet(s, d, u.full, iq)
	default:
		c.query(s, d, u, iq.Only())
	}
	return true
}

// refusedSet sees to it that a resource whose roster set was refused is pushed what
// is true of the contacts that it named: some clients show what they asked for. A
// suggestion (XEP-0144) is no push: where there are no others, users would be asked
// to confirm what they did not want.
func (c *Component) refusedSet(s *stream, d delegated, full jid.JID, iq *xmlstream.Element) {
	query := iq.Only()
	if iq.Get("type") != string(stanza.IQTypeSet) || query == nil || !query.Is(nsRoster, "query") {
		return
	}
	host := full.Domain()
	if g, late := s.grants.of(host), c.late(s); announcedPush(g, late) && c.ways(host, g, late).Push == PushExchange {
		return
	}
	var contacts []jid.JID
	for _, item := range query.Children {
		if contact, err := jid.Parse(strings.Clone(item.Get("jid"))); err == nil && item.Is(nsRoster, "item") {
			contacts = append(contacts, contact)
		}
	}
	if d.ns != "" {
		s.fence.note(full)
	}
	c.rosters.Refused(full, contacts)
}

// isOwn reports whether a sender asks for his own roster: a user of the host that
// forwarded the query, to no address or to his own bare JID. On the servers any
// user, and any stranger, can have a query forwarded that is addressed to somebody
// else.
func isOwn(u sender, inner *xmlstream.Element, host string) bool {
	if u.full.Domain() != host {
		return false
	}
	to, has := inner.Attr("to")
	if !has {
		return true
	}
	account, err := jid.ParseStamped(to)
	return err == nil && account == u.full.Bare()
}

// query hands a roster get over, to be answered when the roster is there.
func (c *Component) query(s *stream, d delegated, u sender, query *xmlstream.Element) {
	began := time.Now()
	full := u.full
	c.another(u)
	c.sessions.Spell(full, u.bare)
	s.newcomers.asked(full)
	c.presences.Login(full)
	took := func() { c.opts.Metrics.QueryDuration.Observe(time.Since(began).Seconds()) }
	version := versionIn(query)
	named := version != nil
	same, err := c.rosters.Get(full, version, func(a roster.Answer) (rest []roster.Item) {
		defer took()
		defer c.told(full, a, began)
		switch {
		case a.Roster == nil:
			c.failed(full, a.Err)
			c.answer(full, d, named, d.failure(named, a.Err))
			return nil
		case a.Err != nil:
			c.stale(full, a.Err)
		default:
			c.count(queryOK)
		}
		a.Roster = c.names.roster(a.Roster)
		data, rest := d.result(a, c.opts.MaxStanza, c.buffers.get)
		c.answer(full, d, named, data)
		return c.names.read(rest)
	})
	switch {
	case err != nil:
		c.failed(full, err)
		c.offer(s, d.failure(named, err))
		c.told(full, roster.Answer{Err: err}, began)
	case same:
		c.count(queryOK)
		c.same(s, full, d)
		took()
		c.told(full, roster.Answer{Same: true}, began)
	}
}

// told logs, for those who look into it, what a roster get was answered with.
func (c *Component) told(full jid.JID, a roster.Answer, began time.Time) {
	if !c.opts.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	answer := "roster"
	switch {
	case a.Same:
		answer = "current" // as the client says, or soon, by pushes
	case a.Roster == nil:
		answer = "none"
	}
	c.opts.Logger.Debug("roster query answered", "user", full, "answer", answer, "items", a.Roster.Len(), "took", time.Since(began), "err", a.Err)
}

// versionIn is the version that a roster get names (RFC 6121, section 2.6.2); nil
// if it has none.
func versionIn(query *xmlstream.Element) *string {
	version, has := query.Attr("ver")
	if !has {
		return nil
	}
	if len(version) > maxVersion {
		version = "" // it is not ours
	}
	version = strings.Clone(version) // which is kept while the query waits, and the stanza is not
	return &version
}

// maxVersion is longer than any version of ours.
const maxVersion = 64

// same answers a roster get of who has the roster already, from the goroutine that
// reads.
func (c *Component) same(s *stream, full jid.JID, d delegated) {
	if d.ns != "" {
		s.fence.note(full)
	}
	if !c.offer(s, d.same()) || !c.sent(s, full) {
		c.rosters.Undelivered(full)
	}
}

// answer sends the answer to a roster get, on the stream that is there now:
// COMPAT Prosody takes it on a later stream than that of the query, and would
// let the client wait for good without it. If the queue to the server has no
// room for it, the answer is that of a failure.
func (c *Component) answer(full jid.JID, d delegated, named bool, data []byte) {
	s, _ := c.current()
	if s != nil && d.ns != "" {
		s.fence.note(full) // first: whoever sees the answer may send the next thing
	}
	err := errStreamClosed
	if s != nil {
		err = s.out.put(data, nil)
	}
	if errors.Is(err, errQueueFull) {
		c.offer(s, d.failure(named, roster.ErrBusy))
	}
	if err != nil || !c.sent(s, full) {
		c.rosters.Undelivered(full)
	}
}

func (c *Component) count(result string) { c.opts.Metrics.Queries.WithLabelValues(result).Inc() }

// failed counts a roster get for which there is no roster, and logs it; one
// cause that concerns many users is one line a minute.
func (c *Component) failed(full jid.JID, err error) {
	if silent, now := c.unanswered.log(err.Error()); now {
		c.opts.Logger.Warn("roster query answered without a roster", "user", full.Bare(), "err", err, "not_logged_before", silent)
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

// stale counts a roster get that is answered with the last known roster, and
// logs it as failed does.
func (c *Component) stale(full jid.JID, err error) {
	if silent, now := c.unanswered.log("stale " + err.Error()); now {
		c.opts.Logger.Warn("roster query answered with the last known roster", "user", full.Bare(), "err", err, "not_logged_before", silent)
	}
	c.count(queryStale)
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

// result is the answer that carries a roster, of limit bytes at most, in room
// from get, and what of it did not fit. If not a single item fits, it is an error:
// an answer without items would say that there are none.
func (d delegated) result(a roster.Answer, limit int, get func(n int) []byte) (data []byte, rest []roster.Item) {
	if a.Same {
		return d.same(), nil
	}
	r := a.Roster
	around := d.around() + maxQuery + maxVersion
	room := max(0, limit-around)
	data, rest = appendRoster(d.open(get(around+min(r.Size(), room)), stanza.IQTypeResult), r, room, a.Named)
	if data = append(data, d.end()...); len(data) <= limit {
		return data, rest
	}
	var long, others []roster.Item // the first item is too long for any answer
	for _, item := range r.Items() {
		if len(roster.AppendItem(nil, item)) > room {
			long = append(long, item)
		} else {
			others = append(others, item)
		}
	}
	if len(others) == 0 {
		if a.Named {
			return d.same(), long
		}
		return d.refusal(errBackend), nil
	}
	data, rest = d.result(roster.Answer{Roster: roster.New(others), Named: a.Named}, limit, get)
	return data, append(rest, long...)
}

// same is the answer that says that the client has the roster (RFC 6121, section
// 2.6.3).
func (d delegated) same() []byte {
	return d.wrap(stanza.IQTypeResult, func(b []byte) []byte { return b })
}

// failure is the answer to a roster get for which there is no roster now. Some
// clients never come online after an error. Who names a version, if only the empty
// one, can be told to go on with what he has (RFC 6121, section 2.6.3), which is not
// to say that his roster is empty; he is pushed everything later, unless rosterd
// stops, which knows of no later.
func (d delegated) failure(named bool, err error) []byte {
	if named && !errors.Is(err, roster.ErrStopping) {
		return d.same()
	}
	return d.refusal(waitError(err))
}

// refusal is the answer that carries an error.
func (d delegated) refusal(e stanzaError) []byte {
	return d.wrap(stanza.IQTypeError, func(b []byte) []byte { return appendError(b, e) })
}

// wrap puts the user's answer into the server's (XEP-0355, section 4.3). The
// inner answer comes from where the query went to, if it had an address:
// COMPAT ejabberd, which puts the bare JID there and wants it back.
func (d delegated) wrap(kind stanza.StanzaType, payload func([]byte) []byte) []byte {
	return append(payload(d.open(make([]byte, 0, d.around()), kind)), d.end()...)
}

// around is how many bytes open and end have together, at most.
func (d delegated) around() int { return 256 + len(d.outer) + len(d.inner) }

// open appends what stands before the payload.
func (d delegated) open(b []byte, kind stanza.StanzaType) []byte {
	if d.ns == "" {
		return d.inner.append(b, "", kind)
	}
	b = append(d.outer.append(b, "", stanza.IQTypeResult), "<delegation xmlns='"...)
	b = append(append(b, d.ns...), "'><forwarded xmlns='"+nsForward+"'>"...)
	return d.inner.append(b, stanza.NSClient, kind)
}

// end is what stands behind it.
func (d delegated) end() string {
	if d.ns == "" {
		return "</iq>"
	}
	return "</iq></forwarded></delegation></iq>"
}

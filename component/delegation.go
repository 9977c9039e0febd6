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

func (c *Component) count(result string) { c.opts.Metrics.Queries.WithLabelValues(result).Inc() }

func isDelegation(e *xmlstream.Element) bool {
	return e.Is(nsDelegation1, "delegation") || e.Is(nsDelegation2, "delegation")
}

// errNotOwn is for who asks for the roster of somebody else.
var errNotOwn = errors.New("not the sender's own roster")

// handleDelegated answers a query that a served host forwarded, or hands it over.
func (c *Component) handleDelegated(s *stream, host string, iq, delegation *xmlstream.Element) {
	inner := delegation.Child(nsForward, "forwarded").Child(stanza.NSClient, "iq")
	if inner == nil || !isRequest(inner) || !c.repeatable(inner) {
		c.count(queryOther)
		c.refuse(s, iq, errBadRequest)
		return
	}
	e := envelope{outer: replyTo(iq), delegation: strings.Clone(delegation.Name.Space), inner: replyTo(inner)}
	from := inner.Get("from")
	if from == c.prober() {
		c.probeArrived(s, host, e, inner.Get("id"))
		return
	}
	c.queryArrived(s, host)
	if c.names.isOwn(from) && s.iqs.arrived(inner.Get("id")) {
		c.ownRostersLost(s, host, "it delegates the queries of "+c.opts.Domain+", too")
		c.offer(s, e.refusal(errNotAllowed))
		return
	}
	u, err := c.sender(s, from)
	if err == nil && !isOwn(u, inner, host) {
		err = errNotOwn
	}
	c.handleQuery(s, e, inner, iq.Raw, u, err)
}

// handlePlain answers a roster query that was sent to the component itself, as
// clients do where the server delegates nothing, and reports whether its sender is a
// user. It can only be about their own roster.
func (c *Component) handlePlain(s *stream, iq *xmlstream.Element) bool {
	u, err := c.sender(s, iq.Get("from"))
	if err == errNobody {
		return false
	}
	c.handleQuery(s, envelope{inner: replyTo(iq)}, iq, iq.Raw, u, err)
	return true
}

// isOwn reports whether a user of the host that forwarded a query asks for their own
// roster. Anybody can have a query forwarded that is addressed to somebody else.
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

// handleQuery answers a roster query of u, or hands it over. raw is the stanza that it came
// in. err says why its sender is not served.
func (c *Component) handleQuery(s *stream, e envelope, iq *xmlstream.Element, raw []byte, u sender, err error) {
	from, payload, set := iq.Get("from"), iq.Only(), iq.Get("type") == string(stanza.IQTypeSet)
	refuse := func(result string, reason stanzaError) {
		c.count(result)
		c.offer(s, e.refusal(reason))
		if err == nil && set && payload != nil && payload.Is(nsRoster, "query") {
			c.setRefused(s, e, u.full, payload)
		}
	}
	switch {
	case !c.withinBudget(from, u):
		refuse(queryLimited, errResourceConstraint)
	case err == errAmbiguous:
		c.logAmbiguous(from)
		refuse(queryAmbiguous, errForbidden)
	case err != nil:
		c.opts.Logger.Debug("query for somebody else's roster refused", "from", short(from), "to", short(iq.Get("to")))
		refuse(queryForbidden, errForbidden)
	case payload == nil:
		refuse(queryOther, errBadRequest)
	case !payload.Is(nsRoster, "query"):
		refuse(queryOther, errServiceUnavailable)
	case set && c.opts.Edits != nil && c.opts.Edits(u.full.Domain()):
		if edit, refusal, ok := c.editOf(u.full.Bare(), payload, raw); ok {
			c.handleEdit(s, e, u.full, edit)
		} else {
			refuse(queryOther, refusal)
		}
	case set:
		refuse(querySet, errManagedElsewhere)
	default:
		c.handleGet(s, e, u, payload)
	}
}

// setRefused has a resource whose roster set was refused pushed what is true of the
// contacts that it named: some clients show what they asked for.
func (c *Component) setRefused(s *stream, e envelope, full jid.JID, query *xmlstream.Element) {
	var contacts []jid.JID
	for _, item := range query.Children {
		if contact, err := jid.Parse(strings.Clone(item.Get("jid"))); err == nil && item.Is(nsRoster, "item") {
			contacts = append(contacts, contact)
		}
	}
	if e.delegation != "" {
		s.barrier.answered(full)
	}
	c.undo(s, full, contacts)
}

// undo has a resource pushed what is true of contacts that it may show otherwise.
func (c *Component) undo(s *stream, full jid.JID, contacts []jid.JID) {
	if c.pushes(s, full.Domain()) {
		c.rosters.Refused(full, contacts)
	}
}

// pushes reports whether a host's users are, as far as is known, pushed what is true. A
// suggestion (XEP-0144) would ask users to confirm what they did not want.
func (c *Component) pushes(s *stream, host string) bool {
	g := s.grants.of(host)
	return !c.pushesKnown(s, g) || c.routes(s, host, g).Push != PushExchange
}

// maxVersion is longer than any version of ours.
const maxVersion = 64

// handleGet hands a roster get over, to be answered when the roster is there.
func (c *Component) handleGet(s *stream, e envelope, u sender, query *xmlstream.Element) {
	began, full := time.Now(), u.full
	c.endOtherSpelling(u)
	c.sessions.Spell(full, u.bare)
	s.unasked.asked(full)
	c.hub.Login(full)
	var version *string // that the client names (RFC 6121, section 2.6.2)
	if ver, named := query.Attr("ver"); named {
		if len(ver) > maxVersion {
			ver = "" // it is not ours
		}
		ver = strings.Clone(ver)
		version = &ver
	}
	named := version != nil
	took := func() { c.opts.Metrics.QueryDuration.Observe(time.Since(began).Seconds()) }
	err := c.rosters.Get(full, version, func(a roster.Answer) (rest []roster.Item) {
		defer took()
		defer c.logAnswer(full, a, began)
		var data []byte
		if a.Roster == nil {
			c.failed(full, a.Err)
			data = e.failure(named, a.Err)
		} else {
			if a.Err != nil {
				c.warn(c.unanswered, "stale "+a.Err.Error(), "roster query answered with the last known roster", "user", full.Bare(), "err", a.Err)
				c.count(queryStale)
			} else {
				c.count(queryOK)
			}
			if !a.Same {
				a.Roster = c.names.roster(a.Roster)
			}
			data, rest = e.result(a, c.opts.MaxStanza, c.buffers.get)
		}
		if c.deliver(full, e, named, a.Same, data) != nil {
			c.rosters.Undelivered(full)
		}
		return c.names.read(rest)
	})
	if err != nil {
		c.failed(full, err)
		c.offer(s, e.failure(named, err))
		c.logAnswer(full, roster.Answer{Err: err}, began)
	}
}

// deliver queues the answer to a roster get, and notes that. COMPAT Prosody, which takes
// the answer on a later stream than that of the query, and would let the client wait for
// good without it.
func (c *Component) deliver(full jid.JID, e envelope, named, same bool, data []byte) error {
	s, _ := c.current()
	if s == nil {
		return errStreamClosed
	}
	if e.delegation != "" {
		s.barrier.answered(full) // first: whoever sees the answer may send the next thing
	}
	put := s.out.put
	if same { // maybe from the goroutine that reads
		put = s.out.offer
	}
	err := put(data)
	if err == nil {
		return c.answerQueued(s, full)
	} else if err == errQueueFull {
		c.offer(s, e.failure(named, roster.ErrBusy))
	}
	return err
}

// failed counts and logs a roster get for which there is no roster.
func (c *Component) failed(full jid.JID, err error) {
	c.warn(c.unanswered, err.Error(), "roster query answered without a roster", "user", full.Bare(), "err", err)
	result, _ := failureOf(err)
	c.count(result)
}

// logAnswer logs what a roster get was answered with.
func (c *Component) logAnswer(full jid.JID, a roster.Answer, began time.Time) {
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

// failureOf returns what a roster get is answered that finds no roster now. A client
// keeps the roster it has, and may try again (RFC 6120, section 8.3.2).
func failureOf(err error) (result string, e stanzaError) {
	switch {
	case errors.Is(err, roster.ErrOverdue):
		return queryOverdue, errTimeout
	case errors.Is(err, roster.ErrBusy):
		return queryBusy, errResourceConstraint
	}
	return queryFailed, errBackend
}

// envelope is what the answer to a query repeats of it (XEP-0355, section 4.3). If the
// query was sent to the component itself, only inner is set.
type envelope struct {
	outer      reply  // to the server's IQ
	delegation string // its namespace
	inner      reply  // to the user's IQ
}

// result is the answer that carries a roster, of limit bytes at most, in a buffer from
// get, and the items that did not fit. If not a single item fits, it is an error: an
// answer without items would say that there are none.
func (e envelope) result(a roster.Answer, limit int, get func(n int) []byte) (data []byte, rest []roster.Item) {
	if a.Same {
		return e.same(), nil
	}
	r := a.Roster
	around := e.around() + maxQuery + maxVersion
	room := max(0, limit-around)
	data, rest = appendRoster(e.open(get(around+min(r.Size(), room)), stanza.IQTypeResult), r, room, a.Version)
	if data = append(data, e.end()...); len(data) <= limit {
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
			return e.same(), long
		}
		return e.refusal(errBackend), nil
	}
	a.Roster = roster.New(others)
	if a.Named {
		a.Version = roster.Partial(a.Version, len(long))
	}
	data, rest = e.result(a, limit, get)
	return data, append(rest, long...)
}

// same is the answer that says that the client has the roster (RFC 6121, section
// 2.6.3).
func (e envelope) same() []byte { return e.wrap(stanza.IQTypeResult, nil) }

// failure is the answer to a roster get for which there is no roster now. Some clients
// never come online after an error. Those that name a version, if only the empty one, are
// told to go on with what they have (RFC 6121, section 2.6.3), and are pushed everything
// later, unless rosterd stops.
func (e envelope) failure(named bool, err error) []byte {
	if named && !errors.Is(err, roster.ErrStopping) {
		return e.same()
	}
	_, condition := failureOf(err)
	return e.refusal(condition)
}

// refusal is the answer that carries an error.
func (e envelope) refusal(reason stanzaError) []byte {
	return e.wrap(stanza.IQTypeError, reason.append(nil))
}

func (e envelope) wrap(kind stanza.StanzaType, payload []byte) []byte {
	return append(append(e.open(make([]byte, 0, e.around()+len(payload)), kind), payload...), e.end()...)
}

// around is how many bytes open and end have together, at most.
func (e envelope) around() int { return 256 + len(e.outer) + len(e.inner) }

// open appends what stands before the payload. COMPAT ejabberd, which addresses the query
// to the bare JID and wants that back.
func (e envelope) open(b []byte, kind stanza.StanzaType) []byte {
	if e.delegation == "" {
		return e.inner.append(b, "", kind)
	}
	b = append(e.outer.append(b, "", stanza.IQTypeResult), "<delegation xmlns='"...)
	b = append(append(b, e.delegation...), "'><forwarded xmlns='"+nsForward+"'>"...)
	return e.inner.append(b, stanza.NSClient, kind)
}

// end is what stands behind it.
func (e envelope) end() string {
	if e.delegation == "" {
		return "</iq>"
	}
	return "</iq></forwarded></delegation></iq>"
}

// maxQuery is what <query/> takes around the items, at most, in bytes.
const maxQuery = 512

// appendRoster appends the answer to a roster get (RFC 6121, section 2.1.4), of max bytes
// at most, and returns the items that did not fit. version may be "" (section 2.6).
func appendRoster(b []byte, r *roster.Roster, max int, version string) ([]byte, []roster.Item) {
	if r.Size() <= max {
		if b = appendQuery(b, version); r.Len() == 0 {
			return append(b, "/>"...), nil
		}
		return append(r.AppendXML(append(b, '>')), "</query>"...), nil
	}
	xml, rest := r.Split(max)
	if version != "" && len(rest) > 0 {
		version = roster.Partial(version, len(rest))
	}
	b = append(append(appendQuery(b, version), '>'), xml...)
	return append(b, "</query>"...), rest
}

// appendQuery appends the beginning of a query's tag.
func appendQuery(b []byte, version string) []byte {
	b = append(b, "<query xmlns='"+nsRoster+"'"...)
	if version != "" {
		b = xmlstream.AppendAttr(b, "ver", version)
	}
	return b
}

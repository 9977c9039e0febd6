package component

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/serverroster"
	"rosterd/xmlstream"
)

// ownRosters is what was found out on this stream of the privilege to read and write a
// host's own rosters (XEP-0356, section 5).
type ownRosters struct {
	proven bool
	broken bool   // it does not do what it confirms: nothing is tried any more
	why    string // it is not proven; "": nothing is known
}

// nsExchanges is the namespace in which deploy/prosody/mod_rosterd_readonly.lua says that the
// server sends the presences that follow from what is written to its rosters.
const nsExchanges = "urn:rosterd:presence"

const rosterQuery = "<query xmlns='" + nsRoster + "'/>"

// proveOwnRosters reads the roster of a user who does not exist, if that is permitted. It
// does not block. COMPAT ejabberd, which announces the privilege, and sends the query back
// to us while it delegates.
func (c *Component) proveOwnRosters(s *stream, host string) {
	if g := s.grants.of(host); c.opts.ServerRoster == "off" || !g.roster || g.rosters.broken || g.isEjabberd() {
		return
	}
	for _, spelling := range c.names.candidates(host) {
		r := request{to: c.nobody + "@" + spelling, payload: rosterQuery, proof: true}
		s.request(r, s.out.offer, func(a answer) {
			switch {
			case a.iq == nil, spelling != c.names.write(host):
			case isError(a.iq):
				c.ownRostersLost(s, host, "a roster query by that privilege is answered "+errorCondition(a.iq))
			case a.iq.Child(nsRoster, "query") == nil:
				c.ownRostersLost(s, host, "a roster query by that privilege is answered without a roster")
			default:
				c.ownRostersProven(s, host)
			}
		})
	}
}

// ownRostersProven notes that a host's own rosters can be read.
func (c *Component) ownRostersProven(s *stream, host string) {
	before, after := s.grants.change(host, func(g *grant) {
		if g.roster && !g.rosters.broken {
			g.rosters = ownRosters{proven: true}
		}
	})
	if before.rosters.proven || !after.rosters.proven {
		return
	}
	c.opts.Logger.Info("the server's own rosters can be kept", "host", host, "way", ServerRosterPrivilege)
	c.trySubscription(s, host)
	if c.announcementsOver(s) {
		c.rosters.Resume(host)
	}
	if c.opts.ServerRosterReady != nil {
		c.opts.ServerRosterReady(host)
	}
}

// trySubscription asks for a subscription to a user who does not exist, which changes
// nothing: a server that takes requests answers in the user's name (RFC 6121, section
// 3.1.3), and one that refuses them with an error. Any other answer says nothing.
func (c *Component) trySubscription(s *stream, host string) {
	a := stanza.Attrs{Type: stanza.PresenceTypeSubscribe, From: s.domain, To: c.nobody + "@" + c.names.write(host)}
	_ = s.out.offer(append(appendStart(nil, "presence", "", a), "</presence>"...))
}

// subscriptionTried notes the answer to that, if a presence is one.
func (c *Component) subscriptionTried(s *stream, e *xmlstream.Element) bool {
	domain, is := strings.CutPrefix(e.Get("from"), c.nobody+"@")
	host, served := c.names.host(domain)
	if !is || !served {
		return false
	}
	is = e.Get("type") == "unavailable"
	refused := isError(e) && map[string]bool{"forbidden": true, "not-acceptable": true, "not-allowed": true, "policy-violation": true}[errorCondition(e)]
	exchanges := refused && e.Child(e.Name.Space, "error").Child(nsExchanges, "exchanges") != nil
	s.grants.change(host, func(g *grant) {
		switch {
		case is && g.asks == "":
			g.asks = SubscriptionsTaken
		case refused:
			g.asks = SubscriptionsRefused
		}
		g.exchanges = g.exchanges || exchanges
	})
	return true
}

// ownRostersLost notes why a host's own rosters cannot be read or written.
func (c *Component) ownRostersLost(s *stream, host, why string) {
	before, after := s.grants.change(host, func(g *grant) {
		g.rosters.proven = false
		if !g.rosters.broken {
			g.rosters.why = why
		}
	})
	if before.rosters != after.rosters { // it is warned of with what is missing
		c.opts.Logger.Info("the server's own rosters cannot be kept", "host", host, "way", ServerRosterPrivilege, "err", why)
	}
}

// BrokenOwnRosters says that what [Component.OwnRosters] has confirmed to have written was
// not written. There is no way any more on this stream, and why is shown as what is missing.
func (c *Component) BrokenOwnRosters(host, why string) {
	if s, _ := c.current(); s != nil {
		c.ownRostersLost(s, host, why)
		s.grants.change(host, func(g *grant) { g.rosters.broken = true })
	}
}

// OwnRosters is the way into a host's own rosters by privilege, if that was proven on this
// stream, or nil. It ends with the stream.
func (c *Component) OwnRosters(host string) serverroster.Way {
	s, _ := c.current()
	if s == nil || !s.ownRosters(host) {
		return nil
	}
	return &privilegeWay{c, s, host}
}

// ownRosters reports whether a host's own rosters can be read and written.
func (s *stream) ownRosters(host string) bool {
	return s.grants.of(host).writesRosters()
}

// privilegeWay implements [serverroster.Way].
type privilegeWay struct {
	c    *Component
	s    *stream
	host string
}

// Exchanges reports whether the server sends the presences that follow from what was
// written. What is asked for before the first roster set is answered before it, too.
func (w *privilegeWay) Exchanges() bool { return w.s.grants.of(w.host).exchanges }

var errNoOwnRosters = errors.New("the server does not let its own rosters be read and written any more")

// Get implements serverroster.Way. A contact whose address rosterd does not take is left
// out: nobody can want it, and it stays where it is. The number of those is logged.
func (w *privilegeWay) Get(ctx context.Context, user jid.JID) (*roster.Roster, error) {
	var data []byte
	done := make(chan answer, 1)
	r := request{to: w.c.names.jid(user).String(), payload: rosterQuery}
	put := func(data []byte) error { return w.s.out.putWithin(ctx, data) }
	id := w.s.request(r, put, func(a answer) {
		if a.iq != nil {
			data = bytes.Clone(a.iq.Raw) // all of it: an Element has but MaxElements
		}
		done <- a
	})
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		if w.s.iqs.cancel(id) {
			return nil, ctx.Err()
		}
		a = <-done
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case !w.s.ownRosters(w.host): // COMPAT ejabberd, which gives us our own refusal
		return nil, errNoOwnRosters
	case isError(a.iq) && errorCondition(a.iq) == "item-not-found":
		return nil, serverroster.ErrNoAccount
	case isError(a.iq):
		return nil, fmt.Errorf("the server's own roster: %s", errorCondition(a.iq))
	}
	items, unread, err := readRoster(data)
	if err != nil {
		return nil, fmt.Errorf("the server's own roster cannot be read: %w", err)
	}
	if unread > 0 {
		w.c.warn(w.c.unanswered, "own roster "+w.host, "the server's own roster has contacts whose addresses rosterd does not take: they stay there", "user", user, "contacts", unread)
	}
	return roster.New(w.c.names.read(items)), nil
}

// readRoster reads the answer to a roster get (RFC 6121, section 2.1.4), and says how many
// contacts it could not read. Unless there is the whole of it, it fails.
func readRoster(data []byte) (items []roster.Item, unread int, err error) {
	var iq struct {
		Query *struct {
			Items []struct {
				JID          string   `xml:"jid,attr"`
				Name         string   `xml:"name,attr"`
				Subscription string   `xml:"subscription,attr"`
				Groups       []string `xml:"group"`
			} `xml:"item"`
		} `xml:"jabber:iq:roster query"`
	}
	if err := xml.Unmarshal(data, &iq); err != nil {
		return nil, 0, err
	}
	if iq.Query == nil {
		return nil, 0, errors.New("there is none in the answer")
	}
	for _, it := range iq.Query.Items {
		contact, err := jid.Parse(it.JID)
		if err != nil || !contact.IsBare() {
			unread++
			continue
		}
		item := roster.Item{JID: contact, Name: it.Name, Subscription: roster.Subscription(it.Subscription)}
		if !item.Subscription.Valid() {
			item.Subscription = roster.SubscriptionNone
		}
		groups := slices.DeleteFunc(it.Groups, func(group string) bool { return group == "" })
		slices.Sort(groups)
		item.Groups = slices.Compact(groups)
		items = append(items, item)
	}
	return items, unread, nil
}

// Set implements serverroster.Way. Each change is an IQ of its own (RFC 6121, section
// 2.1.5), and they are sent in a row: those behind one that fails may be written. COMPAT
// Prosody, which takes several items in one, and answers once for each; and which fails
// without an answer at an address that it does not take. That is known by the answer to
// what was sent behind it.
func (w *privilegeWay) Set(ctx context.Context, user jid.JID, changes []roster.Change, written func(roster.Change)) error {
	set := &rosterSet{privilegeWay: w, written: written}
	put := func(data []byte) error { return w.s.out.putWithin(ctx, data) }
	sent := make(map[string]roster.Change, len(changes))
	for _, change := range changes {
		it := change
		it.Item.JID = w.c.names.contact(it.Item.JID)
		it.Version, it.Item.Ask, it.Item.Approved = "", false, false
		r := request{kind: stanza.IQTypeSet, to: w.c.names.jid(user).String(), payload: string(appendChange(nil, it))}
		if len(r.payload)+maxQuery > w.c.opts.MaxStanza {
			set.refuse(change, errTooLarge.Error())
			continue
		}
		set.left.Add(1)
		id := w.s.request(r, put, func(a answer) { set.answered(change, a) })
		sent[id] = change
		if set.failed() {
			break
		}
	}
	w.s.ping("behind-"+w.c.nobodyAt(w.c.names.write(w.host)), put, func(a answer) {
		for id, change := range sent {
			if a.iq != nil && w.s.iqs.cancel(id) {
				set.refuse(change, "no answer")
				set.left.Done()
			}
		}
	})
	stop := context.AfterFunc(ctx, func() {
		for id := range sent {
			if w.s.iqs.cancel(id) {
				set.answered(roster.Change{}, answer{err: ctx.Err()})
			}
		}
	})
	set.left.Wait()
	stop()
	return set.outcome(ctx, user)
}

// rosterSet is one call of Set.
type rosterSet struct {
	*privilegeWay
	left sync.WaitGroup

	mu      sync.Mutex // written is called with it held, one at a time
	written func(roster.Change)
	refused serverroster.RefusedError
	err     error // the first one
	absent  bool  // it may be that there is no such account
}

func (t *rosterSet) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

func (t *rosterSet) refuse(change roster.Change, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused.Contacts = append(t.refused.Contacts, change.Item.JID); t.refused.Why == "" {
		t.refused.Why = why
	}
}

// itemErrors are the conditions that are about an item, and not about all.
var itemErrors = map[string]bool{"bad-request": true, "conflict": true, "item-not-found": true,
	"jid-malformed": true, "not-acceptable": true, "not-allowed": true, "policy-violation": true}

// answered is called once for each change, mostly on the goroutine that reads.
func (t *rosterSet) answered(change roster.Change, a answer) {
	defer t.left.Done()
	fail := func(err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err == nil {
			t.err = err
		}
	}
	if a.err != nil {
		fail(a.err)
		return
	}
	condition := ""
	if isError(a.iq) {
		condition = cmp.Or(errorCondition(a.iq), "undefined-condition")
	}
	kind := ""
	if e := a.iq.Child(a.iq.Name.Space, "error"); e != nil {
		kind = e.Get("type")
	}
	switch {
	case condition == "", condition == "item-not-found" && change.Action == roster.Removed:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.written(change)
	case !t.s.ownRosters(t.host): // COMPAT ejabberd, which gives us our own refusal
		fail(errNoOwnRosters)
	case itemErrors[condition] && kind != "wait" && kind != "auth":
		t.refuse(change, condition)
	default:
		if kind == "auth" {
			t.c.proveOwnRosters(t.s, t.host)
		}
		fail(fmt.Errorf("the server's own roster: %s", condition))
		t.mu.Lock()
		defer t.mu.Unlock()
		t.absent = t.absent || condition == "service-unavailable"
	}
}

// outcome is what Set returns when all is answered. COMPAT Prosody, which says that no
// account is there as it would if the privilege were gone; a get tells.
func (t *rosterSet) outcome(ctx context.Context, user jid.JID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.absent:
		if _, err := t.Get(ctx, user); err != nil {
			return err
		}
		return serverroster.ErrNoAccount
	case t.err != nil:
		return t.err
	case len(t.refused.Contacts) > 0:
		return &t.refused
	}
	return nil
}

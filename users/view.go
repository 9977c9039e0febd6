package users

import (
	"context"
	"slices"
	"strings"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// View is what is known of a user, for a person who looks into it. Its times are in UTC; a
// time that is null is unknown, or will not come.
type View struct {
	User      string         `json:"user"`
	Roster    *RosterView    `json:"roster"` // the last known one; null: none is
	Resources []ResourceView `json:"resources"`
	// Missed are contacts that some resource may show otherwise than they are.
	Missed []string `json:"missed"`
	// InFlight are contacts whose pushes are not acknowledged.
	InFlight []string   `json:"in_flight"`
	Fetching bool       `json:"fetching"` // a fetch is under way
	Queries  int        `json:"queries"`  // that wait for an answer
	Mark     *MarkView  `json:"mark"`     // the user is to be refreshed again; null: they are not
	Held     *HeldView  `json:"held"`     // what the removal guard holds; null: nothing
	Error    *ErrorView `json:"error"`    // the last one of a fetch or of a push; null: none since rosterd has had the user in memory
}

// RosterView is a roster, and how it came to be known.
type RosterView struct {
	Version   string     `json:"version"` // that clients are told
	Fetched   *time.Time `json:"fetched"` // when the backend was asked for it
	Validator string     `json:"validator"`
	NotFound  bool       `json:"not_found"` // it is empty as the backend does not know the user
	Outdated  bool       `json:"outdated"`  // the backend said that it has changed since
	Contacts  []Contact  `json:"contacts"`
}

// Contact is an item.
type Contact struct {
	JID          string   `json:"jid"`
	Name         string   `json:"name"`
	Groups       []string `json:"groups"`
	Subscription string   `json:"subscription"`
	Ask          bool     `json:"ask"`
	Approved     bool     `json:"approved"`
}

// ResourceView is what a resource was told.
type ResourceView struct {
	Resource  string     `json:"resource"`
	Versioned bool       `json:"versioned"` // it uses roster versioning
	Doubt     bool       `json:"doubt"`     // it may show anything that it was told before, and is told everything
	Asked     *time.Time `json:"asked"`     // when its last query was answered
	Since     *time.Time `json:"since"`     // when it was first told something that may be lost
}

// MarkView is why a user is refreshed again.
type MarkView struct {
	Why   string     `json:"why"`
	Since *time.Time `json:"since"`
	Next  *time.Time `json:"next"`  // the next try, as far as it is known
	Tries int        `json:"tries"` // that failed, in this process
}

// HeldView is what the removal guard holds.
type HeldView struct {
	Held
	Removes  []string `json:"removes"` // contacts
	Approved bool     `json:"approved"`
}

// ErrorView is an error and when it was.
type ErrorView struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// View is what is known of a user (a bare JID). It waits for their loop.
func (m *Manager) View(ctx context.Context, user jid.JID) (View, error) {
	seen := make(chan View, 1)
	m.post(user, viewEvent{seen})
	var v View
	select {
	case v = <-seen:
	case <-ctx.Done():
		return View{}, ctx.Err()
	}
	why, since, err := m.Store.MarkOf(user.String())
	v.Mark = markView(why, since)
	if v.Mark != nil {
		v.Mark.Next, v.Mark.Tries = m.queue.nextTry(user)
	}
	return v, err
}

// Kept is what a store has of a user: a [store.Reader].
type Kept interface {
	User(jid string) (store.User, error)
	MarkOf(user string) (why string, since time.Time, err error)
}

// ViewKept is what a store has of a user (a bare JID), for when no [Manager] runs.
func ViewKept(kept Kept, user jid.JID) (View, error) {
	r, err := kept.User(user.String())
	if err != nil {
		return View{}, err
	}
	s, err := stateOf(user, r, time.Now())
	if err != nil {
		return View{}, err
	}
	v := s.view(user)
	why, since, err := kept.MarkOf(user.String())
	v.Mark = markView(why, since)
	return v, err
}

func markView(why string, since time.Time) *MarkView {
	if why == "" {
		return nil
	}
	return &MarkView{Why: why, Since: at(since)}
}

// view is the part that is in the state.
func (s *state) view(user jid.JID) View {
	v := View{User: user.String(), Resources: []ResourceView{}, Missed: []string{}, InFlight: []string{}}
	if s.last != nil {
		v.Roster = &RosterView{
			Version: s.version(s.last), Fetched: at(s.fetched), Validator: s.validator, NotFound: s.notFound, Outdated: s.outdated, Contacts: []Contact{},
		}
		for _, i := range s.last.Items() {
			v.Roster.Contacts = append(v.Roster.Contacts, ContactOf(i))
		}
	}
	for full, t := range s.told {
		v.Resources = append(v.Resources, ResourceView{full.Resource(), t.versioned, t.doubt, at(t.asked), at(t.since)})
	}
	slices.SortFunc(v.Resources, func(a, b ResourceView) int { return strings.Compare(a.Resource, b.Resource) })
	for contact := range s.missed {
		v.Missed = append(v.Missed, contact.String())
	}
	slices.Sort(v.Missed)
	for p := range s.inFlight {
		for _, contact := range p.contacts {
			v.InFlight = append(v.InFlight, contact.String())
		}
	}
	slices.Sort(v.InFlight)
	v.InFlight = slices.Compact(v.InFlight)
	return v
}

// ContactOf is an item, for a person.
func ContactOf(i roster.Item) Contact {
	groups := slices.Clone(i.Groups)
	if groups == nil {
		groups = []string{}
	}
	return Contact{i.JID.String(), i.Name, groups, string(i.Subscription), i.Ask, i.Approved}
}

// at is a time that may be none.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// view is what is known of the user.
func (u *user) view() View {
	v := u.state.view(u.jid)
	v.Fetching, v.Queries, v.Error = u.fetching != nil, len(u.queries), u.failure
	if u.suspect != nil {
		h := HeldView{Held: u.held(), Approved: u.suspect.approved, Removes: []string{}}
		gone := roster.Gone(u.last, u.suspect.roster)
		if len(gone) == 0 && u.own != nil { // the server's own roster, which it would replace
			gone = roster.Gone(u.own, u.suspect.roster)
		}
		for _, contact := range gone {
			h.Removes = append(h.Removes, contact.String())
		}
		v.Held = &h
	}
	return v
}

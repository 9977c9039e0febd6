package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// known notes that rosterd has been told of a user: it has to keep the server's own
// roster of them from now on.
func (w *world) known(user string) { w.toKeep.Store(user, true) }

// lateRoster begins what lateRosters says.
const lateRoster = "the server's roster of "

// lateRosters says of the server's own rosters that are not in step how they differ
// from the backend's, of so many at most.
func (w *world) lateRosters(ctx context.Context, most int) []string {
	var late []string
	for _, user := range w.truth.users() {
		if _, known := w.toKeep.Load(user); !known {
			continue
		}
		has, err := w.server.ownRoster(ctx, user)
		differs := ""
		if err != nil {
			differs = err.Error()
		} else {
			differs = w.truth.wantsOwn(user, has)
		}
		if differs != "" {
			if late = append(late, lateRoster+user+" "+differs); len(late) == most {
				break
			}
		}
	}
	return late
}

// byServer says whether a push may be the server's own: ejabberd pushes what is written
// to its roster, where nobody has asked or approved anything, and a contact is without a
// subscription before it is removed.
func (w *world) byServer(user string, item Item) bool {
	return w.api != nil && (w.truth.wasOwnItem(user, item) || item.Subscription == "none")
}

// own is an item without what no server takes from others.
func (i Item) own() Item {
	i.Ask, i.Approved = false, false
	return i
}

// own are the items of a roster without that.
func (i items) own() items {
	plain := make(items, len(i))
	for jid, item := range i {
		plain[jid] = item.own()
	}
	return plain
}

// written is called before a change of the server's own roster is made: by item, to
// one whose subscription is "remove" or anything else. f.mu is held.
func (f *fake) written(user string, item Item) {
	roster := f.rosters[user]
	had, there := roster[item.JID]
	f.figures.count(&f.figures.Written)
	if item.Subscription == "remove" {
		f.journal.note("server: the roster of %s: %s is removed, was %q", user, item.JID, had.Name)
		if there && f.truth.listedSince(user, had) {
			f.journal.violation("the server's roster of %s: a contact vanishes that the backend still lists: %q", user, had.Name)
		}
		delete(roster, item.JID)
		return
	}
	f.journal.note("server: the roster of %s: %q, was %q", user, item.Name, had.Name)
	if !f.truth.wasOwnItem(user, item) {
		f.journal.violation("the server's roster of %s gets what the backend has never said: %+v", user, item)
	}
	if roster == nil {
		roster = items{}
		f.rosters[user] = roster
	}
	roster[item.JID] = item.own()
}

// ownRoster implements server.
func (f *fake) ownRoster(_ context.Context, user string) (items, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.rosters[user]), nil
}

// getOwn answers a privileged get (XEP-0356, section 5). f.mu is held.
func (f *fake) getOwn(to, id string) {
	user, _, _ := strings.Cut(to, "@")
	var b strings.Builder
	for _, item := range f.rosters[user] {
		fmt.Fprintf(&b, "<item jid='%s' name='%s' subscription='%s'>", escape(item.JID), escape(item.Name), item.Subscription)
		for group := range strings.Lines(item.Groups) {
			fmt.Fprintf(&b, "<group>%s</group>", escape(strings.TrimSuffix(group, "\n")))
		}
		b.WriteString("</item>")
	}
	f.send("<iq type='result' from='%s' to='%s' id='%s'><query xmlns='%s'>%s</query></iq>", to, component, id, nsRoster, b.String())
}

// setOwn does a privileged set: as Prosody, item by item, each with an answer.
// f.mu is held.
func (f *fake) setOwn(e *element) {
	to, id := e.get("to"), e.get("id")
	user, _, _ := strings.Cut(to, "@")
	for _, item := range e.rosterItems() {
		if f.misplace != nil {
			instead, store := f.misplace(item)
			if item = instead; !store {
				f.send("<iq type='result' from='%s' to='%s' id='%s'/>", to, component, id)
				continue
			}
		}
		if _, there := f.rosters[user][item.JID]; !there && item.Subscription == "remove" {
			f.send("<iq type='error' from='%s' to='%s' id='%s'><error type='modify'><item-not-found xmlns='%s'/></error></iq>", to, component, id, nsStanzas)
			continue
		}
		f.written(user, item)
		f.send("<iq type='result' from='%s' to='%s' id='%s'/>", to, component, id)
	}
}

// loseRosters has the server be without rosters after its next restart.
func (f *fake) loseRosters() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetful = true
}

// users are all users.
func (t *truth) users() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.accounts))
}

// wantsOwn is wants for the server's own roster.
func (t *truth) wantsOwn(user string, has items) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return differs(t.accounts[user].now.own(), has.own())
}

// wasOwnItem is wasItem for the server's own roster.
func (t *truth) wasOwnItem(user string, item Item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[user]
	return a != nil && item.Name != "" && a.items[item.Name].own() == item.own()
}

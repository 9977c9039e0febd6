package serverroster

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"rosterd/jid"
	"rosterd/roster"
)

// What ejabberd does by itself when its own roster is written is not all that is to be done.
// It pushes the item to each of the user's clients without what it does not take from others
// (ask, approved), or as it makes it: what it pushed last is not what is true. It goes on with
// what it was asked when nobody waits for the answer any more. And it does not fetch a
// contact's presence for a user who may see them from now on: see probes.go.

const (
	// A call that was not answered may be done for so long: longer than the minute for which
	// ejabberd waits for a database. Meanwhile its user is looked at now and again.
	lateFor   = 2 * time.Minute
	lateEvery = 30 * time.Second
)

// touched is what is known of a contact whom this process wrote, or tried to write, since the
// user was in step last.
type touched struct {
	open bool // not confirmed: the server may have done it, or a part of it
	told bool // the clients are being told what is true
	sees bool // the user may see the contact from now on
}

// pushes reports whether the server pushes by itself what is written.
func (t *turn) pushes() bool { return t.name == "api" }

// touch notes what is about to be written.
func (t *turn) touch(portion []roster.Change, had []roster.Item) {
	if !t.pushes() {
		return
	}
	t.tried = true
	if t.j.touched == nil {
		t.j.touched = make(map[jid.JID]touched)
	}
	for i, c := range portion {
		before := t.j.touched[c.Item.JID]
		sees := c.Action != roster.Removed && sees(c.Item) && (!sees(had[i]) || before.sees)
		t.j.touched[c.Item.JID] = touched{open: true, sees: sees}
		t.j.verify = t.j.verify || c.Action != roster.Removed && isOdd(c.Item)
	}
}

// isOdd reports whether ejabberd may push something else than it was given, which is then to
// be seen: it prepares addresses its own way, and before 24.02 it splits groups at ';'.
func isOdd(i roster.Item) bool {
	return strings.ContainsFunc(i.JID.String(), func(r rune) bool { return r > unicode.MaxASCII }) ||
		slices.ContainsFunc(i.Groups, func(group string) bool { return strings.Contains(group, ";") })
}

func sees(i roster.Item) bool {
	return i.Subscription == roster.SubscriptionTo || i.Subscription == roster.SubscriptionBoth
}

// confirm notes what the server has confirmed.
func (t *turn) confirm(portion []roster.Change) {
	if t.confirmed == nil && len(t.toPush) > 0 {
		t.confirmed = make(map[jid.JID]bool)
	}
	for _, c := range portion {
		if now, ok := t.j.touched[c.Item.JID]; ok {
			now.open = false
			t.j.touched[c.Item.JID] = now
		}
		if t.confirmed != nil {
			t.confirmed[c.Item.JID] = true
		}
	}
}

// correct has the clients told what the server's own pushes were not, before it is kept that
// there is no more to do.
func (t *turn) correct() {
	if t.Pushed == nil || !t.pushes() || !t.killed && len(t.j.touched) == 0 {
		return
	}
	var contacts []jid.JID
	if t.killed { // nobody knows what was written
		for _, item := range t.want.Items() {
			if item.Ask || item.Approved {
				contacts = append(contacts, item.JID)
			}
		}
	}
	all := slices.Collect(maps.Keys(t.j.touched))
	for i, item := range t.want.Lookup(all) {
		now := t.j.touched[all[i]]
		if !now.told && (now.open || item.Ask || item.Approved) {
			contacts = append(contacts, all[i])
		}
		now.told = true
		t.j.touched[all[i]] = now
	}
	if t.row.Residue != "" && len(all) > 0 {
		for _, c := range difference(t.have, t.want) {
			contacts = append(contacts, c.Item.JID)
		}
	}
	if len(contacts) > 0 {
		t.j.owes = true
		t.Pushed(t.j.user, contacts)
	}
}

// correctFailed is that when the server has not said what became of something: it may be a
// while until it is written again.
func (t *turn) correctFailed() {
	if !t.tried || t.Pushed == nil {
		return
	}
	var contacts []jid.JID
	for contact, now := range t.j.touched {
		if now.open {
			contacts = append(contacts, contact)
		}
	}
	if len(contacts) > 0 {
		t.Pushed(t.j.user, contacts)
	}
}

// unanswered notes that the server may yet do what it was asked.
func (t *turn) unanswered() {
	if t.pushes() {
		t.j.late = time.Now().Add(lateFor)
	}
}

// isLate reports whether the server may yet do what it did not answer.
func (p *progress) isLate() bool { return time.Now().Before(p.late) }

// checked is when the server was asked last, as it is kept. While the clients are being told
// what is true, or the server may do more, it counts as not asked: should rosterd be killed,
// that is told, or looked at, again.
func (t *turn) checked() time.Time {
	if t.j.owes || t.j.isLate() {
		return time.Time{}
	}
	return t.row.Checked
}

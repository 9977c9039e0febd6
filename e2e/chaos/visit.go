package chaos

import (
	"fmt"
	"sync"
)

// visit is one session of a device: what its client has received, and has made
// of it. It knows nothing else.
type visit struct {
	device  *device
	number  int // of the device's visits
	session session
	changed func() // something has arrived, or the session has ended

	mu       sync.Mutex
	roster   items           // guarded by mu, as all below
	answered bool            // a query was answered with a roster: that is what roster began with
	queries  int             // so far
	waiting  string          // id of the query that waits for its answer, or ""
	refused  bool            // the last one was answered with an error
	settled  map[string]bool // ids of queries that were answered
	over     bool
	forgot   bool // an instance has ended that had not written what it told
}

func (v *visit) String() string { return fmt.Sprintf("%s, visit %d", v.device, v.number) }

// ask sends a roster query.
func (v *visit) ask() {
	v.mu.Lock()
	v.queries++
	id := fmt.Sprintf("roster-%d-%d", v.number, v.queries)
	v.waiting, v.refused = id, false
	v.mu.Unlock()
	v.world().figures.count(&v.world().figures.Queries)
	v.world().journal.note("%s: asks, %s", v, id)
	v.session.query(id)
	v.world().moments.happened(clientAsks)
}

func (v *visit) world() *world { return v.device.world }

// giveUp stops waiting for an answer.
func (v *visit) giveUp() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting != "" {
		v.world().journal.note("%s: no answer to %s", v, v.waiting)
		v.world().figures.count(&v.world().figures.Unanswered)
		v.waiting, v.refused = "", true
	}
}

// receive implements receiver: an answer to a roster query.
func (v *visit) receive(id string, list []Item, err string) {
	v.mu.Lock()
	defer v.changed()
	defer v.mu.Unlock()
	w := v.world()
	switch {
	case v.settled[id]:
		w.journal.violation("%s: the query %s is answered twice", v, id)
		return
	case id != v.waiting: // given up, or an earlier visit's
		w.journal.note("%s: late answer to %s: %s, %d contacts", v, id, err, len(list))
		return
	}
	v.settled[id], v.waiting = true, ""
	if err != "" {
		w.journal.note("%s: %s is answered with the error %s", v, id, err)
		w.figures.count(&w.figures.Refused)
		v.refused = true
		return
	}
	w.figures.count(&w.figures.Answers)
	v.replace(id, list)
	w.moments.happened(clientAnswered)
}

// replace takes over an answer. v.mu is held.
func (v *visit) replace(id string, list []Item) {
	w := v.world()
	now := items{}
	size := 0
	for _, item := range list {
		if _, twice := now[item.JID]; twice {
			w.journal.violation("%s: the answer to %s has %s twice", v, id, item.JID)
		}
		now[item.JID] = item
		size += len(item.JID) + len(item.Name) + len(item.Groups) + 40
	}
	partial := w.maxStanza > 0 && size > w.maxStanza/3
	w.journal.note("%s: %s is answered with %d contacts", v, id, len(now))
	if !partial && !w.truth.was(v.device.user, now) {
		w.journal.violation("%s: the answer to %s, of %d contacts, is nothing that the backend has ever said; %s",
			v, id, len(now), w.truth.wants(v.device.user, now))
	}
	for jid, known := range v.roster {
		if _, still := now[jid]; !still && !partial {
			v.vanished(known, "is not in the answer to "+id)
		}
	}
	v.roster, v.answered = now, true
	w.known(v.device.user)
}

// vanished checks whether a contact that this client has had was to vanish.
func (v *visit) vanished(known Item, how string) {
	if w := v.world(); w.truth.listedSince(v.device.user, known) {
		w.journal.violation("%s: a contact vanishes that the backend still lists: %q %s", v, known.Name, how)
	}
}

// pushed implements receiver.
func (v *visit) pushed(item Item) {
	v.mu.Lock()
	defer v.changed()
	defer v.mu.Unlock()
	w := v.world()
	w.figures.count(&w.figures.Pushes)
	w.moments.happened(clientPushed)
	known, had := v.roster[item.JID]
	if item.Subscription == "remove" {
		w.figures.count(&w.figures.Removed)
		w.journal.note("%s: push: %s is removed, was %q", v, item.JID, known.Name)
		if had {
			v.vanished(known, "is removed by a push")
		}
		delete(v.roster, item.JID)
		return
	}
	w.journal.note("%s: push: %q, was %q", v, item.Name, known.Name)
	if !w.truth.wasItem(v.device.user, item) && !w.byServer(v.device.user, item) {
		w.journal.violation("%s: a push has what the backend has never said: %+v", v, item)
	}
	v.roster[item.JID] = item
}

// ended implements receiver.
func (v *visit) ended() {
	v.mu.Lock()
	v.over = true
	v.mu.Unlock()
	v.changed()
}

// differs says how the client's roster differs from the backend's, or "".
func (v *visit) differs() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.answered {
		return "has no roster"
	}
	if v.world().alone {
		return v.world().truth.wantsOwn(v.device.user, v.roster)
	}
	return v.world().truth.wants(v.device.user, v.roster)
}

// steady says that the client has a roster of a number of contacts.
func (v *visit) steady(contacts int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.answered && !v.over && len(v.roster) >= contacts
}

// keeps reports whether the client differs only in contacts that are no more, of which an
// instance may have told it that did not write so: it has them until it logs in anew, see
// docs/high-availability.md.
func (v *visit) keeps() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.forgot && v.answered && !v.over && v.world().truth.has(v.device.user, v.roster)
}

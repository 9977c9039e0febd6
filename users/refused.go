package users

import (
	"maps"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	// maxRefused bounds the contacts of a resource that wait to be corrected. With more,
	// the others stay as the client shows them until it asks.
	maxRefused = 1000
	// maxCorrecting is how many contacts of a user are being corrected when the others
	// wait: one set names many, and nobody waits to send the next.
	maxCorrecting = 100
)

// refuse notes contacts that a resource may show otherwise than they are.
func (u *user) refuse(full jid.JID, contacts []jid.JID) {
	if u.refused == nil {
		u.refused = make(map[jid.JID]map[jid.JID]struct{})
	}
	named := u.refused[full]
	if named == nil {
		named = make(map[jid.JID]struct{})
		u.refused[full] = named
	}
	news := false
	for _, contact := range contacts {
		if _, waits := named[contact]; !waits && len(named) < maxRefused {
			named[contact], news = struct{}{}, true
		}
	}
	if !news {
		return
	}
	u.epoch++ // what the client shows now is not what its version names
	if t, told := u.told[full]; told && t.doubt && t.since.IsZero() {
		t.since = time.Now() // it shows something, though it was never told
		u.told[full] = t
	}
	u.commit(u.correct)
}

// correct pushes to the resources that were refused a change what is true, if it is known.
func (u *user) correct() {
	switch {
	case len(u.refused) == 0 || u.correcting >= maxCorrecting || u.stopping:
		return
	case u.last == nil && u.fetching == nil && !u.failed:
		u.m.queue.refresh(u.jid)
		return
	case u.last == nil && u.fetching != nil:
		return
	case u.last == nil:
		u.deferCorrections()
		u.fetchLater(errUndelivered, soon)
		return
	}
	refused := u.refused
	u.refused = nil
	for full, contacts := range refused {
		d := delivery{to: []jid.JID{full}, versioned: u.told[full].versioned, correction: true}
		for _, c := range again(u.last, slices.Collect(maps.Keys(contacts))) {
			if _, missed := u.missed[c.Item.JID]; c.Action == roster.Changed || !missed {
				d.changes = append(d.changes, c)
			} // else somebody was told more than is known here, and all are told again
		}
		if len(d.changes) > 0 {
			u.push(u.prepare(d, nil))
		}
	}
}

// deferCorrections leaves what waits to be corrected for later, as nobody knows what is true.
func (u *user) deferCorrections() {
	for _, contacts := range u.refused {
		for contact := range contacts {
			u.miss(contact)
		}
	}
	u.refused = nil
}

package users

import (
	"maps"
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// maxCorrecting is how many contacts of a user are being corrected when the others wait: one
// roster set may name many, and clients do not wait before they send another.
const maxCorrecting = 100

// refuse notes contacts that resources may show otherwise than they are.
func (u *user) refuse(refused refusals) {
	if u.refused == nil {
		u.refused = make(refusals, len(refused))
	}
	news := false
	for full, contacts := range refused {
		for contact := range contacts {
			news = u.refused.add(full, contact) || news
		}
		if t, told := u.told[full]; told && t.never() {
			t.since = u.m.now() // it shows something, though it was never told
			u.told[full] = t
		}
	}
	if news {
		u.epoch++ // what the clients show now is not what their versions name
		u.commit(u.correct)
	}
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
		u.fetchLater(MarkedClient, errUndelivered, soon)
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
			u.miss(contact, u.m.now())
		}
	}
	u.refused = nil
}

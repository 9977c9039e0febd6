package roster

import (
	"time"

	"rosterd/store"
)

// parting is the end of a process. Of the answers that it sent after from, some
// may not have arrived: they were in its queue. Until the next process began, to,
// nothing was sent.
type parting struct{ from, to time.Time }

const (
	// unsent is how long an answer may wait to be written to the server. A stream
	// that takes nothing for so long is given up.
	unsent = 30 * time.Second
	// maxPartings bounds the partings that are known: those of processes before the
	// last one count for users whom none has come to since.
	maxPartings = 64
	// partingsKey is the key of their record, which is no user's.
	partingsKey = "/"
)

// part takes the partings before from the store, and notes that of the last
// process.
func (m *Manager) part() error {
	ended := m.Store.Ended()
	if ended.IsZero() {
		return nil
	}
	e, err := m.Store.Get(store.Marks, partingsKey)
	if err != nil {
		return err
	}
	for d := (decoder{b: e.Record}); len(d.b) > 0 && !d.bad; {
		m.partings = append(m.partings, parting{d.time(), d.time()})
	}
	p := parting{ended.Add(-unsent), time.Now()}
	if n := len(m.partings); n > 0 && !p.from.After(m.partings[n-1].to) {
		m.partings[n-1].to = p.to
	} else {
		m.partings = append(m.partings, p)
	}
	m.partings = m.partings[max(0, len(m.partings)-maxPartings):]
	record := []byte{}
	for _, p := range m.partings {
		record = appendTime(appendTime(record, p.from), p.to)
	}
	m.Store.Put(store.Marks, partingsKey, record)
	return nil
}

// unsure reports whether an answer that was sent at a time may have been lost
// with the process that sent it.
func (m *Manager) unsure(sent time.Time) bool {
	for _, p := range m.partings {
		if !sent.Before(p.from) && !sent.After(p.to) {
			return true
		}
	}
	return false
}

package chaos

import "sync"

// mailbox runs what it is given, one after the other, in a goroutine that lives
// only while there is something to do: of ten thousand sessions, few have. It has
// no bound: who puts never waits.
type mailbox struct {
	tasks *sync.WaitGroup // of the goroutine
	last  func()          // runs once, after all else; nil: nothing does

	mu      sync.Mutex
	queue   []func() // guarded by mu, as all below
	running bool
	ended   bool
}

func newMailbox(tasks *sync.WaitGroup, last func()) *mailbox {
	return &mailbox{tasks: tasks, last: last}
}

// put adds something to do. It is dropped once end was called.
func (m *mailbox) put(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.add(f)
	}
}

// end ends the mailbox; all that waits is dropped if drop is set.
func (m *mailbox) end(drop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended = true
	if drop {
		m.queue = nil
	}
	if m.last != nil {
		m.add(m.last)
	}
}

// add is put with m.mu held.
func (m *mailbox) add(f func()) {
	m.queue = append(m.queue, f)
	if !m.running {
		m.running = true
		m.tasks.Go(m.run)
	}
}

// run runs what waits.
func (m *mailbox) run() {
	for {
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.queue, m.running = nil, false
			m.mu.Unlock()
			return
		}
		next := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		next()
	}
}

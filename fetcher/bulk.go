package fetcher

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"rosterd/roster"
)

// BulkRequests is how many requests for several users of one domain are under way
// at once: while some are with the backend, others are decoded. Whoever fetches as
// many users at a time as these can hold lets them be full.
const BulkRequests = 4

const (
	// How long a user waits for company, if somebody is being asked for: until that
	// has ended, or at most so long.
	forCompany = 10 * time.Millisecond
	// How long all are asked for alone after a failure, and after one that will
	// hardly pass by itself.
	bulkPause     = 5 * time.Second
	bulkLongPause = 5 * time.Minute
)

// bulk gathers the users of one domain that are to be fetched and are in no
// hurry, so that those who come together are asked for together. One who comes
// alone is asked for alone, at once. So are those whom an answer does not help.
// It is safe for concurrent use.
type bulk struct {
	f       *Fetcher
	url     string
	backend string // its host:port

	mu      sync.Mutex // guards all below, and members; nothing blocks while it is held
	waiting []*member  // first come, first served
	joined  uint64     // ever, for tests
	lone    int        // of those that were asked for alone, at once, how many still are
	batches int        // under way
	timer   *time.Timer
	apart   time.Time // until then all are asked for alone
	half    int       // until then, at most so many together
	halved  time.Time
	failing bool // the last batch did
}

// verdict is what a member gets.
type verdict int

const (
	askAlone verdict = iota
	askLone          // the same, and bulk.ended is to be called then
	answered         // what was fetched
)

// member is one user who is to be fetched.
type member struct {
	request roster.Request
	since   time.Time
	batch   *batch // nil: waits
	gone    bool

	settled chan struct{} // closed when these are set:
	verdict verdict
	fetched roster.Fetched
}

// batch is one request for several users.
type batch struct {
	members []*member
	left    int                // those not gone
	cancel  context.CancelFunc // called when that is 0
}

// settle gives a member what it waits for, once. bulk.mu is held.
func (m *member) settle(v verdict) {
	if !m.isSettled() {
		m.verdict = v
		close(m.settled)
	}
}

func (m *member) isSettled() bool {
	select {
	case <-m.settled:
		return true
	default:
		return false
	}
}

// fetch is [Fetcher.Fetch] for a user of the domain.
func (q *bulk) fetch(ctx context.Context, r roster.Request) (roster.Fetched, *Error) {
	m := q.join(r)
	select {
	case <-m.settled:
	case <-ctx.Done():
		q.leave(m)
		return roster.Fetched{}, contextError(ctx.Err(), "timed out while it waited for other fetches")
	}
	switch m.verdict {
	case answered:
		return m.fetched, nil
	case askLone:
		defer q.ended()
	}
	return q.f.fetch(ctx, r, nil)
}

func (q *bulk) join(r roster.Request) *member {
	m := &member{request: r, since: time.Now(), settled: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.joined++
	if m.since.Before(q.apart) || r.User.Local() == "" {
		m.settle(askAlone)
		return m
	}
	q.waiting = append(q.waiting, m)
	q.dispatch()
	return m
}

// leave is called when nobody waits for m any more.
func (q *bulk) leave(m *member) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m.isSettled():
		if m.verdict == askLone {
			q.lone--
			q.dispatch()
		}
	case m.batch == nil:
		q.waiting = slices.DeleteFunc(q.waiting, func(o *member) bool { return o == m })
	default:
		m.gone = true
		if m.batch.left--; m.batch.left == 0 {
			m.batch.cancel()
		}
	}
}

// ended is called when a lone member has been asked for.
func (q *bulk) ended() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lone--
	q.dispatch()
}

// dispatch sends off who need not wait any longer. q.mu is held.
func (q *bulk) dispatch() {
	for len(q.waiting) > 0 {
		n, waited := min(len(q.waiting), q.limit()), time.Since(q.waiting[0].since)
		if waited < q.f.company && len(q.waiting) < q.limit() && q.lone+q.batches > 0 {
			q.timer.Reset(q.f.company - waited)
			return
		}
		if q.batches == BulkRequests {
			return
		}
		members := slices.Clone(q.waiting[:n])
		q.waiting = slices.Delete(q.waiting, 0, n)
		if n == 1 {
			q.lone++
			members[0].settle(askLone)
			continue
		}
		q.start(members)
	}
}

// limit is how many may be in a batch. q.mu is held.
func (q *bulk) limit() int {
	if time.Now().Before(q.halved) {
		return q.half
	}
	return q.f.bulkSize
}

// late sends off who has waited for company long enough.
func (q *bulk) late() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dispatch()
}

// start asks for several members in a goroutine, which [bulks.stop] waits for.
// q.mu is held.
func (q *bulk) start(members []*member) {
	ctx, cancel := context.WithCancel(q.f.bulks.life)
	b := &batch{members: members, left: len(members), cancel: cancel}
	for _, m := range members {
		m.batch = b
	}
	q.batches++
	if !q.f.bulks.start(func() { defer cancel(); q.run(ctx, b) }) {
		cancel()
		q.finish(b, contextError(context.Canceled, ""))
	}
}

func (q *bulk) run(ctx context.Context, b *batch) {
	users := make([]asked, len(b.members))
	for i, m := range b.members {
		users[i] = asked{user: m.request.User, got: func(r *roster.Roster) { q.answer(m, r) }}
	}
	failure := q.f.together(ctx, q.url, users)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finish(b, failure)
	q.dispatch()
}

// answer gives a member what an answer says.
func (q *bulk) answer(m *member, r *roster.Roster) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !m.gone {
		m.fetched = roster.Fetched{Roster: r}
		m.settle(answered)
	}
}

// finish decides what becomes of the members that were not answered, and of the
// next ones. q.mu is held.
func (q *bulk) finish(b *batch, failure *Error) {
	q.batches--
	rest := slices.DeleteFunc(b.members, func(m *member) bool { return m.gone || m.isSettled() })
	switch {
	case failure == nil:
		q.f.countBulk(bulkOK)
		if q.failing {
			q.failing = false
			q.log(slog.LevelInfo, "contacts are fetched in bulk again")
		}
	case failure.cause == context.Canceled || failure.Result == resultOpen:
		// That says nothing about the backend's bulk fetch.
	case failure.Result == resultTooLarge || failure.Status == http.StatusRequestEntityTooLarge:
		q.f.countBulk(bulkFailed)
		q.half, q.halved = max(1, len(b.members)/2), time.Now().Add(bulkLongPause)
		if q.half > 1 {
			for _, m := range rest {
				m.batch = nil
			}
			q.waiting = append(rest, q.waiting...)
			q.log(slog.LevelWarn, "an answer in bulk was too large: fewer users are asked for at once for a while",
				slog.Duration("while", bulkLongPause), slog.Int("users", q.half))
			return
		}
		q.fail(failure, bulkLongPause)
	default:
		q.f.countBulk(bulkFailed)
		pause := bulkPause
		if slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, failure.Status) {
			pause = bulkLongPause
		}
		q.fail(failure, pause)
	}
	for _, m := range rest {
		m.settle(askAlone)
	}
}

// fail lets all be asked for alone for a while. q.mu is held.
func (q *bulk) fail(failure *Error, pause time.Duration) {
	q.apart = time.Now().Add(pause)
	for _, m := range q.waiting {
		m.settle(askAlone)
	}
	q.waiting = nil
	if !q.failing {
		q.failing = true
		q.log(slog.LevelWarn, "contacts cannot be fetched in bulk: each user is asked for alone for a while",
			slog.Duration("while", pause), slog.String("err", failure.text))
	}
}

func (q *bulk) log(level slog.Level, message string, attrs ...slog.Attr) {
	q.f.log.LogAttrs(context.Background(), level, message, append([]slog.Attr{slog.String("backend", q.backend)}, attrs...)...)
}

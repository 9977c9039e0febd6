package users

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/session"
)

// backend is a Source whose fetches begin and end when the test says so.
type backend struct {
	t       *testing.T
	mu      sync.Mutex
	rosters map[string]*roster.Roster
	err     error
	missing bool
	asked   []roster.Request
	hold    chan struct{} // nil: fetches end at once; else each waits for one value
	begun   int
	begins  func() // is called as the next fetch begins; may be nil
	at      int    // fetches under way
	most    int
	edit    func(ctx context.Context, user jid.JID, c roster.Change) error
}

func (b *backend) Fetch(ctx context.Context, req roster.Request) (roster.Fetched, error) {
	b.mu.Lock()
	b.begun++
	b.at++
	b.most = max(b.most, b.at)
	b.asked = append(b.asked, req)
	begins := b.begins
	b.begins = nil
	r, err, hold, missing := b.rosters[req.User.Local()], b.err, b.hold, b.missing
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.at--; b.mu.Unlock() }()
	if begins != nil {
		begins()
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return roster.Fetched{}, ctx.Err()
		}
	}
	if r == nil || missing {
		r = roster.New(nil)
	}
	return roster.Fetched{Roster: r, Missing: missing, Validator: "v"}, err
}

func (b *backend) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	each(ctx, b, rs, done)
}

func (b *backend) Edit(ctx context.Context, user jid.JID, c roster.Change) error {
	return b.edit(ctx, user, c)
}

func (b *backend) BatchSize(string) int { return 1 }

// each is FetchMany of a source that fetches one after the other.
func each(ctx context.Context, s interface {
	Fetch(context.Context, roster.Request) (roster.Fetched, error)
}, rs []roster.Request, done func(int, roster.Fetched, error)) {
	for i, r := range rs {
		f, err := s.Fetch(ctx, r)
		done(i, f, err)
	}
}

// lose lets the backend know nobody, or know everybody again.
func (b *backend) lose(missing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missing = missing
}

// reported says of the fetches since the last call whether the user had been
// reported.
func (b *backend) reported() (list []bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.asked {
		list = append(list, r.Reported)
	}
	b.asked = nil
	return list
}

func (b *backend) set(user string, lines ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rosters[user] = contacts(b.t, lines...)
}

func (b *backend) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *backend) fetches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begun
}

// world is a Manager with fakes around it. Replies and pushes are noted in the
// order in which they would leave.
type world struct {
	*Manager
	t        *testing.T
	backend  *backend
	sessions *session.Table
	kept     *disk
	version  *string // that is asked with
	rules    Rules
	limits   Limits

	mu      sync.Mutex
	sent    []string
	outcome roster.Outcome // of every push
	silent  bool           // pushes are never settled
	down    bool
	fits    int   // items in a reply; 0: any number
	refuse  error // of Push
	lost    bool  // replies are lost with the stream

	refusing func() // is called when Push refuses; nil: nothing
	pushing  func() // is called when Push does not; nil: nothing
}

func newWorld(t *testing.T, limits Limits) *world {
	if limits.Cache == 0 {
		limits.Cache = -1 // what is known has to be in the store
	}
	w := &world{t: t, backend: &backend{t: t, rosters: make(map[string]*roster.Roster)}, kept: newDisk(), rules: Rules{MaxRemoved: 0.9, ConfirmAfter: 30 * time.Second}, limits: limits}
	w.begin()
	t.Cleanup(func() { w.Close() })
	return w
}

// begin makes the manager and the sessions of what is kept.
func (w *world) begin() {
	w.t.Helper()
	var err error
	if w.sessions, err = session.Load(w.kept); err != nil {
		w.t.Fatal(err)
	}
	if w.Manager, err = NewManager(Options{
		Source: w.backend, Editor: w.backend, Sessions: w.sessions, Pusher: w, Store: w.kept,
		Logger: slog.New(slog.DiscardHandler), Rules: w.rules, Limits: w.limits,
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) Connected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.down
}

func (w *world) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	w.mu.Lock()
	if err, f := w.refuse, w.refusing; err != nil {
		w.mu.Unlock()
		if f != nil {
			f()
		}
		return err
	}
	for _, full := range to {
		for _, c := range changes {
			w.sent = append(w.sent, fmt.Sprintf("push %s %s %s %s", full.Resource(), c.Action, c.Item.JID.Local(), c.Item.Name))
		}
	}
	o, silent, pushing := w.outcome, w.silent, w.pushing
	if o.Err != nil {
		for _, c := range changes {
			o.Owed = append(o.Owed, c.Item.JID)
		}
	}
	w.mu.Unlock()
	if pushing != nil {
		pushing()
	}
	if !silent {
		settled(o)
	}
	return nil
}

// ask is a roster get of juliet's.
func (w *world) ask(resource string) error {
	full := mustJID(w.t, "juliet@example.org/"+resource)
	puts, fetches := w.kept.puts.Load(), w.backend.fetches()
	return w.Get(full, w.version, func(a roster.Answer) (rest []roster.Item) {
		r, err := a.Roster, a.Err
		w.mu.Lock()
		defer w.mu.Unlock()
		if a.Same && w.kept.puts.Load() == puts && w.backend.fetches() == fetches { // at once
			w.sent = append(w.sent, "same "+resource)
			return nil
		}
		if r == nil {
			w.sent = append(w.sent, fmt.Sprintf("error %s %v", resource, err))
			return nil
		}
		if w.fits > 0 && r.Len() > w.fits {
			rest = r.Items()[w.fits:]
			r = roster.New(slices.Clone(r.Items()[:w.fits]))
		}
		if w.lost {
			w.sent = append(w.sent, "lost "+resource)
			w.Undelivered(full)
			return nil
		}
		names := make([]string, 0, r.Len())
		for _, item := range r.Items() {
			names = append(names, item.JID.Local()+" "+item.Name)
		}
		w.sent = append(w.sent, fmt.Sprintf("reply %s %s", resource, strings.Join(names, ", ")))
		return rest
	})
}

// login has a resource of juliet's be answered a roster get, with these contacts.
func (w *world) login(resource string, contacts ...string) {
	w.t.Helper()
	w.backend.set("juliet", contacts...)
	if err := w.ask(resource); err != nil {
		w.t.Fatal(err)
	}
	w.took()
}

// took returns what was sent since the last call, once all is quiet.
func (w *world) took() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := w.sent
	w.sent = nil
	return sent
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	if got := w.took(); !slices.Equal(got, want) {
		w.t.Errorf("sent\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *world) expectInAnyOrder(want ...string) {
	w.t.Helper()
	got, want := slices.Sorted(slices.Values(w.took())), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		w.t.Errorf("sent, sorted\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *world) refreshJuliet() error {
	failed, err := w.Refresh(w.t.Context(), []jid.JID{mustJID(w.t, "juliet@example.org")})
	if err != nil {
		return err
	}
	return failed[mustJID(w.t, "juliet@example.org")]
}

// never is an age that no roster is young enough for.
const never = -1

func (w *world) set(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func inWorld(t *testing.T, limits Limits, f func(t *testing.T, w *world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) { f(t, newWorld(t, limits)) })
}

func TestGetThenRefreshPushesTheDifference(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "benvolio@example.org B", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect("reply balcony benvolio B, romeo Romeo")
		w.backend.set("juliet", "nurse@example.org Nurse", "romeo@example.org R")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect("push balcony removed benvolio ", "push balcony added nurse Nurse", "push balcony changed romeo R")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect() // nothing changed
	})
}

func TestQueriesAtTheSameTimeShareAFetch(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		w.ask("a")
		synctest.Wait()
		w.ask("b")
		synctest.Wait()
		w.backend.hold <- struct{}{}
		w.expect("reply a romeo Romeo", "reply b romeo Romeo")
		if n := w.backend.fetches(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A permit that comes when its refresh has been served already, by the fetch that an older
// one let begin, is no reason to fetch again.
func TestLatePermit(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect("reply balcony romeo Romeo")
		juliet, q := mustJID(t, "juliet@example.org"), w.queue
		q.mu.Lock()
		free := q.free
		q.schedule(q.entry(juliet), forRefresh, time.Now())
		late, _ := q.next(true)
		q.mu.Unlock()
		w.backend.set("juliet", "romeo@example.org R")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect("push balcony changed romeo R")
		fetches := w.backend.fetches()
		q.permit(late)
		synctest.Wait()
		if n := w.backend.fetches() - fetches; n != 0 {
			t.Errorf("%d more fetches, want none", n)
		}
		q.mu.Lock()
		if q.free != free {
			t.Errorf("%d places are free, want %d as before", q.free, free)
		}
		q.mu.Unlock()
		if err := w.refreshJuliet(); err != nil || w.backend.fetches() == fetches {
			t.Errorf("the next refresh: %v, after %d fetches in all", err, w.backend.fetches())
		}
	})
}

// A report that was promised to be looked into is not forgotten with the session that was
// there: the next one is told what the backend says then, not what was fetched before.
func TestPromiseOutlivesItsSession(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect("reply balcony romeo Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		q, full := w.queue, mustJID(t, "juliet@example.org/balcony")
		places := func(n int) (before int) {
			q.mu.Lock()
			defer q.mu.Unlock()
			before, q.free = q.free, n
			return before
		}
		free := places(0) // others have them
		if err := w.RefreshLater(t.Context(), []jid.JID{full.Bare()}); err != nil {
			t.Fatal(err)
		}
		w.sessions.Gone(full)
		w.Gone(full)
		places(free)
		w.Unasked(full)
		q.dispatch()
		time.Sleep(time.Minute) // of the bubble's clock: the pause before the next try is over
		w.expect("push balcony changed romeo R")
	})
}

// A refresh wants what the backend says after it arrived.
func TestRefreshNeverTakesAnOlderFetch(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Old")
		w.backend.hold = make(chan struct{})
		w.ask("balcony")
		synctest.Wait() // the fetch has begun, with the old roster
		w.backend.set("juliet", "romeo@example.org New")
		done := make(chan error, 3)
		for range 3 { // they share the next fetch
			go func() { done <- w.refreshJuliet() }()
		}
		synctest.Wait()
		w.backend.hold <- struct{}{}
		w.expect("reply balcony romeo Old")
		w.backend.hold <- struct{}{}
		w.expect("push balcony changed romeo New")
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := w.backend.fetches(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

func TestQueryThatShowsAChangeIsPushedToTheOthers(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect("reply balcony romeo Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		w.ask("chamber")
		w.expect("reply chamber romeo R", "push balcony changed romeo R")
	})
}

func TestFailureIsNeverAnEmptyRoster(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.fail(errors.New("down"))
		w.ask("balcony")
		w.expect("error balcony down")
		if err := w.refreshJuliet(); err == nil || err.Error() != "down" {
			t.Errorf("refresh: %v", err)
		}
		w.expect()
		// The backend is back: the client, which has nothing, is brought in line.
		w.backend.fail(nil)
		w.backend.set("juliet", "romeo@example.org Romeo")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect("push balcony added romeo Romeo")
	})
}

// One resource has the roster, another was answered with an error: the one is
// told what changed, the other everything.
func TestResourceThatGotAnErrorIsToldEverything(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Rules.MaxStale = never
		w.backend.set("juliet", "romeo@example.org Romeo", "tybalt@example.org T")
		w.ask("a")
		w.expect("reply a romeo Romeo, tybalt T")
		w.backend.fail(errors.New("down"))
		w.ask("b")
		w.expect("error b down")
		w.backend.fail(nil)
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.refreshJuliet()
		w.expectInAnyOrder("push a removed tybalt ", "push b added romeo Romeo")
		w.refreshJuliet()
		w.expect()
	})
}

// A client that asks again after an error costs the others nothing.
func TestAskingAgainAfterAnError(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo", "tybalt@example.org T")
		w.backend.fail(errors.New("down"))
		w.ask("b")
		w.took()
		w.backend.fail(nil)
		w.ask("b")
		w.expect("reply b romeo Romeo, tybalt T")
		w.refreshJuliet()
		w.expect()
	})
}

// A client that has the roster asks again and gets an error: it has the roster
// still, and learns what was removed meanwhile.
func TestErrorToAClientThatHasTheRoster(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Rules.MaxStale = never
		w.login("a", "romeo@example.org Romeo", "tybalt@example.org T")
		w.backend.fail(errors.New("down"))
		w.ask("a")
		w.took()
		w.backend.fail(nil)
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.refreshJuliet()
		w.expect("push a changed romeo Romeo", "push a removed tybalt ")
		w.refreshJuliet()
		w.expect()
	})
}

// The name of a resource comes back with another session, which has nothing.
func TestNewSessionOfTheSameName(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Rules.MaxStale = never
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("a")
		w.ask("b")
		w.took()
		w.sessions.Gone(mustJID(t, "juliet@example.org/a"))
		w.Gone(mustJID(t, "juliet@example.org/a"))
		w.backend.fail(errors.New("down"))
		w.ask("a")
		w.expect("error a down")
		w.backend.fail(nil)
		w.refreshJuliet()
		w.expect("push a changed romeo Romeo")
	})
}

// What a client had before it asked in vain is not forgotten, however often.
func TestRepliesLostToAClientThatHasARoster(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "paris@example.org P", "romeo@example.org Romeo")
		w.set(func() { w.lost = true })
		w.backend.set("juliet", "nurse@example.org N", "romeo@example.org Romeo")
		w.ask("a")
		w.ask("a")
		w.expect("lost a", "lost a")
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("a")
		w.expect("lost a")
		w.set(func() { w.lost = false })
		w.Resume("example.org")
		w.expectInAnyOrder("push a changed romeo Romeo", "push a removed nurse ", "push a removed paris ")
		w.refreshJuliet()
		w.expect()
	})
}

func TestRepliesLostWithTheStream(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.set(func() { w.lost = true })
		w.ask("a")
		w.expect("lost a")
		w.set(func() { w.lost = false })
		w.Resume("example.org")
		w.expect("push a changed romeo Romeo")
		w.Resume("example.org")
		w.expect()
	})
}

// Nobody knows what comes first, the end of a push or the next stream.
func TestResumedBeforeThePushIsLost(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		var settle func(roster.Outcome)
		w.Manager.Pusher = pusherFunc(func(_ []jid.JID, _ []roster.Change, settled func(roster.Outcome)) error {
			settle = settled
			return nil
		})
		go w.refreshJuliet()
		synctest.Wait()
		w.Manager.Pusher = w
		w.Resume("example.org")
		w.expect()
		settle(roster.Outcome{Owed: []jid.JID{mustJID(t, "romeo@example.org")}, Lost: true, Err: errors.New("lost")})
		time.Sleep(soon.most)
		w.expect("push a changed romeo R")
	})
}

type pusherFunc func([]jid.JID, []roster.Change, func(roster.Outcome)) error

func (pusherFunc) Connected() bool { return true }
func (f pusherFunc) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	return f(to, changes, settled)
}

// Pushes that nobody may send leave no debt that grows, and are made good when
// they are permitted.
func TestPushNotPermitted(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		refused := errors.New("not permitted")
		w.set(func() { w.refuse = refused })
		for i := range 100 {
			w.backend.set("juliet", fmt.Sprintf("contact%d@example.org x", i), "romeo@example.org R")
			if err := w.refreshJuliet(); err != refused {
				t.Fatalf("refresh: %v", err)
			}
		}
		w.expect()
		if s, _ := w.read(mustJID(t, "juliet@example.org")); len(s.missed) != 0 {
			t.Errorf("%d missed", len(s.missed))
		}
		w.set(func() { w.refuse = nil })
		w.refreshJuliet()
		w.expect("push a added contact99 x", "push a changed romeo R")
	})
}

// What somebody may have missed is bounded.
func TestMissedIsBounded(t *testing.T) {
	a := mustJID(t, "juliet@example.org/a")
	s := &state{last: roster.New(nil), told: map[jid.JID]told{a: {}}}
	for i := range maxMissed + 1 {
		s.miss(mustJID(t, fmt.Sprintf("contact%d@example.org", i)), time.Now())
	}
	if len(s.missed) != 0 || !s.told[a].doubt {
		t.Errorf("%d missed, told %+v", len(s.missed), s.told)
	}
}

// Callers that give up and come again leave nothing behind.
func TestRefreshesThatWaitAreOne(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		juliet := []jid.JID{mustJID(t, "juliet@example.org")}
		ctx, cancel := context.WithCancel(t.Context())
		for range 1000 {
			go w.Refresh(ctx, juliet)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		before := w.backend.fetches()
		close(w.backend.hold)
		synctest.Wait()
		if n := w.backend.fetches(); n > before+1 {
			t.Errorf("%d fetches after %d", n, before)
		}
	})
}

func TestQueryIsAnsweredInTime(t *testing.T) {
	inWorld(t, Limits{Answer: 25 * time.Second}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		began := time.Now()
		w.ask("a")
		time.Sleep(10 * time.Second)
		w.ask("b")
		time.Sleep(15 * time.Second)
		w.expect("error a " + roster.ErrOverdue.Error())
		if d := time.Since(began); d != 25*time.Second {
			t.Errorf("answered after %v", d)
		}
		w.backend.hold <- struct{}{}
		// b is still waiting and gets the result; a gets it, too, late but whole.
		w.expect("reply b romeo Romeo", "push a added romeo Romeo")
	})
}

// What is to be answered within 25 s by the clock of the client has been answered
// a second before.
func TestQueryDeadline(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		w.ask("a")
		time.Sleep(24*time.Second - 1)
		w.expect()
		time.Sleep(time.Nanosecond)
		w.expect("error a " + roster.ErrOverdue.Error())
		w.backend.hold <- struct{}{}
		w.expect("push a added romeo Romeo")
	})
}

func TestQueriesAreBounded(t *testing.T) {
	inWorld(t, Limits{PerUser: 2, Queries: 3}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		got := []error{w.ask("a"), w.ask("a"), w.ask("a")}
		if got[0] != nil || got[1] != nil || got[2] != roster.ErrBusy {
			t.Errorf("per user: %v", got)
		}
		reply := func(roster.Answer) []roster.Item { return nil }
		got = nil
		for _, user := range []string{"romeo", "nurse"} {
			got = append(got, w.Get(mustJID(t, user+"@example.org/x"), nil, reply))
		}
		if got[0] != nil || got[1] != roster.ErrBusy {
			t.Errorf("of all users: %v", got)
		}
		synctest.Wait()
		w.backend.hold <- struct{}{}
		w.backend.hold <- struct{}{}
		w.took()
		if len(w.users) != 0 {
			t.Errorf("%d users", len(w.users))
		}
		if err := w.ask("a"); err != nil { // the places are free again
			t.Error(err)
		}
	})
}

func TestRefreshOfUsersWithoutAConnectedResource(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		if n := w.backend.fetches(); n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestItemsThatDoNotFitFollowAsPushes(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.fits = 1
		w.backend.set("juliet", "nurse@example.org N", "romeo@example.org Romeo", "tybalt@example.org T")
		w.set(func() { w.outcome = roster.Outcome{Err: errors.New("lost"), Lost: true} })
		w.ask("balcony")
		w.expect("reply balcony nurse N", "push balcony added romeo Romeo", "push balcony added tybalt T")
		w.set(func() { w.outcome = roster.Outcome{} })
		w.Resume("example.org")
		w.expectInAnyOrder("push balcony changed romeo Romeo", "push balcony changed tybalt T")
	})
}

func TestRefreshWhileNotConnectedIsDoneLater(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect("reply balcony romeo Romeo")
		w.set(func() { w.down = true })
		w.backend.set("juliet", "romeo@example.org R")
		if err := w.refreshJuliet(); err != roster.ErrNotConnected {
			t.Errorf("refresh: %v", err)
		}
		w.expect()
		w.set(func() { w.down = false })
		w.Resume("example.net")
		w.expect()
		w.Resume("example.org")
		w.expect("push balcony changed romeo R")
		w.Resume("example.org")
		w.expect()
	})
}

func TestUndeliveredPushesAreOwed(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("balcony", "romeo@example.org Romeo", "tybalt@example.org T")
		w.backend.set("juliet", "romeo@example.org R")
		refused := errors.New("refused")
		w.set(func() { w.outcome = roster.Outcome{Err: refused} })
		if err := w.refreshJuliet(); err != refused {
			t.Errorf("refresh: %v", err)
		}
		w.expect("push balcony changed romeo R", "push balcony removed tybalt ")
		w.set(func() { w.outcome = roster.Outcome{} })
		if err := w.refreshJuliet(); err != nil { // the backend says the same again, the client was not told
			t.Error(err)
		}
		w.expectInAnyOrder("push balcony changed romeo R", "push balcony removed tybalt ")
	})
}

func TestPushesLostWithTheStreamAreSentAgain(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("balcony", "romeo@example.org Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		w.set(func() { w.outcome = roster.Outcome{Err: errors.New("lost"), Lost: true} })
		if err := w.refreshJuliet(); err == nil {
			t.Error("the refresh did not fail")
		}
		w.expect("push balcony changed romeo R")
		w.set(func() { w.outcome = roster.Outcome{} })
		w.Resume("example.org")
		w.expect("push balcony changed romeo R")
	})
}

// A client that does not confirm its pushes does not hold up the backend.
func TestRefreshDoesNotWaitForSlowClients(t *testing.T) {
	inWorld(t, Limits{Settle: 2 * time.Second}, func(t *testing.T, w *world) {
		w.login("balcony", "romeo@example.org Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		w.set(func() { w.silent = true })
		began := time.Now()
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("answered after %v", d)
		}
	})
}

func TestRefreshesLeavePlacesToQueries(t *testing.T) {
	inWorld(t, Limits{Background: 2}, func(t *testing.T, w *world) {
		var users []jid.JID
		for i := range 10 {
			full := mustJID(t, fmt.Sprintf("user%d@example.org/x", i))
			w.sessions.Connected(full)
			users = append(users, full.Bare())
		}
		w.backend.hold = make(chan struct{})
		go w.Refresh(t.Context(), users)
		synctest.Wait()
		if n := w.backend.fetches(); n != 2 {
			t.Errorf("%d fetches for refreshes, want 2", n)
		}
		// One of those who wait logs in, and does not wait any more.
		for _, user := range users {
			w.Get(mustJID(t, user.String()+"/y"), nil, func(roster.Answer) []roster.Item { return nil })
		}
		synctest.Wait()
		if n := w.backend.fetches(); n != 10 {
			t.Errorf("%d fetches, want 10", n)
		}
		close(w.backend.hold)
	})
}

func TestNothingIsKeptOfWhoHasNothingToDo(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("balcony", "romeo@example.org Romeo")
		if len(w.users) != 0 {
			t.Errorf("%d users", len(w.users))
		}
		w.backend.set("juliet")
		w.set(func() { w.silent = true })
		go w.refreshJuliet()
		w.took()
		if len(w.users) != 1 {
			t.Error("a user was forgotten whose push is not settled")
		}
	})
}

func TestCloseAnswersWhoWaits(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.hold = make(chan struct{})
		w.ask("balcony")
		done := make(chan error)
		go func() { done <- w.refreshJuliet() }()
		synctest.Wait()
		w.Close()
		w.expect("error balcony " + roster.ErrStopping.Error())
		if err := <-done; err != roster.ErrStopping {
			t.Errorf("refresh: %v", err)
		}
		if err := w.ask("balcony"); err != roster.ErrStopping {
			t.Errorf("Get after Close: %v", err)
		}
		if err := w.refreshJuliet(); err != roster.ErrStopping {
			t.Errorf("Refresh after Close: %v", err)
		}
	})
}

func TestRefreshEndsWithItsContext(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.sessions.Connected(mustJID(t, "juliet@example.org/balcony"))
		w.backend.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := w.Refresh(ctx, []jid.JID{mustJID(t, "juliet@example.org")})
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != context.Canceled {
			t.Error(err)
		}
	})
}

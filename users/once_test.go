package users

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// slowly is a Source whose fetches take as long as the test says, end with their
// context or after it, and fail now and then.
type slowly struct {
	backend *backend
	mu      sync.Mutex
	rand    *rand.Rand
	at      map[jid.JID]bool
	twice   bool
}

func (s *slowly) Fetch(ctx context.Context, r roster.Request) (roster.Fetched, error) {
	s.mu.Lock()
	s.twice = s.twice || s.at[r.User]
	s.at[r.User] = true
	takes, fails, deaf := time.Duration(1+s.rand.IntN(40))*time.Second, s.rand.IntN(4) == 0, s.rand.IntN(2) == 0
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.at[r.User] = false; s.mu.Unlock() }()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		if deaf {
			time.Sleep(time.Second)
		}
		return roster.Fetched{}, ctx.Err()
	}
	if fails {
		return roster.Fetched{}, errors.New("down")
	}
	return s.backend.Fetch(ctx, r)
}

// Whatever takes its time, each query is answered once, and in time, and nothing
// holds up who asks.
func TestEveryQueryIsAnsweredOnce(t *testing.T) {
	for seed := range uint64(60) {
		inWorld(t, Limits{Cache: int(seed%2) << 20, Background: 2, PerUser: 8}, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 1))
			source := &slowly{backend: w.backend, rand: rand.New(rand.NewPCG(seed, 2)), at: make(map[jid.JID]bool)}
			w.Manager.Source = source
			w.Rules.MaxAge = time.Duration(seed%3) * 20 * time.Second
			answered := make(map[string]int)
			asked := 0
			for i := range 100 {
				time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
				user := []string{"juliet", "romeo", "nurse"}[random.IntN(3)]
				switch random.IntN(8) {
				case 0:
					w.backend.set(user, fmt.Sprintf("c%d@example.org", i))
				case 1:
					go w.Refresh(t.Context(), []jid.JID{mustJID(t, user+"@example.org")})
				case 2:
					full := mustJID(t, user+"@example.org/0")
					w.sessions.Gone(full)
					w.Gone(full)
				case 3:
					w.Undelivered(mustJID(t, user+"@example.org/1"))
				default:
					query, began := fmt.Sprint(i, " of ", user), time.Now()
					var version *string
					if v := ""; random.IntN(2) == 0 {
						if known, is := w.Known(mustJID(t, user+"@example.org")); is && random.IntN(2) == 0 {
							v = known.Version()
						}
						version = &v
					}
					err := w.Get(mustJID(t, fmt.Sprintf("%s@example.org/%d", user, random.IntN(3))), version, func(roster.Answer) []roster.Item {
						w.set(func() { answered[query]++ })
						if took := time.Since(began); took > w.Limits.Answer {
							t.Errorf("seed %d: %s answered after %v", seed, query, took)
						}
						return nil
					})
					if time.Since(began) != 0 {
						t.Errorf("seed %d: who asked waited for %v", seed, time.Since(began))
					}
					if err == nil {
						asked++
					}
				}
			}
			if seed%5 != 0 {
				time.Sleep(time.Hour)
				synctest.Wait()
				w.set(func() {
					if len(answered) != asked {
						t.Errorf("seed %d: %d of %d answered", seed, len(answered), asked)
					}
				})
			}
			w.Close()
			if len(answered) != asked {
				t.Errorf("seed %d: %d of %d answered", seed, len(answered), asked)
			}
			for query, n := range answered {
				if n != 1 {
					t.Errorf("seed %d: %s answered %d times", seed, query, n)
				}
			}
			if source.twice {
				t.Errorf("seed %d: two fetches for one user", seed)
			}
			if w.waiting.Load() != 0 || w.active.Load() != 0 || slices.ContainsFunc(slices.Collect(maps.Values(w.users)), func(u *user) bool { return len(u.queries) > 0 }) {
				t.Errorf("seed %d: %d wait", seed, w.waiting.Load())
			}
			time.Sleep(time.Hour) // no timer has anything to do
			synctest.Wait()
		})
	}
}

// A reply that blocks, as the server takes nothing, holds up its user alone.
func TestReplyThatBlocks(t *testing.T) {
	w := newWorld(t, Limits{Answer: 10 * time.Millisecond})
	w.backend.hold = make(chan struct{})
	entered, leave, answers := make(chan struct{}), make(chan struct{}), make(chan string, 10)
	get := func(full string, reply func()) {
		if err := w.Get(mustJID(t, full), nil, func(roster.Answer) []roster.Item { reply(); answers <- full; return nil }); err != nil {
			t.Error(err)
		}
	}
	next := func(want string) {
		t.Helper()
		select {
		case got := <-answers:
			if got != want {
				t.Errorf("%s was answered", got)
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody was answered")
		}
	}
	get("juliet@example.org/a", func() { close(entered); <-leave })
	<-entered // it is overdue, and the fetch goes on
	get("juliet@example.org/b", func() {})
	w.Undelivered(mustJID(t, "juliet@example.org/c"))
	w.Gone(mustJID(t, "juliet@example.org/c"))
	w.Want(mustJID(t, "juliet@example.org"))
	w.Known(mustJID(t, "juliet@example.org"))
	w.backend.hold <- struct{}{} // the fetch ends, too
	w.backend.release()
	get("romeo@example.org/x", func() {})
	next("romeo@example.org/x")
	if len(answers) != 0 {
		t.Errorf("%s was answered", <-answers)
	}
	close(leave)
	next("juliet@example.org/a")
	next("juliet@example.org/b")
}

func (s *slowly) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	each(ctx, s, rs, done)
}

func (*slowly) BatchSize(string) int { return 1 }

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"rosterd/e2e/harness"
)

// reports are what the backend tells rosterd: whose contacts have changed. Some
// are lost on the way, some arrive twice. One that was not answered is made
// again, as every backend must: rosterd cannot know what nobody told it. One
// that was answered, whatever the answer was, is not: from then on rosterd has
// to see to it (a failed user is marked, a missing connection is remembered).
type reports struct {
	current  func() *harness.Rosterd
	journal  *journal
	figures  *Figures
	happened func(occasion)
	known    func(user string) // whose report was answered

	mu      sync.Mutex
	rng     *rand.Rand           // guarded by mu, as all below
	due     map[string]time.Time // users to be reported, and when
	calls   int                  // under way
	hurried bool                 // nothing is lost any more, and nobody waits
}

func newReports(current func() *harness.Rosterd, j *journal, f *Figures, rng *rand.Rand) *reports {
	return &reports{current: current, journal: j, figures: f, rng: rng, due: map[string]time.Time{}}
}

// changed has a user reported soon.
func (r *reports) changed(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delay := time.Duration(r.rng.Int64N(int64(50 * time.Millisecond)))
	if r.rng.IntN(5) == 0 && !r.hurried {
		delay = 300*time.Millisecond + time.Duration(r.rng.Int64N(int64(time.Second)))
		r.figures.count(&r.figures.Lost)
		r.journal.note("backend: the report of %s is lost", user)
	}
	r.due[user] = time.Now().Add(delay)
}

// hurry makes all reports now that are left, and loses none any more.
func (r *reports) hurry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hurried = true
	for user := range r.due {
		r.due[user] = time.Time{}
	}
}

// left is how many users have not been reported with success.
func (r *reports) left() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.due) + r.calls
}

// run makes the reports until ctx ends.
func (r *reports) run(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			users, times := r.take(now)
			for range times {
				calls.Go(func() { r.call(ctx, users) })
			}
		}
	}
}

// take takes the users that are due, and says how often they are reported.
func (r *reports) take(now time.Time) (users []string, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for user, at := range r.due {
		if !at.After(now) {
			users = append(users, user)
		}
	}
	if len(users) == 0 || r.calls >= 8 {
		return nil, 0
	}
	slices.Sort(users)
	for _, user := range users {
		delete(r.due, user)
	}
	times = 1
	if r.rng.IntN(8) == 0 {
		times = 2
		r.figures.count(&r.figures.Doubled)
	}
	r.calls += times
	return users, times
}

// call reports users once.
func (r *reports) call(ctx context.Context, users []string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	quoted := make([]string, len(users))
	for i, user := range users {
		quoted[i] = fmt.Sprintf("%q", user)
	}
	what := strings.Join(users, ",")
	err := fmt.Errorf("rosterd does not run")
	var answer harness.RefreshAnswer
	if rosterd := r.current(); rosterd != nil {
		r.journal.note("backend: reports %s", what)
		r.happened(reportMade)
		answer, err = rosterd.PostRefresh(ctx, "["+strings.Join(quoted, ",")+"]")
	}
	if err == nil && answer.Code == 503 && strings.Contains(answer.Message, "try again") {
		err = errors.New(answer.Message) // nothing was done, and nothing is remembered
	}
	answered := err == nil && (answer.Code == 200 || answer.Code == 500 || answer.Code == 503)
	if err == nil && !answered {
		r.journal.violation("the report of %s is answered %+v", what, answer)
	}
	if answered {
		r.journal.note("backend: the report of %s is answered %d, updated %d, failed %v", what, answer.Code, answer.Updated, answer.Failed)
		r.figures.count(&r.figures.Refreshes)
		r.happened(reportAnswered)
	} else if ctx.Err() == nil {
		r.journal.note("backend: the report of %s fails: %.100v", what, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls--
	if answered {
		for _, user := range users {
			r.known(user)
		}
		return
	}
	for _, user := range users {
		if _, again := r.due[user]; !again {
			r.due[user] = time.Now().Add(50*time.Millisecond + time.Duration(r.rng.Int64N(int64(200*time.Millisecond))))
		}
	}
}

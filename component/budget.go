package component

import (
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxUsers and maxStrangers are how many senders have a budget of their own. When
	// there are more, the others share one, which is worth sharedBy.
	maxUsers     = 1 << 16
	maxStrangers = 1 << 12
	sharedBy     = 1024
	maxBare      = 1023 + 1 + 1023 // bytes of a bare JID (RFC 7622, section 3.1)
)

// budgets are what each sender of roster queries may still ask for: a token bucket
// each, by bare JID. The goroutine that reads owns them.
type budgets struct {
	burst  int
	refill rate.Limit
	full   time.Duration // after which an unused budget is full again, and as good as none
	max    int           // senders with a budget of their own

	own    map[string]*rate.Limiter // used since a time
	before map[string]*rate.Limiter // used before, but not longer ago than full
	since  time.Time
	shared *rate.Limiter
}

func newBudgets(burst int, perSecond float64, max int) *budgets {
	refill := rate.Limit(perSecond)
	return &budgets{burst: burst, refill: refill, full: time.Duration(min(float64(burst)/perSecond, 1e6) * float64(time.Second)), max: max,
		shared: rate.NewLimiter(refill*sharedBy, burst*sharedBy)}
}

// take takes a query out of a sender's budget, and reports whether one was left.
func (b *budgets) take(sender string, now time.Time) bool {
	if now.Sub(b.since) > b.full {
		b.before, b.own, b.since = b.own, make(map[string]*rate.Limiter), now
	}
	budget := b.own[sender]
	if budget == nil {
		if budget = b.before[sender]; budget != nil {
			delete(b.before, sender)
		} else if len(b.own)+len(b.before) >= b.max {
			return b.shared.AllowN(now, 1)
		} else {
			budget = rate.NewLimiter(b.refill, b.burst)
		}
		b.own[strings.Clone(sender)] = budget
	}
	return budget.AllowN(now, 1)
}

// withinBudget takes a query out of the budget of who sent it, and reports whether one
// was left. Users have one budget, however their address is spelled. Strangers have a
// table of their own: who runs a server has as many addresses as they like.
func (c *Component) withinBudget(from string, u sender) bool {
	if c.userBudgets == nil {
		return true
	}
	bare, all := bareOf(from), c.strangerBudgets
	if !u.full.IsZero() {
		all = c.userBudgets
		if u.bare != "" {
			bare = u.full.Bare().String()
		}
	}
	if len(bare) <= maxBare && all.take(bare, time.Now()) {
		return true
	}
	c.warn(c.unanswered, "budget of queries", "roster queries refused, their sender has used up what limits.queries_burst and limits.queries_per_second leave him", "from", short(bare))
	return false
}

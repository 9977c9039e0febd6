package component

import (
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxUsers and maxStrangers are how many senders have a budget of their own at a
	// time: those who have sent something of late. When there are more, the others
	// share one.
	maxUsers     = 1 << 16
	maxStrangers = 1 << 12
	// sharedBy is how many budgets the shared one is worth.
	sharedBy = 1024
	// maxBare is how long a bare JID can be (RFC 7622, section 3.1).
	maxBare = 1023 + 1 + 1023
)

// budgets are what each sender of roster queries may still ask for: a token bucket
// each, by bare JID. They are bounded. The goroutine that reads owns them.
type budgets struct {
	burst  int
	refill rate.Limit
	max    int // senders with a budget of their own

	own    map[string]*budget
	order  []*budget // all of own, those that were looked at longest ago first
	shared *rate.Limiter
}

type budget struct {
	sender string
	*rate.Limiter
}

func newBudgets(burst int, perSecond float64, max int) *budgets {
	refill := rate.Limit(perSecond)
	return &budgets{burst: burst, refill: refill, max: max, own: make(map[string]*budget),
		shared: rate.NewLimiter(refill*sharedBy, burst*sharedBy)}
}

// take takes a query out of a sender's budget, and reports whether one was left.
func (b *budgets) take(sender string, now time.Time) bool {
	own := b.own[sender]
	if own == nil {
		// Two are looked at for each that is made, so that those of senders who have
		// gone do not stay.
		b.evict(now)
		b.evict(now)
		if len(b.own) >= b.max {
			return b.shared.AllowN(now, 1)
		}
		own = &budget{strings.Clone(sender), rate.NewLimiter(b.refill, b.burst)}
		b.own[own.sender] = own
		b.order = append(b.order, own)
	}
	return own.AllowN(now, 1)
}

// evict looks at the budget that was looked at longest ago. If it is full again, it is
// as good as none, and is forgotten.
func (b *budgets) evict(now time.Time) {
	if len(b.order) == 0 {
		return
	}
	first := b.order[0]
	b.order[0] = nil
	b.order = b.order[1:]
	if first.TokensAt(now) >= float64(b.burst) {
		delete(b.own, first.sender)
		return
	}
	b.order = append(b.order, first)
}

// withinBudget reports whether a query is within the budget of who sent it, a JID as
// the server stamped it, and takes it out of that. Users have one budget, however
// their address is spelled. Strangers have a table of their own: somebody who runs a
// server has as many addresses as they like, and must not take the users' place.
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
	if notLogged, now := c.unanswered.allow("budget of queries"); now {
		c.opts.Logger.Warn("roster queries refused, their sender has used up what limits.queries_burst and limits.queries_per_second leave him",
			"from", short(bare), "not_logged_before", notLogged)
	}
	return false
}

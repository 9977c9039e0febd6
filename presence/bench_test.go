package presence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// crowd is 100,000 users with 200 contacts each who list each other, 10,000 of
// them online, hence 20 contacts of each.
type crowd struct {
	hub     *Hub
	users   []jid.JID // the first online of them are
	full    []jid.JID
	rosters []*roster.Roster
	index   map[jid.JID]int
	online  int
	batch   []Stanza
	sent    int
	bytes   uint64 // of the hub, without the rosters
}

const (
	crowdUsers    = 100_000
	crowdOnline   = 10_000
	crowdContacts = 200
)

var payload = []byte("<show>away</show><priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://example.org' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>")

func newCrowd(b *testing.B) *crowd {
	c := &crowd{online: crowdOnline, index: make(map[jid.JID]int)}
	for i := range crowdUsers {
		user, err := jid.New(fmt.Sprintf("user%d", i), "a.example", "")
		if err != nil {
			b.Fatal(err)
		}
		full, err := jid.New(user.Local(), user.Domain(), "phone")
		if err != nil {
			b.Fatal(err)
		}
		c.users, c.full = append(c.users, user), append(c.full, full)
		c.index[user] = i
	}
	c.rosters = make([]*roster.Roster, crowdOnline)
	for i, others := range c.friends() {
		var items []roster.Item
		for _, o := range others {
			items = append(items, roster.Item{JID: c.users[o], Subscription: roster.SubscriptionBoth})
		}
		c.rosters[i] = roster.New(items)
	}
	before := inUse()
	// Nobody comes too often, and who left is forgotten at once.
	c.hub = New([]string{"a.example"}, c, Limits{Burst: 1 << 30, Linger: 1})
	c.hub.settled = true
	for i := range c.online {
		c.hub.Available(c.full[i], payload)
		c.run()
	}
	c.bytes = inUse() - before
	c.sent = 0
	return c
}

// friends are the contacts of those online: 20 of 200 are online, too, and list
// them.
func (c *crowd) friends() [][]int {
	r := rand.New(rand.NewPCG(1, 2))
	friends := make([][]int, crowdOnline)
	for i := range friends {
		for range crowdContacts / 20 { // and as many have i
			o := r.IntN(crowdOnline)
			friends[i], friends[o] = append(friends[i], o), append(friends[o], i)
		}
		for range crowdContacts - crowdContacts/10 {
			friends[i] = append(friends[i], crowdOnline+r.IntN(crowdUsers-crowdOnline))
		}
	}
	return friends
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (c *crowd) Known(user jid.JID) (*roster.Roster, bool)      { return c.rosters[c.index[user]], true }
func (c *crowd) Want(jid.JID)                                   {}
func (c *crowd) Blocked(_ jid.JID, reply func([]jid.JID, bool)) { reply(nil, true) }
func (c *crowd) Passed(reply func())                            { reply() }
func (c *crowd) Relay(Stanza) error                             { c.sent++; return nil }

// run does what the loop does until there is nothing to do.
func (c *crowd) run() {
	for wait := time.Duration(0); wait <= 0; {
		if c.batch, wait = c.hub.step(c, c.batch[:0]); len(c.batch) > 0 {
			wait = 0
		}
		for _, s := range c.batch {
			c.Relay(s)
		}
		clear(c.batch)
	}
}

func (c *crowd) report(b *testing.B) {
	b.ReportMetric(float64(c.sent)/float64(b.N), "stanzas/op")
	b.ReportMetric(float64(c.bytes)/crowdOnline, "hub-B/user")
}

func BenchmarkLogin(b *testing.B) {
	c := newCrowd(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		n := i % crowdOnline
		if n%100 == 0 { // the next 100 leave
			b.StopTimer()
			sent := c.sent
			for _, full := range c.full[n : n+100] {
				c.hub.Unavailable(full, nil)
			}
			for range 5 { // until they are forgotten
				c.run()
				time.Sleep(time.Microsecond)
			}
			c.sent = sent
			b.StartTimer()
		}
		c.hub.Available(c.full[n], payload)
		c.run()
	}
	c.report(b)
}

func BenchmarkUpdate(b *testing.B) {
	c := newCrowd(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		c.hub.Available(c.full[i%crowdOnline], payload)
		c.run()
	}
	c.report(b)
}

func BenchmarkUnavailable(b *testing.B) {
	c := newCrowd(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		n := i % crowdOnline
		c.hub.Unavailable(c.full[n], nil)
		c.run()
		if n%100 == 99 || i == b.N-1 { // the last 100 come back
			b.StopTimer()
			sent := c.sent
			for _, full := range c.full[n-n%100 : n+1] {
				c.hub.Available(full, payload)
				c.run()
			}
			c.sent = sent
			b.StartTimer()
		}
	}
	c.report(b)
}

// BenchmarkTold is one contact that is online removed, or added again.
func BenchmarkTold(b *testing.B) {
	c := newCrowd(b)
	less := make([]*roster.Roster, crowdOnline)
	for i, r := range c.rosters {
		items := append([]roster.Item(nil), r.Items()...)
		for j := range items {
			if c.index[items[j].JID] < crowdOnline && items[j].JID != c.users[i] {
				items[j].Subscription = roster.SubscriptionTo
				break
			}
		}
		less[i] = roster.New(items)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		n := i % crowdOnline
		now := less[n]
		if i/crowdOnline%2 == 1 {
			now = c.rosters[n]
		}
		c.hub.Told(c.users[n], now)
		c.run()
	}
	c.report(b)
}

// BenchmarkUpdateContactsOffline shows that contacts who are not online cost
// nothing.
func BenchmarkUpdateContactsOffline(b *testing.B) {
	c := newCrowd(b)
	var items []roster.Item
	for _, user := range c.users[crowdOnline:] {
		items = append(items, roster.Item{JID: user, Subscription: roster.SubscriptionBoth})
	}
	c.hub.Told(c.users[0], roster.New(items))
	c.run()
	c.sent = 0
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c.hub.Available(c.full[0], payload)
		c.run()
	}
	c.report(b)
}

// BenchmarkReaderWaits is how long the goroutine that reads the stream waits in the hub
// at most, while a roster of 10,000 contacts changes as a whole, or its user comes and
// goes: it hands over presences of 1,000 of them, who are available.
func BenchmarkReaderWaits(b *testing.B) {
	const contacts, available = 10_000, 1_000
	tests := []struct {
		name  string
		other roster.Item
		leave bool
	}{
		{"renamed", roster.Item{Subscription: roster.SubscriptionBoth, Name: "another name"}, false},
		{"resubscribed", roster.Item{Subscription: roster.SubscriptionTo}, false},
		{"comes and goes", roster.Item{Subscription: roster.SubscriptionBoth}, true},
	}
	for _, test := range tests {
		b.Run(test.name, func(b *testing.B) {
			full := make([]jid.JID, contacts)
			items := [2][]roster.Item{}
			for i := range full {
				full[i] = address(fmt.Sprintf("u%d/1", i))
				is, other := roster.Item{Subscription: roster.SubscriptionBoth}, test.other
				is.JID, other.JID = full[i].Bare(), full[i].Bare()
				items[0], items[1] = append(items[0], is), append(items[1], other)
			}
			rosters := [2]*roster.Roster{roster.New(items[0]), roster.New(items[1])}
			boss := address("boss/1")
			hub := New([]string{"a.example"}, unknown{}, Limits{Settle: time.Nanosecond})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				run(ctx, hub, unknown{})
			}()
			hub.Available(boss, payload)
			hub.Told(boss.Bare(), rosters[0])
			for _, full := range full[:available] {
				hub.Available(full, payload)
			}
			time.Sleep(100 * time.Millisecond)
			var longest time.Duration
			b.ResetTimer()
			for i := range b.N {
				told := make(chan struct{})
				go func() {
					defer close(told)
					if test.leave {
						hub.Unavailable(boss, nil)
						hub.Available(boss, payload)
					}
					hub.Told(boss.Bare(), rosters[(i+1)%2])
				}()
				begin := time.Now()
				for n := 0; time.Since(begin) < 100*time.Millisecond || !isClosed(told); n++ {
					called := time.Now()
					hub.Available(full[n%available], payload)
					longest = max(longest, time.Since(called))
					time.Sleep(50 * time.Microsecond)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
			cancel()
			<-done
		})
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unknown is a server and a backend of which nothing comes.
type unknown struct{}

func (unknown) Known(jid.JID) (*roster.Roster, bool)           { return nil, false }
func (unknown) Want(jid.JID)                                   {}
func (unknown) Passed(func())                                  {}
func (unknown) Relay(Stanza) error                             { return nil }
func (unknown) Blocked(_ jid.JID, reply func([]jid.JID, bool)) { reply(nil, false) }

package presence

import (
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
func (c *crowd) Relay(Stanza) error                             { c.sent++; return nil }

// run does what Hub.Run does until there is nothing to do.
func (c *crowd) run() {
	for wait := time.Duration(0); wait <= 0; {
		c.hub.askRosters()
		if c.batch, wait = c.hub.decide(c.batch[:0]); len(c.batch) > 0 {
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

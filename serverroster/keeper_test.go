package serverroster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// The roster is in step when the query is answered, and costs nothing from then on.
func TestKept(t *testing.T) {
	onDisk(t, func(w *world) {
		w.server.each = time.Millisecond
		w.server.put(juliet, contacts("romeo@example.org none Other", "paris@example.org"))
		want := contacts("romeo@example.org both Romeo Friends,Work", "nurse@example.org to")
		if took := w.query(juliet, want); took > time.Second {
			t.Errorf("the query waited for %v", took)
		}
		w.equal(juliet, want)
		if w.watcher.told(juliet) == 0 || w.watcher.direct {
			t.Errorf("the watcher was told %d times, of an exchange: %v", w.watcher.told(juliet), w.watcher.direct)
		}
		w.settle()
		gets := w.server.asked()
		w.quiet(func() {
			if took := w.ask(juliet); took > 0 {
				t.Errorf("a query waited for %v though nothing differs", took)
			}
			w.keeper.Keep(juliet, nil)
		})
		if w.server.asked() != gets {
			t.Error("the server was asked though nothing changed")
		}
		// A change is written without asking.
		want = contacts("romeo@example.org both Romeo Friends,Work")
		w.query(juliet, want)
		w.equal(juliet, want)
		if w.server.asked() != gets || w.server.removals != 2 || w.server.sets != 2 {
			t.Errorf("%d gets, %d removals, %d sets", w.server.asked()-gets, w.server.removals, w.server.sets)
		}
		if s := w.status(); s.Written != 2 || s.Removed != 2 || s.Waiting != 0 || s.Error != "" || s.Residue != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What a server has of ask and approved does not count.
func TestOnlyWhatCounts(t *testing.T) {
	test(t, func(w *world) {
		r := roster.New([]roster.Item{{JID: romeo, Subscription: "to", Ask: true, Approved: true}})
		w.query(juliet, r)
		w.equal(juliet, contacts("romeo@example.org to"))
		w.quiet(func() { w.again() })
	})
}

// A query does not wait for many items. They are written in portions, with pauses, and take
// a fifth of the server's time.
func TestPaced(t *testing.T) {
	for _, each := range []time.Duration{100 * time.Microsecond, 600 * time.Microsecond, 13 * time.Millisecond, 50 * time.Millisecond} {
		t.Run(each.String(), func(t *testing.T) {
			test(t, func(w *world) {
				w.server.each = each
				w.settle()
				began := time.Now()
				if took := w.query(juliet, many(300)); took > 0 {
					t.Errorf("the query waited for %v", took)
				}
				w.settle()
				w.equal(juliet, many(300))
				elapsed, spent := time.Since(began), time.Duration(0)
				for n, p := range w.server.portions {
					spent += p.took
					if p.items > maxPortion || p.items > 1 && p.took > portionTakes {
						t.Errorf("a portion of %d items took %v", p.items, p.took)
					}
					if n > 0 {
						last := w.server.portions[n-1]
						if pause := p.at.Sub(last.at.Add(last.took)); pause < 4*last.took {
							t.Fatalf("a pause of %v after %v", pause, last.took)
						}
					}
				}
				if each == 600*time.Microsecond && len(w.server.portions) > 70 {
					t.Errorf("%d portions", len(w.server.portions))
				}
				if took := w.query(juliet, many(330)); took > 0 { // though it is known what the server has
					t.Errorf("the second query waited for %v", took)
				}
				if share := float64(spent) / float64(elapsed); share > 0.21 {
					t.Errorf("%.2f of the server's time", share)
				}
			})
		})
	}
}

// On a server that saves a whole roster for each item, a portion is short from the first one
// on, and as large as it may be again where rosters are small.
func TestGrowing(t *testing.T) {
	test(t, func(w *world) {
		w.server.each, w.server.grows = 200*time.Microsecond, 13*time.Microsecond
		w.server.put(romeo, many(1000))
		w.query(juliet, many(200))
		w.settle()
		w.query(romeo, many(1010))
		w.settle()
		w.query(nurse, many(20))
		w.settle()
		small := 0
		for _, p := range w.server.portions {
			if p.items > 1 && p.took > portionTakes*8/5 { // the roster grows meanwhile
				t.Errorf("a portion of %d items for %s took %v", p.items, p.user, p.took)
			}
			if p.user == nurse {
				small = max(small, p.items)
			}
		}
		if small < 5 {
			t.Errorf("in a small roster, %d items were written together at most", small)
		}
	})
}

// A thousand users log in for the first time, 50 at a time. Nobody waits for long: when too
// much was taken of the server's time for those who wait, the others do not. It is a fifth
// in the end.
func TestHerd(t *testing.T) {
	test(t, func(w *world) {
		const users = 1000
		w.query(juliet, many(1)) // the way is proven
		w.settle()
		w.server.each = 500 * time.Microsecond
		var mu sync.Mutex
		var longest time.Duration
		inStep, next := 0, 0
		began := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for {
					mu.Lock()
					n := next
					next++
					mu.Unlock()
					if n >= users {
						return
					}
					user := mustJID(fmt.Sprintf("user%d@example.org", n))
					w.know(user, many(20))
					time.Sleep(70 * time.Millisecond) // what a login takes besides
					asked, ready := time.Now(), make(chan bool, 1)
					w.keeper.Keep(user, func(inStep bool) { ready <- inStep })
					is := <-ready
					mu.Lock()
					longest = max(longest, time.Since(asked))
					if is {
						inStep++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		herd := time.Since(began)
		if longest > 800*time.Millisecond || herd > 4*time.Second {
			t.Errorf("a query waited for %v, and all took %v", longest, herd)
		}
		if inStep < 50 {
			t.Errorf("%d users were in step when they were answered", inStep)
		}
		w.settle()
		for n := range users {
			w.equal(mustJID(fmt.Sprintf("user%d@example.org", n)), many(20))
		}
		spent := time.Duration(users) * 21 * w.server.each
		if share := float64(spent) / float64(time.Since(began)); share > 0.21 {
			t.Errorf("%.2f of the server's time", share)
		}
	})
}

// A query does not wait for the rest that the server is owed for what is written behind.
func TestNoPause(t *testing.T) {
	test(t, func(w *world) {
		w.query(juliet, many(1))
		w.settle()
		w.server.each = 100 * time.Millisecond // then a rest of 400 ms
		w.keep(romeo, many(1000))
		for n := range 20 {
			w.sleep(time.Duration(9900+37*n) * time.Millisecond)
			if took := w.query(juliet, many(2+n)); took > 300*time.Millisecond {
				t.Errorf("the query waited for %v", took)
			}
			w.equal(juliet, many(2+n))
		}
	})
}

// Hosts of one server share what may be taken of its time.
func TestHostsShare(t *testing.T) {
	test(t, func(w *world) {
		hosts := []string{"example.org", "example.net", "example.com"}
		w.server.each = 5 * time.Millisecond
		for _, host := range hosts {
			w.keeper.Resume(host)
			w.keep(mustJID("juliet@"+host), many(1000))
		}
		w.sleep(time.Second)
		w.server.do(func() { w.server.portions = nil })
		w.sleep(30 * time.Second)
		var spent time.Duration
		users := make(map[jid.JID]bool)
		w.server.do(func() {
			for _, p := range w.server.portions {
				spent += p.took
				users[p.user] = true
			}
		})
		if len(users) != len(hosts) || spent > 6500*time.Millisecond || spent < 4*time.Second {
			t.Errorf("%v of 30 s for %d hosts", spent, len(users))
		}
	})
}

// Who has many contacts does not hold up others, and queries go first.
func TestTurns(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = 20 * time.Millisecond // 5,000 items take 500 s
		w.keep(juliet, many(5000))
		w.sleep(10 * time.Second)
		var others []jid.JID
		for n := range 20 {
			others = append(others, mustJID(fmt.Sprintf("user%d@example.org", n)))
			w.query(others[n], many(30))
		}
		w.sleep(2 * time.Minute)
		for _, other := range others {
			w.equal(other, many(30))
		}
		if took := w.query(romeo, many(5)); took > 2*time.Second {
			t.Errorf("a query waited for %v", took)
		}
		w.equal(romeo, many(5))
		if has := w.server.has(juliet).Len(); has < 100 || has == 5000 {
			t.Errorf("%d items of the large roster were written meanwhile", has)
		}
		gets := w.server.asked()
		w.settle()
		w.equal(juliet, many(5000))
		if w.server.asked() != gets || w.server.sets != 5000+5+20*30 {
			t.Errorf("%d gets and %d sets", w.server.asked()-gets, w.server.sets)
		}
	})
}

// Users are brought in step one after the other, and neither a change nor who logs in waits
// for all of them.
func TestImport(t *testing.T) {
	test(t, func(w *world) {
		const users = 300
		w.query(juliet, many(3))
		w.settle()
		w.server.each = 10 * time.Millisecond // a user takes 10 s
		for n := range users {
			w.keep(mustJID(fmt.Sprintf("user%d@example.org", n)), many(200))
		}
		w.sleep(10 * time.Minute)
		if s := w.status(); s.InStep < 50 || s.Waiting > users-50 {
			t.Errorf("%d users are in step after 10 minutes, want about 60: %d wait", s.InStep, s.Waiting)
		}
		w.keep(juliet, many(4))
		w.sleep(6 * time.Second)
		w.equal(juliet, many(4))
		if took := w.query(mustJID("user299@example.org"), many(200)); took > 0 {
			t.Errorf("a query waited for %v", took)
		}
		w.sleep(15 * time.Second)
		w.equal(mustJID("user299@example.org"), many(200))
		if took := w.query(romeo, many(600)); took > 0 { // has more than one turn
			t.Errorf("a query waited for %v", took)
		}
		w.sleep(40 * time.Second)
		w.equal(romeo, many(600))
		w.settle()
		for n := range users {
			w.equal(mustJID(fmt.Sprintf("user%d@example.org", n)), many(200))
		}
	})
}

// What is not known is not written: a failure never empties a roster.
func TestUnknown(t *testing.T) {
	test(t, func(w *world) {
		w.server.put(juliet, many(30))
		if took := w.ask(juliet); took > 0 {
			t.Errorf("the query waited for %v", took)
		}
		w.again()
		w.settle()
		w.equal(juliet, many(30))
		// Though it was known once.
		w.query(juliet, many(3))
		w.settle()
		w.rosters.known = nil
		w.server.put(juliet, many(30))
		w.again()
		w.settle()
		w.equal(juliet, many(30))
	})
}

// What the server has is not replaced at the first look, if the removal guard says so.
func TestDoubt(t *testing.T) {
	onDisk(t, func(w *world) {
		doubt := func(is bool) {
			w.rosters.mu.Lock()
			defer w.rosters.mu.Unlock()
			w.rosters.doubt = map[jid.JID]bool{juliet: is}
		}
		doubt(true)
		w.server.put(juliet, many(30))
		w.quiet(func() {
			if took := w.query(juliet, many(0)); took > time.Second {
				t.Errorf("the query waited for %v", took)
			}
			w.keeper.Keep(juliet, nil)
			w.sleep(3 * time.Hour)
			w.again()
			w.settle()
		})
		w.equal(juliet, many(30))
		if w.watcher.told(juliet) > 0 {
			t.Error("the watcher was told that they are in step")
		}
		doubt(false)
		w.keeper.Keep(juliet, nil)
		w.settle()
		w.equal(juliet, many(0))
		// From now on it is known what was written.
		w.query(juliet, many(3))
		w.sleep(time.Second)
		asked := w.rosters.asked
		doubt(true)
		w.server.put(juliet, many(30))
		w.sleep(time.Second)
		w.again()
		w.settle()
		w.equal(juliet, many(3))
		if w.rosters.asked != asked {
			t.Error("what is known was doubted")
		}
	})
}

// A server that cannot read what it has says at the first look that it has nothing. What is
// there once it can is doubted as at a first look.
func TestNothingAtFirst(t *testing.T) {
	for _, want := range []*roster.Roster{many(0), many(1)} {
		onDisk(t, func(w *world) {
			down := true
			w.server.fails = func(_ jid.JID, item string) error {
				if item != "" && down {
					return errors.New("the storage fails")
				}
				return nil
			}
			w.keep(juliet, want)
			w.sleep(time.Minute)
			w.rosters.mu.Lock()
			w.rosters.doubt = map[jid.JID]bool{juliet: true}
			w.rosters.mu.Unlock()
			w.server.put(juliet, many(30))
			w.server.do(func() { down = false })
			w.sleep(25 * time.Hour)
			w.again()
			w.settle()
			w.equal(juliet, many(30))
		})
	}
}

// After a restart of the server all are looked at again, those who differ first; after one
// of rosterd, too.
func TestResume(t *testing.T) {
	onDisk(t, func(w *world) {
		const users = 1200 // more than are read from the store at a time
		user := func(n int) jid.JID { return mustJID(fmt.Sprintf("user%d@example.org", n)) }
		for n := range users {
			w.put(user(n), many(n%4), nil)
		}
		w.put(mustJID("juliet@example.net"), many(3), nil) // of another host
		w.keeper.Resume("example.org")                     // at once: nothing of it is on the disk
		w.settle()
		for n := range users {
			w.equal(user(n), many(n%4))
		}
		if s := w.status(); s.Checked != users+1 && s.Checked != users+2 { // the way is proven, and this Resume is the second one
			t.Errorf("the server was asked %d times", s.Checked)
		}
		w.quiet(func() { w.again() })
		for n := range 50 {
			w.server.put(user(n), many(7))
		}
		w.know(user(1111), many(9))
		w.quiet(func() { w.sleep(time.Minute) }) // nobody knows yet
		w.server.order = nil
		w.keeper.Resume("example.org")
		w.settle()
		for n := range 50 {
			w.equal(user(n), many(n%4))
		}
		w.equal(user(1111), many(9))
		if first := w.server.order[0]; first != "get user1111@example.org" {
			t.Errorf("first came %s", first)
		}
		if w.server.has(mustJID("juliet@example.net")).Len() > 0 {
			t.Error("a user of another host was written")
		}
		w.quiet(func() { w.again() })
	})
}

// Once a day the server is asked what it has, and so many a second at most.
func TestSweep(t *testing.T) {
	test(t, func(w *world) {
		const users = 300
		for n := range users {
			w.keep(mustJID(fmt.Sprintf("user%d@example.org", n)), many(1))
		}
		w.settle()
		w.keeper.Rate = 10
		before := w.server.asked()
		w.sleep(22 * time.Hour)
		w.settle()
		if w.server.asked() > before {
			t.Errorf("the server was asked %d times within a day", w.server.asked()-before)
		}
		w.server.put(mustJID("user7@example.org"), many(2))
		w.sleep(2 * time.Hour)
		for since := time.Now(); w.server.asked() == before; w.sleep(time.Second) {
			if time.Since(since) > sweepEvery {
				t.Fatal("the server was not asked after a day")
			}
		}
		w.sleep(10 * time.Second)
		if n := w.server.asked() - before; n < 50 || n > 120 {
			t.Errorf("the server was asked %d times within 10 s", w.server.asked()-before)
		}
		w.sleep(2 * time.Hour)
		w.settle()
		w.equal(mustJID("user7@example.org"), many(1))
		if w.server.asked()-before != users+1 { // what it has otherwise than it was left is seen after it was written
			t.Errorf("the server was asked %d times", w.server.asked()-before)
		}
	})
}

// Nothing is there, or comes when it should.
func TestNoWay(t *testing.T) {
	test(t, func(w *world) {
		w.settle()
		w.name = ""
		if took := w.query(juliet, many(3)); took > 0 {
			t.Errorf("the query waited for %v", took)
		}
		w.quiet(func() { w.sleep(time.Hour) })
		w.name = "api"
		w.keeper.Resume("example.org")
		w.settle()
		w.equal(juliet, many(3))
		if !w.watcher.direct {
			t.Error("the watcher was not told of the exchange")
		}
	})
}

// The stream is lost in the middle, and the server's memory with it.
func TestStreamLost(t *testing.T) {
	onDisk(t, func(w *world) {
		w.server.each = 10 * time.Millisecond
		w.keep(juliet, many(100))
		w.keep(romeo, many(10))
		w.sleep(2 * time.Second)
		w.server.do(func() { w.server.gone = true })
		if took := w.query(nurse, many(2)); took > 0 {
			t.Errorf("the query waited for %v", took)
		}
		w.sleep(time.Minute)
		w.server.do(func() { w.server.gone, w.server.rosters = false, make(map[jid.JID]map[jid.JID]roster.Item) })
		w.keeper.Resume("example.org")
		w.settle()
		w.equal(juliet, many(100))
		w.equal(romeo, many(10))
		w.equal(nurse, many(2))
		w.quiet(func() { w.again() })
	})
}

// What fails is tried again, more and more seldom, and no query waits for it.
func TestFailures(t *testing.T) {
	test(t, func(w *world) {
		fail := true
		w.server.fails = func(user jid.JID, item string) error {
			if fail && (item == "" || item == "contact1@example.net") {
				return errors.New("internal-server-error")
			}
			return nil
		}
		if took := w.query(juliet, many(3)); took > 0 {
			t.Errorf("the query waited for %v", took)
		}
		w.sleep(time.Hour)
		if n := w.server.asked(); n < 15 || n > 25 { // 1, 2, 4 … 300 s
			t.Errorf("tried %d times in an hour", n)
		}
		if s := w.status(); s.Error != "internal-server-error" || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
		// Many fail: the way does, and is left alone.
		for n := range 1000 {
			w.keep(mustJID(fmt.Sprintf("user%d@example.org", n)), many(2))
		}
		before := w.server.asked()
		w.sleep(time.Hour)
		if n := w.server.asked() - before; n > 40 {
			t.Errorf("tried %d times in an hour", n)
		}
		if took := w.query(nurse, many(1)); took > 0 {
			t.Errorf("a query waited for %v", took)
		}
		fail = false
		w.settle()
		w.equal(juliet, many(3))
		w.equal(nurse, many(1))
		for n := range 1000 {
			w.equal(mustJID(fmt.Sprintf("user%d@example.org", n)), many(2))
		}
		if s := w.status(); s.Error != "" {
			t.Errorf("%+v", s)
		}
		if text := w.log.String(); strings.Count(text, "cannot be read or written at present") != 1 || !strings.Contains(text, "can be read and written again") {
			t.Errorf("logged: %s", text)
		}
	})
}

// One user who fails is no reason to leave the others alone, and is tried at once on a new
// stream.
func TestOneFails(t *testing.T) {
	test(t, func(w *world) {
		fail := true
		w.server.fails = func(user jid.JID, _ string) error {
			if fail && user == juliet {
				return errors.New("internal-server-error")
			}
			return nil
		}
		w.keep(juliet, many(3))
		w.sleep(2 * time.Hour)
		w.query(romeo, many(3))
		w.equal(romeo, many(3))
		w.sleep(10 * time.Minute)
		tried := w.server.asked()
		for w.server.asked() == tried {
			w.sleep(time.Second)
		}
		w.server.do(func() { fail = false })
		w.keeper.Resume("example.org")
		w.sleep(time.Second)
		w.equal(juliet, many(3))
	})
}

// A few users who always fail hold up nobody else.
func TestSomeFail(t *testing.T) {
	test(t, func(w *world) {
		bad := make(map[jid.JID]bool)
		for n := range 5 {
			bad[mustJID(fmt.Sprintf("bad%d@example.org", n))] = true
		}
		w.server.fails = func(user jid.JID, _ string) error {
			if bad[user] {
				return errors.New("internal-server-error")
			}
			return nil
		}
		for user := range bad {
			w.keep(user, many(3))
		}
		w.sleep(10 * time.Minute) // nobody is known for whom it works
		w.keep(juliet, many(3))
		w.sleep(5 * time.Minute)
		w.equal(juliet, many(3))
		for n := range 200 {
			user := mustJID(fmt.Sprintf("good%d@example.org", n))
			if took := w.query(user, many(3)); took > time.Second {
				t.Fatalf("query %d waited for %v", n, took)
			}
			w.equal(user, many(3))
			w.sleep(time.Duration(17*n) * time.Second / 10)
		}
		before := w.server.asked()
		w.sleep(time.Hour)
		if n := w.server.asked() - before; n > 100 { // each of them is tried every five minutes
			t.Errorf("tried %d times in an hour", n)
		}
		if s := w.status(); s.Error == "" || s.Waiting != len(bad) {
			t.Errorf("%+v", s)
		}
		// The user who told whether it works for others may fail, too.
		w.server.do(func() { bad[mustJID("good199@example.org")] = true })
		w.sleep(time.Hour)
		w.keep(romeo, many(3))
		w.sleep(5 * time.Minute)
		w.equal(romeo, many(3))
	})
}

// Who was in step does not wait to be looked at, and of very many, not all wait.
func TestFewWait(t *testing.T) {
	test(t, func(w *world) {
		w.query(juliet, many(3))
		w.settle()
		w.server.silent = true
		w.sleep(time.Second)
		w.keeper.Resume("example.org")
		if took := w.ask(juliet); took > 0 {
			t.Errorf("the query waited for %v", took)
		}
		began, waited := time.Now(), 0
		var all sync.WaitGroup
		all.Add(1000)
		var mu sync.Mutex
		for n := range 1000 {
			user := mustJID(fmt.Sprintf("user%d@example.org", n))
			w.know(user, many(2))
			w.keeper.Keep(user, func(bool) {
				defer all.Done()
				mu.Lock()
				defer mu.Unlock()
				if time.Since(began) > 0 {
					waited++
				}
			})
		}
		all.Wait()
		if waited < maxWaiting || waited > maxWaiting+1 {
			t.Errorf("%d queries waited", waited)
		}
		w.server.silent = false
	})
}

// A server that does not answer keeps a query for 3 s.
func TestSilent(t *testing.T) {
	test(t, func(w *world) {
		w.server.silent = true
		if took := w.query(juliet, many(3)); took != queryWaits {
			t.Errorf("the query waited for %v", took)
		}
		w.sleep(time.Minute)
		w.server.silent = false
		w.settle()
		w.equal(juliet, many(3))
	})
}

// While a server does not answer, all queries together wait for 3 s, and later ones not at
// all, until it has answered again.
func TestSilentForMany(t *testing.T) {
	test(t, func(w *world) {
		w.query(juliet, many(1)) // the way is proven
		w.settle()
		w.server.do(func() { w.server.silent = true })
		began := time.Now()
		var took [6]time.Duration
		var all sync.WaitGroup
		for n := range took {
			if n == 4 {
				w.sleep(queryWaits)
			}
			user := mustJID(fmt.Sprintf("user%d@example.org", n))
			w.know(user, many(2))
			asked := time.Now()
			all.Add(1)
			w.keeper.Keep(user, func(bool) { took[n] = time.Since(asked); all.Done() })
			w.sleep(500 * time.Millisecond)
		}
		all.Wait()
		for n, took := range took {
			if at := max(0, queryWaits-time.Duration(n)*500*time.Millisecond); n < 4 && took != at || n >= 4 && took > 0 {
				t.Errorf("query %d waited for %v", n, took)
			}
		}
		if since := time.Since(began); since > 2*queryWaits+time.Second {
			t.Errorf("it took %v", since)
		}
		w.sleep(5 * time.Minute)
		if took := w.query(nurse, many(2)); took > 0 {
			t.Errorf("a query waited for %v", took)
		}
		w.server.do(func() { w.server.silent = false })
		w.settle()
		w.query(romeo, many(3))
		w.equal(romeo, many(3))
		// Slow is as bad as silent.
		w.server.do(func() { w.server.each = 2 * time.Second })
		for n := range 5 {
			user := mustJID(fmt.Sprintf("other%d@example.org", n))
			if took := w.query(user, many(2)); n == 0 && took > queryWaits || n > 0 && took > 0 {
				t.Errorf("query %d of a slow server waited for %v", n, took)
			}
			w.sleep(10 * time.Second)
		}
	})
}

// A name without an account costs nothing but a try whenever somebody fetches: the account
// may be made at any time, or be deleted and made again.
func TestNoAccount(t *testing.T) {
	onDisk(t, func(w *world) {
		none := func(is bool) { w.server.do(func() { w.server.none[juliet] = is }) }
		none(true)
		w.query(juliet, many(3))
		w.settle()
		if w.watcher.told(juliet) > 0 {
			t.Error("the watcher was told that they are in step")
		}
		gets := w.server.asked()
		w.quiet(func() { w.sleep(20 * time.Hour) })
		if w.server.asked() != gets {
			t.Error("the server was asked though nobody fetched")
		}
		w.quiet(func() { w.ask(juliet) })
		if s := w.status(); s.Error != "" || s.Residue > 0 || s.InStep > 0 {
			t.Errorf("%+v", s)
		}
		none(false) // a login
		w.ask(juliet)
		w.equal(juliet, many(3))
		w.settle()
		gets = w.server.asked()
		w.ask(juliet)
		if w.server.asked() != gets {
			t.Error("the server was asked again")
		}
		none(true) // a refresh, which changes nothing
		w.query(juliet, many(5))
		w.settle()
		w.server.put(juliet, roster.New(nil))
		none(false)
		w.keeper.Keep(juliet, nil)
		w.settle()
		w.equal(juliet, many(5))
		none(true) // once a day, whoever fetches
		w.query(juliet, many(6))
		w.settle()
		none(false)
		w.sleep(26 * time.Hour)
		w.equal(juliet, many(6))
		none(true) // and on a new stream
		w.query(juliet, many(7))
		none(false)
		w.sleep(time.Second)
		w.keeper.Resume("example.org")
		w.settle()
		w.equal(juliet, many(7))
	})
}

// What the server refuses is left, and does not keep the rest.
func TestRefused(t *testing.T) {
	test(t, func(w *world) {
		w.query(romeo, many(1)) // the way is proven
		bad := mustJID("contact1@example.net")
		w.server.refuses[bad] = true
		w.query(juliet, many(3))
		w.settle()
		w.equal(juliet, contacts("contact0@example.net both Contact0", "contact2@example.net both Contact2"))
		if s := w.status(); s.Residue != 1 || s.Error != "" || w.server.refusals != 1 {
			t.Errorf("%+v after %d refusals", s, w.server.refusals)
		}
		if n := strings.Count(w.log.String(), "left as they are"); n != 1 || strings.Contains(w.log.String(), "contact1") {
			t.Errorf("logged: %s", w.log.String())
		}
		w.quiet(func() { w.ask(juliet) })
		w.quiet(func() { w.again() })
		w.quiet(func() { w.sleep(48 * time.Hour) })
		// The rest changes, and what was refused goes.
		w.query(juliet, many(4))
		w.settle()
		w.equal(juliet, contacts("contact0@example.net both Contact0", "contact2@example.net both Contact2", "contact3@example.net both Contact3"))
		w.quiet(func() { w.again() })
		w.query(juliet, contacts("contact0@example.net both Contact0"))
		w.settle()
		w.equal(juliet, contacts("contact0@example.net both Contact0"))
		w.quiet(func() { w.again() })
	})
}

// What the server has a fault with is not left for good: the fault may pass. Nobody waits for
// it, and it is not tried for ever.
func TestFaulty(t *testing.T) {
	test(t, func(w *world) {
		w.query(romeo, many(1)) // the way is proven
		bad := mustJID("contact1@example.net")
		w.server.faults[bad] = 5
		w.query(juliet, many(3))
		w.sleep(20 * time.Second)
		if left := w.server.faults[bad]; left != 0 {
			t.Fatalf("%d faults are left", left)
		}
		w.query(juliet, many(4))
		w.settle()
		w.equal(juliet, many(4))
		w.quiet(func() { w.again() })

		w.server.faults[bad] = 1000
		w.query(juliet, contacts("contact0@example.net both Contact0"))
		w.settle()
		if tries := 1000 - w.server.faults[bad]; tries != maxFaults+1 {
			t.Errorf("%d tries", tries)
		}
		w.equal(juliet, contacts("contact0@example.net both Contact0", "contact1@example.net both Contact1"))
		w.quiet(func() { w.again() })
	})
}

// Another change does not wait until what the server has a fault with is tried again.
func TestChangeBehindAFault(t *testing.T) {
	test(t, func(w *world) {
		w.query(romeo, many(1)) // the way is proven
		w.server.faults[mustJID("contact1@example.net")] = 5
		w.keep(juliet, many(3))
		w.sleep(10 * time.Second) // the next try is 8 s away
		w.keep(juliet, many(4))
		w.sleep(time.Second)
		if n := len(w.server.rosters[juliet]); n < 3 {
			t.Errorf("%d items are written", n)
		}
	})
}

// A server that prepares addresses, and one that makes something else of names, is written
// to twice, and then left.
func TestStoredOtherwise(t *testing.T) {
	prepare := func(j jid.JID) jid.JID {
		return mustJID(strings.ReplaceAll(j.String(), "ss", "s"))
	}
	shorten := func(i roster.Item) roster.Item {
		i.Name = i.Name[:min(3, len(i.Name))]
		return i
	}
	for _, with := range []string{"address", "name"} {
		for _, others := range []int{0, 3, 30} {
			t.Run(fmt.Sprintf("%s %d", with, others), func(t *testing.T) {
				test(t, func(w *world) {
					if w.server.prepare = prepare; with == "name" {
						w.server.prepare, w.server.store = nil, shorten
					}
					w.query(romeo, contacts("paris@example.net both P")) // the way is proven
					odd := contacts("strasse@example.net to Strasse").Items()
					want := roster.New(append(many(others).Items(), odd...))
					fits := func(want *roster.Roster) {
						t.Helper()
						var items []roster.Item
						for _, item := range want.Items() {
							if w.server.prepare != nil {
								item.JID = prepare(item.JID)
							} else {
								item = shorten(item)
							}
							items = append(items, item)
						}
						w.equal(juliet, roster.New(items))
					}
					w.query(juliet, want)
					w.settle()
					fits(want)
					w.sleep(time.Second)
					w.keeper.Resume("example.org")
					w.settle()
					fits(want)
					if writes := w.server.written(); writes > 2*want.Len()+10 { // some are seen in between
						t.Errorf("%d items were written", writes)
					}
					for range 3 {
						w.quiet(func() { w.again() })
						fits(want)
					}
					w.quiet(func() { w.sleep(48 * time.Hour) })
					// The contact is renamed, and removed.
					odd[0].Name = "Other"
					want = roster.New(append(many(others).Items(), odd...))
					w.query(juliet, want)
					w.again()
					w.settle()
					fits(want)
					w.quiet(func() { w.again() })
					w.query(juliet, many(others))
					w.again()
					w.settle()
					fits(many(others))
					w.quiet(func() { w.again() })
					if len(w.broken) > 0 {
						t.Errorf("the way is broken: %q", w.broken)
					}
				})
			})
		}
	}
}

// A way that says what it does not do is found, and not used any more.
func TestLies(t *testing.T) {
	for name, lie := range map[string]func(s *fakeServer){
		"does nothing": func(s *fakeServer) { s.lies = true },
		"ignores the subscription": func(s *fakeServer) {
			s.store = func(i roster.Item) roster.Item { i.Subscription = "none"; return i }
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(w *world) {
				lie(w.server)
				w.server.put(romeo, contacts("paris@example.net none"))
				w.query(juliet, many(3))
				w.query(romeo, many(3))
				w.settle()
				if len(w.broken) != 1 || w.status().Broken != w.broken[0] || w.keeper.WhyBroken("example.org") != w.broken[0] || strings.Count(w.log.String(), "is not there") != 1 || len(w.watcher.lost) != 1 {
					t.Fatalf("%q, %+v", w.broken, w.status())
				}
				if w.watcher.told(juliet) > 1 || w.watcher.told(romeo) > 0 {
					t.Error("the watcher was told that they are in step")
				}
				w.quiet(func() {
					if took := w.query(nurse, many(3)); took > 0 {
						t.Errorf("a query waited for %v", took)
					}
					w.sleep(48 * time.Hour)
				})
				w.server.lies, w.server.store = false, nil
				w.keeper.Resume("example.org")
				w.settle()
				for _, user := range []jid.JID{juliet, romeo, nurse} {
					w.equal(user, many(3))
				}
				if s := w.status(); s.Broken+w.keeper.WhyBroken("example.org") != "" || len(w.broken) != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
	// After a restart, too.
	test(t, func(w *world) {
		w.query(juliet, many(3))
		w.query(romeo, many(3))
		w.settle()
		w.server.lies = true
		w.query(juliet, many(4))
		w.query(romeo, many(4))
		w.settle()
		if len(w.broken) > 0 {
			t.Error("what is proven is looked at each time")
		}
		w.sleep(time.Second)
		w.keeper.Resume("example.org")
		w.settle()
		if len(w.broken) != 1 {
			t.Error("it was not found")
		}
	})
	// Many items of one user are enough.
	test(t, func(w *world) {
		w.server.lies = true
		w.keep(juliet, many(200))
		w.settle()
		if len(w.broken) != 1 || w.server.sets > 100 {
			t.Errorf("%q after %d items", w.broken, w.server.sets)
		}
	})
	// What is not confirmed is not written for ever.
	test(t, func(w *world) {
		w.server.swallows = true
		w.keep(juliet, many(3))
		w.settle()
		if n := w.server.sets; n > 12 {
			t.Errorf("%d items were written", n)
		}
		w.quiet(func() { w.keeper.Keep(juliet, nil) })
	})
}

// Contacts whom the server adds to rosters by itself, and whom the backend does not list, are
// no reason to give the way up. They are left, and all else is written.
func TestShared(t *testing.T) {
	group := func(n int) *roster.Roster {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf("staff%d@example.org both Staff Staff", i))
		}
		return contacts(lines...)
	}
	works := func(w *world) {
		w.t.Helper()
		w.settle()
		if len(w.broken) > 0 {
			w.t.Fatalf("broken: %q", w.broken)
		}
	}
	for _, n := range []int{1, 3, 6, 30} {
		for _, listed := range []int{0, 3, 30} {
			t.Run(fmt.Sprintf("%d of them and %d others", n, listed), func(t *testing.T) {
				test(t, func(w *world) {
					w.server.shared = group(n)
					for _, user := range []jid.JID{juliet, romeo, nurse} {
						w.query(user, many(listed))
						works(w)
						w.equal(user, many(listed))
					}
					again := func() {
						t.Helper()
						w.sleep(time.Second)
						w.again() // what was written is seen now, and written once more
						works(w)
						w.quiet(w.again)
						works(w)
					}
					again()
					w.query(juliet, many(listed+1))
					works(w)
					w.equal(juliet, many(listed+1))
					again()
					if w.server.removals > 4*maxRounds*n {
						t.Errorf("%d removals", w.server.removals)
					}
				})
			})
		}
	}
	t.Run("since the way was proven", func(t *testing.T) {
		test(t, func(w *world) {
			w.query(juliet, many(3))
			w.query(romeo, many(3))
			w.settle()
			w.server.shared = group(6)
			w.sleep(time.Second)
			w.again()
			w.query(juliet, many(4))
			w.query(romeo, many(2))
			works(w)
			w.equal(juliet, many(4))
			w.equal(romeo, many(2))
		})
	})
	t.Run("listed, otherwise", func(t *testing.T) {
		test(t, func(w *world) {
			w.server.shared = group(6)
			for _, user := range []jid.JID{juliet, romeo, nurse} {
				want := contacts("staff0@example.org to S", "staff1@example.org from", "staff2@example.org none")
				w.query(user, want)
				works(w)
				w.equal(user, want)
			}
		})
	})
	// A server that takes nothing is found all the same, by what was added.
	t.Run("and the server lies", func(t *testing.T) {
		test(t, func(w *world) {
			w.server.shared, w.server.lies = group(6), true
			w.keep(juliet, many(100))
			w.settle()
			if len(w.broken) != 1 || w.server.sets > 20 {
				t.Errorf("%q after %d items", w.broken, w.server.sets)
			}
		})
	})
}

// Two refreshes of a user who is being written end as the last.
func TestChangesMeanwhile(t *testing.T) {
	onDisk(t, func(w *world) {
		w.server.each = 5 * time.Millisecond
		w.keep(juliet, many(100))
		w.sleep(500 * time.Millisecond)
		w.keep(juliet, many(10))
		w.sleep(200 * time.Millisecond)
		w.query(juliet, contacts("contact1@example.net both Other"))
		w.settle()
		w.equal(juliet, contacts("contact1@example.net both Other"))
		// And back to what it was.
		w.keep(juliet, many(100))
		w.sleep(500 * time.Millisecond)
		w.keep(juliet, contacts("contact1@example.net both Other"))
		w.settle()
		w.equal(juliet, contacts("contact1@example.net both Other"))
		// Though nobody says so.
		w.keep(juliet, many(15))
		w.sleep(50 * time.Millisecond)
		w.know(juliet, many(2))
		w.settle()
		w.equal(juliet, many(2))
		w.quiet(func() { w.again() })
	})
}

// What is not true any more is not written: a client that was told the truth would lose it again.
func TestNothingIsTakenBack(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = 5 * time.Millisecond
		w.server.put(juliet, many(10))
		w.server.onSet = func(user jid.JID) {
			w.server.onSet = nil
			w.know(user, many(10))
		}
		w.keep(juliet, many(5))
		w.settle()
		w.equal(juliet, many(10))
		if w.server.removals != 1 {
			t.Errorf("%d removals, want the one that was under way", w.server.removals)
		}
	})
}

// Nor is the rest of a portion, where the server pushes what is written.
func TestNothingOfAPortionIsTakenBack(t *testing.T) {
	test(t, func(w *world) {
		w.name = "api"
		w.server.each = time.Millisecond
		w.server.put(juliet, many(30))
		began := 0
		w.server.onSet = func(user jid.JID) {
			if began++; began == 8 {
				w.server.onSet = nil
				w.know(user, many(30))
			}
		}
		w.keep(juliet, many(2))
		w.settle()
		w.equal(juliet, many(30))
		if w.server.removals != 8 {
			t.Errorf("%d removals, want those before and the one that was under way", w.server.removals)
		}
	})
}

// A user edits what is being written, and what was written.
func TestEdits(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = 5 * time.Millisecond
		w.keep(juliet, many(60))
		w.sleep(500 * time.Millisecond)
		w.server.do(func() {
			delete(w.server.rosters[juliet], mustJID("contact0@example.net"))
			w.server.rosters[juliet][romeo] = roster.Item{JID: romeo, Subscription: "none"}
		})
		w.keeper.Resume("example.org")
		w.settle()
		w.equal(juliet, many(60))
		for range 3 {
			w.sleep(time.Second)
			w.server.put(juliet, contacts("romeo@example.org none"))
			for range 10 {
				w.keeper.Resume("example.org")
			}
			w.settle()
			w.equal(juliet, many(60))
		}
		w.quiet(func() { w.again() })
		if s := w.status(); s.Residue > 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What changes in the last moment is written, too.
func TestChangedAtTheEnd(t *testing.T) {
	test(t, func(w *world) {
		w.server.put(nurse, many(2))
		w.know(nurse, many(1))
		w.keeper.Keep(nurse, nil)
		w.settle()
		w.watcher.act = func(user jid.JID) {
			if w.watcher.act = nil; user == juliet {
				w.keep(juliet, many(5))
			} else {
				w.server.put(nurse, many(3))
				time.Sleep(time.Second)
				w.keeper.Resume("example.org")
			}
		}
		again := w.watcher.act
		w.keep(juliet, many(3))
		w.settle()
		w.equal(juliet, many(5))
		w.watcher.act = again
		w.keep(nurse, many(2))
		w.settle()
		w.equal(nurse, many(2))
	})
}

// A stop waits for the portion under way, and lets nobody wait.
func TestClose(t *testing.T) {
	for _, silent := range []bool{false, true} {
		onDisk(t, func(w *world) {
			w.settle()
			w.server.silent = silent
			w.server.each = 300 * time.Millisecond
			w.keep(juliet, many(100))
			w.know(romeo, many(3))
			w.know(nurse, many(3))
			waiting, behind := make(chan struct{}), make(chan struct{})
			w.keeper.Keep(romeo, func(bool) { close(waiting) })
			w.keeper.Keep(nurse, func(bool) { close(behind) })
			w.sleep(time.Second)
			began := time.Now()
			w.keeper.Close()
			if took := time.Since(began); took > closeTakes {
				t.Errorf("it took %v", took)
			}
			for _, c := range []chan struct{}{waiting, behind} {
				select {
				case <-c:
				default:
					t.Error("a query waits after the end")
				}
			}
			if took := w.ask(nurse); took > 0 {
				t.Errorf("a query waited for %v", took)
			}
			w.keeper.Resume("example.org")
			w.keeper.Close()
			w.server.silent = false
			w.again()
			w.settle()
			w.equal(juliet, many(100))
			w.equal(romeo, many(3))
		})
	}
}

// What is damaged is asked for, and kept anew.
func TestDamaged(t *testing.T) {
	test(t, func(w *world) {
		w.query(juliet, many(3))
		w.settle()
		rows := w.store.(*memory).now.rows
		row := rows[juliet.String()]
		row.Roster, row.Version = []byte{1, 0xff}, "another"
		rows[juliet.String()] = row
		w.server.put(juliet, many(5))
		w.query(juliet, many(3))
		w.equal(juliet, many(3))
		w.quiet(w.again)
	})
}

// A user whom the store forgets loses what is kept of them, and nothing else.
func TestForgotten(t *testing.T) {
	onDisk(t, func(w *world) {
		w.query(juliet, many(3))
		w.settle()
		delete(w.rosters.known, juliet)
		w.store.DeleteUser(juliet.String())
		if row, err := w.store.ServerRoster(juliet.String()); err != nil || row.JID != "" {
			t.Errorf("%+v, %v", row, err)
		}
		w.again()
		w.settle()
		w.equal(juliet, many(3))
	})
}

// It is logged that the rosters are in step when all are, and not when nothing can be done any
// more.
func TestSaysInStepWhenTheyAre(t *testing.T) {
	for name, stop := range map[string]func(w *world){
		"the stream ends": func(w *world) { w.server.mu.Lock(); defer w.server.mu.Unlock(); w.server.gone = true },
		"the way is broken": func(w *world) {
			w.keeper.mu.Lock()
			h := w.keeper.hosts["example.org"]
			w.keeper.mu.Unlock()
			w.keeper.fail(h, "it lies")
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(w *world) {
				const says = "rosters are in step"
				w.server.each = 100 * time.Millisecond
				for i := range 100 {
					w.keep(mustJID(fmt.Sprintf("user%d@example.org", i)), many(10))
				}
				w.sleep(3 * time.Minute)
				if text := w.log.String(); !strings.Contains(text, "being brought in step") || strings.Contains(text, says) {
					t.Fatalf("logged: %s", text)
				}
				stop(w)
				w.settle()
				w.sleep(time.Minute)
				if strings.Contains(w.log.String(), says) {
					t.Error("it says that they are in step, and most are not")
				}
				w.server.mu.Lock()
				w.server.gone = false
				w.server.mu.Unlock()
				w.keeper.Resume("example.org")
				w.settle()
				w.sleep(time.Minute)
				if strings.Count(w.log.String(), says) != 1 {
					t.Error("it does not say that they are in step")
				}
			})
		})
	}
}

// What an instance has checked whose clock was ahead is checked again by the next one.
func TestResumeAfterAnotherClock(t *testing.T) {
	test(t, func(w *world) {
		juliet := mustJID("juliet@example.org")
		w.put(juliet, many(2), nil)
		w.keeper.Keep(juliet, nil)
		w.settle()
		w.sleep(time.Second)
		w.close()
		const ahead = 10 * time.Minute
		next := newMemory(w.store.(*memory).kept)
		for name, row := range next.now.rows {
			row.Checked = row.Checked.Add(ahead)
			next.now.rows[name], next.kept.rows[name] = row, row
		}
		next.Clock = store.NewClock(time.Now().Add(ahead), time.Now)
		w.store = next
		w.start(next)
		w.keeper.Resume("example.org")
		before := w.server.asked()
		w.sleep(time.Minute)
		if w.server.asked() == before {
			t.Error("the server was not asked")
		}
	})
}

package serverroster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// pushed notes what the keeper wants the clients to be told.
type pushed struct {
	mu  sync.Mutex
	all []string
}

func (p *pushed) note(_ jid.JID, contacts []jid.JID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, contact := range contacts {
		p.all = append(p.all, contact.String())
	}
}

// take are the contacts since the last call, each once.
func (p *pushed) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.all
	p.all = nil
	slices.Sort(all)
	return slices.Compact(all)
}

// asking is a roster in which these contacts have asked, as no server's own roster has them.
func asking(r *roster.Roster, contacts ...jid.JID) *roster.Roster {
	items := r.Items()
	for i := range items {
		if slices.Contains(contacts, items[i].JID) {
			items[i].Ask = true
		}
	}
	return roster.New(items)
}

func want(t *testing.T, p *pushed, contacts ...string) {
	t.Helper()
	if got := p.take(); !slices.Equal(got, contacts) {
		t.Errorf("corrected %q, want %q", got, contacts)
	}
}

// The server's own push lacks what it does not have: the clients are told once more after
// it, whatever fails, also after a kill. Of others they are not.
func TestPushedIsCorrected(t *testing.T) {
	onDisk(t, func(w *world) {
		w.server.do(func() { w.name = "api" })
		some := contacts("romeo@example.org to Romeo", "nurse@example.org both Nurse")
		w.keep(juliet, asking(some, romeo))
		w.settle()
		want(t, w.pushed, "romeo@example.org")
		w.quiet(func() { w.keeper.Keep(juliet, nil) })
		want(t, w.pushed)

		// Its answers are lost: what it did nobody knows, and it is told at once.
		w.server.do(func() {
			w.server.store = func(i roster.Item) roster.Item { w.server.gone = true; return i }
		})
		renamed := contacts("romeo@example.org to R", "nurse@example.org both Nurse")
		w.keep(juliet, asking(renamed, romeo))
		w.sleep(time.Millisecond)
		w.server.do(func() { w.server.gone, w.server.store = false, nil })
		w.keeper.Resume("example.org")
		w.settle()
		want(t, w.pushed, "romeo@example.org")

		// Killed after it was written: that it was is forgotten.
		w.server.do(func() {
			w.server.onSet = func(jid.JID) { w.server.each = time.Hour }
		})
		w.keep(juliet, asking(contacts("romeo@example.org to Romeo"), romeo))
		w.sleep(time.Minute)
		w.server.do(func() { w.server.onSet, w.server.each = nil, 0 })
		w.pushed.take()
		w.kill()
		w.settle()
		want(t, w.pushed, "romeo@example.org")

		// Nobody is told again and again.
		w.again()
		w.settle()
		w.sleep(25 * time.Hour)
		w.settle()
		want(t, w.pushed)

		// Removed, and the server did half of it.
		w.server.do(func() { w.server.fails = func(jid.JID, string) error { return errStream } })
		w.keep(juliet, contacts())
		w.sleep(time.Minute)
		if got := w.pushed.take(); len(got) > 0 && got[0] != "romeo@example.org" {
			t.Error(got)
		}
	})
}

// What the server makes of an address, and pushes, is corrected, too.
func TestPushedOtherwiseIsCorrected(t *testing.T) {
	test(t, func(w *world) {
		w.server.do(func() { w.name = "api" })
		w.keep(juliet, contacts("nurse@example.org both Nurse"))
		w.settle()
		want(t, w.pushed)
		w.server.do(func() {
			w.server.prepare = func(contact jid.JID) jid.JID {
				if contact == mustJID("müller@example.org") {
					contact = mustJID("muller@example.org")
				}
				return contact
			}
			w.server.store = func(i roster.Item) roster.Item {
				i.Groups = strings.Split(strings.Join(i.Groups, ";"), ";")
				return i
			}
		})
		w.keep(juliet, contacts("nurse@example.org both Nurse", "müller@example.org both S A", "paris@example.org both P A;B"))
		w.settle()
		want(t, w.pushed, "muller@example.org", "müller@example.org", "paris@example.org")
		w.quiet(func() { w.keeper.Keep(juliet, nil) })
		want(t, w.pushed)
	})
}

// By privilege the server pushes nothing.
func TestPushedByPrivilege(t *testing.T) {
	test(t, func(w *world) {
		w.keep(juliet, asking(contacts("romeo@example.org to Romeo"), romeo))
		w.settle()
		want(t, w.pushed)
	})
}

// push calls Push, and returns where what became of it is sent.
func (w *world) push(contacts ...jid.JID) chan error {
	done := make(chan error, 1)
	w.keeper.Push(juliet, contacts, func(missing []jid.JID, err error) {
		if (err == nil) != (len(missing) == 0) {
			w.t.Errorf("missing %v, %v", missing, err)
		}
		done <- err
	})
	return done
}

// What the server is to push is written, though it does not differ, and settled when that was
// confirmed.
func TestPush(t *testing.T) {
	for _, way := range []string{"api", "privilege"} {
		t.Run(way, func(t *testing.T) { testPush(t, way) })
	}
}

func testPush(t *testing.T, way string) {
	onDisk(t, func(w *world) {
		w.server.do(func() { w.name = way })
		some := contacts("romeo@example.org both Romeo", "nurse@example.org none Nurse")
		w.keep(juliet, some)
		w.settle()
		before := w.server.written()
		if err := <-w.push(romeo, mustJID("mercutio@example.org")); err != nil {
			t.Error(err)
		}
		if n := w.server.written() - before; n != 2 {
			t.Errorf("%d were written", n)
		}
		w.settle()
		w.equal(juliet, some)
		w.quiet(func() { w.keeper.Keep(juliet, nil) })

		// Whom the server has though it is not known is seen before they are removed.
		w.server.put(juliet, contacts("romeo@example.org both Romeo", "nurse@example.org none Nurse", "mercutio@example.org both M"))
		if err := <-w.push(mustJID("mercutio@example.org")); err != nil {
			t.Error(err)
		}
		w.equal(juliet, some)

		// What differs is written once.
		some = contacts("romeo@example.org both R", "nurse@example.org none Nurse")
		w.know(juliet, some)
		before = w.server.written()
		if err := <-w.push(romeo); err != nil || w.server.written()-before != 1 {
			t.Error(w.server.written()-before, err)
		}
		// Many, in portions, while others want something.
		big := many(300)
		w.keep(juliet, big)
		w.settle()
		w.server.do(func() { w.server.each = 10 * time.Millisecond })
		var all []jid.JID
		for _, item := range big.Items() {
			all = append(all, item.JID)
		}
		before = w.server.written()
		done := w.push(all...)
		w.sleep(time.Second)
		w.query(romeo, contacts("nurse@example.org"))
		if err := <-done; err != nil || w.server.written()-before != 301 {
			t.Error(w.server.written()-before, err)
		}
		w.equal(romeo, contacts("nurse@example.org"))
		w.server.do(func() { w.server.each = 0 })

		// It fails, each time once, and nobody waits long.
		for name, f := range map[string]func(){
			"refused": func() { w.server.refuses[all[0]] = true },
			"fails":   func() { w.server.fails = func(jid.JID, string) error { return errStream } },
			"gone":    func() { w.server.gone = true },
			"silent":  func() { w.server.swallows = true },
		} {
			w.server.do(f)
			began := time.Now()
			if err := <-w.push(all[0]); err == nil || time.Since(began) > time.Minute || errors.Is(err, ErrNotPushed) != (name == "refused" || name == "silent") {
				t.Error(name, err, time.Since(began))
			}
			w.server.do(func() {
				w.server.refuses, w.server.fails, w.server.gone, w.server.swallows = map[jid.JID]bool{}, nil, false, false
			})
			w.keeper.Resume("example.org")
			w.settle()
		}
		w.equal(juliet, big)
		w.server.do(func() { w.server.silent = true })
		done = w.push(romeo)
		other := w.push(nurse)
		w.keeper.Close()
		if err := <-done; err == nil || <-other == nil || <-w.push(romeo) == nil {
			t.Error("settled by the end")
		}
	})
}

// What ejabberd was asked, and does when nobody waits for the answer any more, is put right:
// also if rosterd was killed meanwhile, and though somebody logs in before.
func TestDoneLate(t *testing.T) {
	for _, killed := range []bool{false, true} {
		onDisk(t, func(w *world) {
			w.server.do(func() { w.name = "api" })
			nurse := contacts("nurse@example.org both")
			w.keep(juliet, nurse)
			w.settle()
			unanswered := false
			w.server.do(func() {
				w.server.fails = func(_ jid.JID, item string) error {
					if item != romeo.String() || unanswered {
						return nil
					}
					unanswered = true
					return context.DeadlineExceeded
				}
			})
			w.keep(juliet, contacts("nurse@example.org both", "romeo@example.org both"))
			w.sleep(500 * time.Millisecond)
			w.keep(juliet, nurse) // he is removed while the call is under way
			w.sleep(500 * time.Millisecond)
			if killed {
				w.kill()
			}
			for range 10 {
				if took := w.ask(juliet); took > 0 {
					t.Errorf("a query waited for %v", took)
				}
				w.sleep(4 * time.Second)
			}
			w.server.put(juliet, contacts("nurse@example.org both", "romeo@example.org both"))
			w.sleep(lateEvery)
			w.equal(juliet, nurse)
			w.settle()
			gets := w.server.asked()
			w.sleep(time.Hour)
			if n := w.server.asked() - gets; n > 0 {
				t.Errorf("asked %d times more", n)
			}
		})
	}
}

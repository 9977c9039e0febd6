package serverroster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// probing is a server that can be made to ask for presence.
type probing struct {
	*fakeServer
	allowed bool
	gone    atomic.Bool // the users are
	err     error
	takes   time.Duration
	probes  []string // contacts
	users   []jid.JID
}

func (p *probing) Probe(ctx context.Context, user, contact jid.JID) (bool, error) {
	p.mu.Lock()
	p.probes, p.users = append(p.probes, contact.String()), append(p.users, user)
	takes, allowed, err := p.takes, p.allowed, p.err
	p.mu.Unlock()
	if err := p.wait(ctx, takes); err != nil {
		return true, err
	}
	return allowed, err
}

func (p *probing) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.probes)
}

// askedAfter waits until n contacts were asked.
func (p *probing) askedAfter(w *world, n int) {
	w.t.Helper()
	for range 1_000_000 {
		if p.asked() >= n {
			return
		}
		w.sleep(time.Millisecond)
	}
	w.t.Fatalf("%d contacts are asked for presence, want %d", p.asked(), n)
}

// settled waits until nobody is to be asked any more.
func (p *probing) settled(w *world) {
	w.t.Helper()
	for last := -1; last != p.asked(); w.sleep(10 * time.Second) {
		last = p.asked()
	}
	w.settle()
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	if h := w.keeper.hosts["example.org"]; h.toAsk != 0 || h.unseen.Len() != 0 {
		w.t.Errorf("%d contacts of %d users are to be asked", h.toAsk, h.unseen.Len())
	}
}

// startProbing starts to ask for the presence of a user's new contacts, 5 ms each.
func startProbing(w *world, user jid.JID, n int) *probing {
	p := &probing{fakeServer: w.server, allowed: true, takes: 5 * time.Millisecond}
	w.server.do(func() { w.name, w.way, w.online = "api", p, func(jid.JID) bool { return !p.gone.Load() } })
	w.keep(romeo, contacts("nurse@example.org from"))
	w.settle()
	w.keep(user, many(n))
	p.askedAfter(w, 1)
	return p
}

// A contact whom a user may see from now on is asked for presence, if the user is there.
func TestProbes(t *testing.T) {
	test(t, func(w *world) {
		p := &probing{fakeServer: w.server, allowed: true}
		online := true
		w.server.do(func() { w.name, w.way, w.online = "api", p, func(jid.JID) bool { return online } })
		wants := func(contacts ...string) {
			t.Helper()
			p.settled(w)
			if got := slices.Sorted(slices.Values(p.probes)); !slices.Equal(got, contacts) {
				t.Errorf("probed %q, want %q", got, contacts)
			}
			p.probes = nil
		}
		w.keep(juliet, contacts("romeo@example.org both Romeo", "nurse@example.org from", "paris@example.org to"))
		wants("paris@example.org", "romeo@example.org")
		w.keep(juliet, contacts("romeo@example.org both R", "nurse@example.org both", "paris@example.org none"))
		wants("nurse@example.org")
		online = false
		w.keep(juliet, contacts("paris@example.org both"))
		wants()
		// The answer is lost, and it was written.
		online = true
		w.server.do(func() {
			w.server.store = func(i roster.Item) roster.Item { w.server.swallows = true; return i }
		})
		w.keep(juliet, contacts("romeo@example.org both"))
		w.sleep(time.Millisecond)
		w.server.do(func() { w.server.swallows, w.server.store = false, nil })
		wants("romeo@example.org")
	})
}

// Nobody waits until contacts were asked for presence, and all of it takes a fifth of the
// server's time.
func TestProbesHoldUpNobody(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = time.Millisecond
		p := startProbing(w, juliet, 500)
		began := time.Now()
		behind := func(what string) {
			t.Helper()
			if n := p.asked(); n > 1 {
				t.Errorf("%s came after %d contacts were asked", what, n)
			}
			p.do(func() { p.probes = nil })
		}
		if err := <-w.push(mustJID("contact3@example.net")); err != nil {
			t.Error(err)
		}
		behind("a push of theirs")
		w.query(romeo, contacts("nurse@example.org from Nurse"))
		w.equal(romeo, contacts("nurse@example.org from Nurse"))
		behind("another's query")
		w.query(nurse, many(20)) // who waits for what is written, and not for what follows
		behind("a query with new contacts")
		w.keep(mustJID("paris@example.org"), many(0))
		p.askedAfter(w, 300)
		spent := 300 * p.takes
		if share := float64(spent) / float64(time.Since(began)); share > 0.21 {
			t.Errorf("%.2f of the server's time", share)
		}
		p.settled(w)
	})
}

// Users have turns: who has one new contact does not wait for all of another's.
func TestProbesTakeTurns(t *testing.T) {
	test(t, func(w *world) {
		p := startProbing(w, juliet, 500)
		w.keep(romeo, contacts("nurse@example.org both Nurse"))
		w.settle()
		before := p.asked()
		p.askedAfter(w, before+2)
		if !slices.Contains(p.users, romeo) {
			t.Errorf("romeo waits for %d of juliet's", before+2)
		}
		p.settled(w)
		if n := p.asked(); n != 501 {
			t.Errorf("%d were asked", n)
		}
	})
}

// What is no more is not asked for.
func TestProbesInVain(t *testing.T) {
	none := contacts("contact0@example.net from")
	for name, f := range map[string]func(w *world, p *probing){
		"the user has gone":        func(_ *world, p *probing) { p.gone.Store(true) },
		"the contacts are removed": func(w *world, _ *probing) { w.keep(juliet, none) },
		"it is known already":      func(w *world, _ *probing) { w.know(juliet, none) },
		"it is not permitted":      func(_ *world, p *probing) { p.do(func() { p.allowed = false }) },
		"the server is slow":       func(_ *world, p *probing) { p.do(func() { p.takes = slowCall }) },
		"there is no way":          func(w *world, _ *probing) { w.server.do(func() { w.name = "" }) },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(w *world) {
				p := startProbing(w, juliet, 300)
				f(w, p)
				p.settled(w)
				if n := p.asked(); n > 4 {
					t.Errorf("%d were asked", n)
				}
			})
		})
	}
	test(t, func(w *world) {
		p := startProbing(w, juliet, 300)
		w.keeper.Close()
		w.sleep(time.Minute)
		if n := p.asked(); n > 2 {
			t.Errorf("%d were asked after the end", n)
		}
	})
}

// That a contact cannot be asked says nothing of the rosters, nor of the next one.
func TestProbesFail(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = time.Millisecond
		p := startProbing(w, juliet, 30)
		p.do(func() { p.err = errors.New("internal-server-error") })
		p.settled(w)
		if s := w.status(); p.asked() != 30 || s.Error != "" || len(w.broken) > 0 {
			t.Errorf("%d were asked, %+v", p.asked(), s)
		}
	})
	test(t, func(w *world) {
		p := startProbing(w, juliet, 500)
		w.server.do(func() { w.server.fails = func(jid.JID, string) error { return errStream } })
		for n := range failuresInA { // rosters fail, and to ask does not
			w.query(mustJID(strings.Repeat("u", n+1)+"@example.org"), many(1))
		}
		w.sleep(5 * time.Second)
		if s := w.status(); p.asked() > 400 || s.Error == "" || !strings.Contains(w.log.String(), "cannot be read or written at present") {
			t.Errorf("%d were asked, %+v", p.asked(), s)
		}
		w.server.do(func() { w.server.fails = nil })
		p.settled(w)
	})
}

// Who are to be asked are bounded.
func TestProbesAreBounded(t *testing.T) {
	test(t, func(w *world) {
		p := &probing{fakeServer: w.server}
		w.server.do(func() { w.online = func(jid.JID) bool { return true } })
		h := &host{}
		for range 3 {
			j := &job{user: juliet, progress: &progress{touched: make(map[jid.JID]touched)}}
			for n := range maxProbes/2 + 100 {
				j.touched[mustJID(fmt.Sprintf("contact%d@example.net", n))] = touched{sees: true}
			}
			(&turn{Keeper: w.keeper, h: h, j: j, way: p}).wantPresence()
		}
		if h.toAsk != maxProbes || h.unseen.Len() != 2 {
			t.Errorf("%d contacts are to be asked for %d users", h.toAsk, h.unseen.Len())
		}
	})
}

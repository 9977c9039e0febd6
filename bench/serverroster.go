package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keepRows are the rows about the server's own rosters: what it costs the logins and the
// others that rosterd keeps them.
type keepRows struct {
	b        *bench
	v        variant
	imported int // users of 200 contacts who are brought to the server
	herd     int // users of 20 contacts who log in, and
	large    int // of 200

	kinds                      []*loginKind
	written                    *row
	took, rate, whole          *row
	mid, p99, share, processor *row
	each                       map[int]*row // by the number of contacts
}

// loginKind are logins of one kind, which are done with server_roster off, then with it kept,
// and then beside the module.
type loginKind struct {
	contacts, passes int
	rate, module     *row // module: nil if there is none
	processor        *row
	mid, p99, last   *row // nil: none
}

const (
	// importTakes is how long all of this may take: each item has Prosody save the whole
	// roster, and rosterd takes a fifth of its time.
	importTakes = 3 * time.Hour
	// maxBatches are the pieces of an import. The chat of others is measured before each and
	// during each.
	maxBatches = 5
	// manyContacts is the size of the largest roster that is brought to the server.
	manyContacts = 500
)

func (b *bench) serverRosters(name string, v variant) part {
	server := b.server + v.name
	r := &keepRows{b: b, v: v, imported: cmp.Or(b.imported, b.pick(100, 10)), herd: b.pick(1_000, 100), large: b.pick(40, 10), each: make(map[int]*row)}
	const off = "server_roster off"
	kind := func(what string, contacts, passes int, wants float64) *loginKind {
		k := &loginKind{contacts: contacts, passes: passes, rate: b.row(server+": "+what, "/s", off, wants, true)}
		k.processor = b.row("  processor time of the server, for one", "ms", off, 0, false)
		if b.peer != "" {
			k.module = b.row("  the same", "/s", "module", 0, true)
		}
		r.kinds = append(r.kinds, k)
		return k
	}
	first := kind(fmt.Sprintf("first logins of %d users, 20 contacts", r.herd), 20, 1, 0.5)
	first.mid = b.row("  one of them, median", "ms", off, 0, false)
	first.p99 = b.row("  99th percentile", "ms", off, 0, false)
	first.last = b.row("  longest", "ms", "3 s", 1, false)
	r.written = b.row("  items written when the last was answered", "%", "", 0, true)
	kind("second logins of them", 20, 1, 0.75)
	kind(fmt.Sprintf("first logins of %d users, 200 contacts", r.large), 200, 1, 0.5)
	kind("second logins of them, and more", 200, 5, 0.75)
	r.mid = b.row(fmt.Sprintf("%s: chat during an import of %d users, 200 contacts, median", server, r.imported), "ms", "idle", 0, false)
	r.p99 = b.row("  99th percentile", "ms", "idle", 3, false)
	r.share = b.row("  share of the server's time", "%", "a fifth", 1, false)
	r.processor = b.row("  processor time of the server", "%", "idle", 0, false)
	r.took = b.row("  the import", "s", "", 0, false)
	r.rate = b.row("  items", "/s", "", 0, true)
	r.whole = b.row("  1,000 users at that rate", " min", "", 0, false)
	for _, contacts := range []int{20, 200, manyContacts} {
		r.each[contacts] = b.row(fmt.Sprintf("%s: the server's time for an item, in rosters that grow to %d", server, contacts), "ms", "to 20", 0, false)
	}
	return part{name: name, run: r.run, long: importTakes, once: true}
}

func (r *keepRows) run(ctx context.Context) error {
	some := map[int][]user{20: users('u', 20, 0, r.herd), 200: users('u', 200, r.imported, r.large)}
	accounts := append(users('e', 0, 0, 3), user{'u', manyContacts, 0})
	accounts = append(append(append(accounts, some[20]...), some[200]...), users('u', 200, 0, r.imported)...)
	v := r.v
	off, err := r.b.startReal(ctx, v, accounts)
	if err != nil {
		return err
	}
	defer off.close()
	v.keeps = true
	kept, err := r.b.startReal(ctx, v, accounts)
	if err != nil {
		return err
	}
	defer kept.close()
	var module *subject
	if r.b.peer != "" {
		if module, err = r.b.startPeer(ctx, v, accounts); err != nil {
			return err
		}
		defer module.close()
	}
	if err := kept.settled(ctx); err != nil {
		return err
	}
	for i, k := range r.kinds {
		before, err := kept.rosterFigures(ctx)
		if err != nil {
			return err
		}
		without, err := loginWaits(ctx, off, some[k.contacts], k.passes)
		if err != nil {
			return err
		}
		with, err := loginWaits(ctx, kept, some[k.contacts], k.passes)
		if err != nil {
			return err
		}
		k.rate.add(without.rate, with.rate)
		k.processor.add(without.processor, with.processor)
		answered, err := kept.rosterFigures(ctx)
		if err != nil {
			return err
		}
		if k.mid != nil {
			k.mid.add(without.mid, with.mid)
			k.p99.add(without.p99, with.p99)
			k.last.add(3000, with.last)
			r.written.add(0, (answered.written-before.written)/float64(len(some[k.contacts])*k.contacts)*100)
		}
		if err := kept.settled(ctx); err != nil {
			return err
		}
		if k.module != nil {
			beside, err := loginWaits(ctx, module, some[k.contacts], k.passes)
			if err != nil {
				return err
			}
			k.module.add(beside.rate, with.rate)
		}
		if i == 0 {
			after, err := kept.rosterFigures(ctx)
			if err != nil {
				return err
			}
			r.each[20].add(after.each(before), after.each(before))
		}
	}
	return r.bring(ctx, kept)
}

// loginsTook is how long logins took, in ms, how many a second there were, and what one cost
// the servers, in ms.
type loginsTook struct{ rate, mid, p99, last, processor float64 }

// loginWaits logs users in, whose clients have no roster, as often as passes says.
func loginWaits(ctx context.Context, s *subject, some []user, passes int) (t loginsTook, err error) {
	var mu sync.Mutex
	var each []time.Duration
	began, cpu := time.Now(), serverCPU()
	for range passes {
		_, err := logins(ctx, s.server.ClientAddress(), some, nil, func(_ int, c *client) {
			mu.Lock()
			each = append(each, c.took)
			mu.Unlock()
			c.close()
		})
		if err != nil {
			return t, err
		}
	}
	t.rate, t.processor = float64(len(each))/time.Since(began).Seconds(), ms(serverCPU()-cpu)/float64(len(each))
	slices.Sort(each)
	t.mid, t.p99, t.last = ms(each[len(each)/2]), ms(each[len(each)*99/100]), ms(each[len(each)-1])
	return t, nil
}

// bring measures an import, in batches: users who are offline are reported, and have nothing
// on the server yet.
func (r *keepRows) bring(ctx context.Context, s *subject) error {
	var took time.Duration
	var first, last rosterFigures
	all := users('u', 200, 0, r.imported)
	batches := min(maxBatches, len(all))
	for n := range batches {
		idle, err := r.meanwhile(ctx, s, func(ctx context.Context) error {
			return sleepFor(ctx, time.Duration(r.b.pick(10, 3))*time.Second)
		})
		if err != nil {
			return err
		}
		before, err := s.rosterFigures(ctx)
		if err != nil {
			return err
		}
		during, err := r.meanwhile(ctx, s, func(ctx context.Context) error {
			return r.report(ctx, s, all[n*len(all)/batches:(n+1)*len(all)/batches])
		})
		if err != nil {
			return err
		}
		if last, err = s.rosterFigures(ctx); err != nil {
			return err
		}
		if n == 0 {
			first = before
		}
		took += during.took
		r.mid.add(ms(idle.mid), ms(during.mid))
		r.p99.add(ms(idle.p99), ms(during.p99))
		r.share.add(20, (last.seconds-before.seconds)/during.took.Seconds()*100)
		r.processor.add(idle.processor*100, during.processor*100)
	}
	rate := (last.written - first.written) / took.Seconds()
	r.took.add(0, took.Seconds())
	r.rate.add(0, rate)
	r.whole.add(0, 1_000*200/rate/60)
	small := r.each[20].samples[0].got
	r.each[200].add(small, last.each(first))
	if last.failed > first.failed {
		r.took.note = fmt.Sprintf("%.0f items failed on the way", last.failed-first.failed)
	}
	if err := r.report(ctx, s, []user{{'u', manyContacts, 0}}); err != nil {
		return err
	}
	large, err := s.rosterFigures(ctx)
	r.each[manyContacts].add(small, large.each(last))
	return err
}

// report reports users, and waits until they are in step.
func (r *keepRows) report(ctx context.Context, s *subject, some []user) error {
	before, err := s.rosterFigures(ctx)
	if err != nil {
		return err
	}
	if err := r.b.tell(ctx, s, some); err != nil {
		return err
	}
	return s.until(ctx, func(now rosterFigures) bool {
		return now.written-before.written >= float64(len(some)*some[0].contacts) && now.waiting == 0
	})
}

// atWork is what is measured while something is done.
type atWork struct {
	mid, p99, took time.Duration // of the chat of two others, and of the whole
	processor      float64       // the server's, of one
}

// meanwhile does something, and measures.
func (r *keepRows) meanwhile(ctx context.Context, s *subject, do func(context.Context) error) (w atWork, err error) {
	ch, err := newChat(ctx, s.server.ClientAddress())
	if err != nil {
		return w, err
	}
	defer ch.close()
	talking, hush := context.WithCancel(ctx)
	defer hush()
	talked := make(chan error, 1)
	began, cpu := time.Now(), serverCPU()
	go func() { talked <- ch.talk(talking) }()
	if err := do(ctx); err != nil {
		return w, err
	}
	w.took = time.Since(began)
	w.processor = (serverCPU() - cpu).Seconds() / w.took.Seconds()
	hush()
	if err := <-talked; err != nil {
		return w, err
	}
	w.mid, w.p99, err = ch.latencies(ctx)
	return w, err
}

// settled waits until rosterd has nothing to bring to the server.
func (s *subject) settled(ctx context.Context) error {
	return s.until(ctx, func(now rosterFigures) bool { return now.waiting == 0 })
}

// rosterFigures are what rosterd says of the server's own rosters.
type rosterFigures struct{ written, failed, waiting, seconds float64 }

// each is the server's time for an item since then, in ms.
func (f rosterFigures) each(since rosterFigures) float64 {
	return (f.seconds - since.seconds) * 1e3 / (f.written - since.written)
}

func (s *subject) until(ctx context.Context, reached func(rosterFigures) bool) error {
	for {
		now, err := s.rosterFigures(ctx)
		if err != nil || reached(now) {
			return err
		}
		if err := sleepFor(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%w; last: %+v", err, now)
		}
	}
}

func (s *subject) rosterFigures(ctx context.Context) (now rosterFigures, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return now, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return now, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		x, _ := strconv.ParseFloat(value, 64)
		switch series {
		case `rosterd_server_roster_items_total{result="written"}`:
			now.written = x
		case `rosterd_server_roster_items_total{result="failed"}`:
			now.failed = x
		case "rosterd_server_roster_waiting_users":
			now.waiting = x
		case "rosterd_server_roster_write_seconds_total":
			now.seconds = x
		}
	}
	return now, lines.Err()
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/config"
	"rosterd/internal/freeport"
	"rosterd/internal/pgserver"
	"rosterd/metrics"
	"rosterd/refresh"
	"rosterd/store"
)

// An instance that was killed while it could not write, and was started again before the
// other one takes over, answers that one. It does not know what its process before told
// clients: that is in doubt all the same.
func TestToldAfterARestart(t *testing.T) {
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	again := &pair{app: &app{}} // the process after the kill: it stands by
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"code"})
	endpoint := httptest.NewServer(refresh.Handler(refresh.Options{
		Hosts: []string{"example.org"}, Logger: log, Requests: counter, Users: counter, Told: again.told,
	}, refresher{again.app}))
	defer endpoint.Close()
	stand := func(advertise string) (*store.Pair, *store.Lease) {
		t.Helper()
		db, err := store.NewPair(server.URL(), "contacts.example.org", advertise, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := db.Stand(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return db, lease
	}
	for _, quiet := range []bool{true, false} {
		_, killed := stand(endpoint.URL)
		since := "now() + interval '1 hour'" // on a slow machine, too
		if quiet {
			since = "now() - interval '1 hour'"
		}
		killed.Release(false)
		if err := server.Exec(t.Context(), fmt.Sprint("UPDATE rosterd.pairs SET written = ", since)); err != nil {
			t.Fatal(err)
		}
		db, lease := stand("http://127.0.0.1:1")
		peer := refresh.NewPeer(func() string { return "" }, nil)
		p := &pair{app: &app{log: log}, db: db, peer: peer, advertise: "http://127.0.0.1:1", lease: lease}
		p.ends, p.end = context.WithCancel(t.Context())
		if left, doubtful := p.tell(lease.Before.URL); doubtful != quiet || !left.Unknown {
			t.Errorf("quiet %v: doubtful %v, %+v", quiet, doubtful, left)
		}
		p.end()
		p.running.Wait()
		lease.Release(true)
		peer.Close()
	}
}

// Who says that another instance is active, and may only report users, is not believed
// against the database.
func TestToldWhatIsNotSo(t *testing.T) {
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	db, err := store.NewPair(server.URL(), "contacts.example.org", "http://127.0.0.1:1", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lease, err := db.Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(false)
	p := &pair{app: &app{}, db: db, lease: lease, closed: make(chan struct{}), handed: make(chan struct{})}
	p.working.Store(true)
	close(p.closed) // it has nothing to close
	if left := p.told(ctx, lease.Term+1); !left.Unknown || lease.Err() != nil {
		t.Errorf("a lie is believed: %+v, %v", left, lease.Err())
	}
	if err := server.Exec(ctx, "UPDATE rosterd.pairs SET term = term + 1"); err != nil {
		t.Fatal(err)
	}
	if left := p.told(ctx, lease.Term+1); left.Unknown || lease.Err() == nil {
		t.Errorf("the truth is not: %+v, %v", left, lease.Err())
	}
}

// An instance that was cut off, and learns only later that another one is active, may have
// answered refreshes meanwhile: all who are online are refreshed once more.
func TestTheOneBeforeEndsLate(t *testing.T) {
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var working, again atomic.Bool // again: it was started again
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if working.Load() {
			fmt.Fprintf(w, `{"status": "ok", "left": {"unknown": %t}}`, again.Load())
		} else { // nobody knows that it lives
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	t.Run("a proxy answers for it", func(t *testing.T) {
		before := httptest.NewServer(answer)
		defer before.Close()
		working.Store(false)
		endsLate(t, server, before.URL, true, func() { working.Store(true) })
	})
	t.Run("it is started again", func(t *testing.T) {
		before := httptest.NewServer(answer)
		defer before.Close()
		working.Store(false)
		again.Store(true)
		defer again.Store(false)
		endsLate(t, server, before.URL, true, func() { working.Store(true) })
	})
	t.Run("its port is closed afterwards", func(t *testing.T) {
		before := httptest.NewServer(answer)
		working.Store(false)
		endsLate(t, server, before.URL, true, before.Close)
	})
	t.Run("its port is closed", func(t *testing.T) {
		address := freeport.Of(t)
		before := httptest.NewUnstartedServer(answer)
		before.Listener.Close()
		working.Store(true)
		endsLate(t, server, "http://"+address, false, func() {
			if before.Listener, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
			before.Start()
			t.Cleanup(before.Close)
		})
	})
}

// endsLate has an instance at a URL that the one that takes over does not reach until it may.
func endsLate(t *testing.T, server *pgserver.Server, url string, doubtful bool, reached func()) {
	t.Helper()
	log := &logs{lines: make(chan string, 1000)}
	db, err := store.NewPair(server.URL(), "contacts.example.org", url, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cut, err := db.Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := cut.Open(store.Options{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	kept.PutResource(store.Resource{JID: "juliet@example.org/balcony", Connected: true}, true)
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	cut.Release(false)
	a := instance(t, server.URL(), log)
	defer a.stop()
	a.pair.stand()
	select {
	case lease := <-a.pair.active():
		if err := a.takeOver(lease); err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal("it does not take over")
	}
	reached()
	for {
		select {
		case line := <-log.lines:
			if strings.Contains(line, "this instance is the active one") && doubtful && !strings.Contains(line, "doubtful=true") {
				t.Errorf("what clients were told is not in doubt: %s", line)
			}
			if strings.Contains(line, "all are refreshed once more") {
				if !strings.Contains(line, "users=1") {
					t.Error(line)
				}
				return
			}
		case <-ctx.Done():
			log.mu.Lock()
			defer log.mu.Unlock()
			t.Fatalf("nobody is refreshed:\n%s", log.text.String())
		}
	}
}

// An instance that has lost its lease tells nobody any more that it is active.
func TestTellsNobodyWithoutALease(t *testing.T) {
	a, _, lease := withLease(t)
	lease.Lose()
	a.pair.tellAgain(lease, false, func() (refresh.Left, error) {
		t.Error("it tells")
		return refresh.Left{}, errors.New("no answer")
	})
}

// instance is one of a pair, which does not stand by yet.
func instance(t *testing.T, database string, log io.Writer) *app {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(`
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
refresh: {listen: "127.0.0.1:0", advertise: "http://127.0.0.1:1"}
metrics: {listen: "127.0.0.1:0"}
state: {url: "`+database+`"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // for the socket
	t.Setenv("STATE_DIRECTORY", "")
	cfg, _, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := assemble(cfg, slog.New(slog.NewTextHandler(log, nil)), new(metrics.Events))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// cutter relays connections to a database. The first one over which a client sends a text is
// cut then.
type cutter struct {
	net.Listener
	text string
	cut  atomic.Bool // it was
}

func (c *cutter) serve(database string) {
	for {
		client, err := c.Accept()
		if err != nil {
			return // the test has ended
		}
		server, err := net.Dial("tcp", database)
		if err != nil {
			client.Close()
			continue
		}
		go func() { defer client.Close(); _, _ = io.Copy(client, server) }()
		go func() {
			defer server.Close()
			defer client.Close()
			b := make([]byte, 1<<16)
			for {
				n, err := client.Read(b)
				if strings.Contains(string(b[:n]), c.text) && c.cut.CompareAndSwap(false, true) {
					return
				}
				if _, failed := server.Write(b[:n]); err != nil || failed != nil {
					return
				}
			}
		}()
	}
}

// The database goes away when an instance has the lease, while it reads what it needs to work.
// It has told nobody anything, and works when it can.
func TestDatabaseAwayAtATakeover(t *testing.T) {
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, reads := range []string{
		"SELECT value FROM (SELECT * FROM rosterd.meta", // when the instance before was alive
		"SELECT bare, resource, connected",
		"SELECT key, value FROM",
		"SELECT jid, why, since FROM",
	} {
		t.Run(reads, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c := &cutter{Listener: l, text: reads}
			go c.serve(server.Address())
			defer l.Close()
			a := instance(t, server.At(l.Addr().String(), "postgres"), t.Output())
			defer a.stop()
			a.pair.stand()
			for tries := 1; !a.working.Load(); tries++ {
				select {
				case lease := <-a.pair.active():
					if err := a.takeOver(lease); err != nil {
						t.Fatal(err)
					}
				case <-t.Context().Done():
					t.Fatal("it does not take over")
				}
				if cut := c.cut.Load(); !cut || tries == 1 && a.working.Load() {
					t.Fatalf("it works at try %d, cut %v", tries, cut)
				}
			}
		})
	}
}

// withLease is an instance on a PostgreSQL of its own, and the lease that it was given and has
// not taken over with.
func withLease(t *testing.T) (*app, *pgserver.Server, *store.Lease) {
	t.Helper()
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	a := instance(t, server.URL(), t.Output())
	t.Cleanup(func() { a.stop() })
	a.pair.stand()
	return a, server, <-a.pair.active()
}

// What cannot be read, however often it is tried, ends an instance that takes over.
func TestDamageAtATakeover(t *testing.T) {
	a, server, lease := withLease(t)
	if err := server.Exec(t.Context(), "ALTER TABLE rosterd.resources RENAME TO lost"); err != nil {
		t.Fatal(err)
	}
	if err := a.takeOver(lease); err == nil || errors.Is(err, store.ErrAway) {
		t.Errorf("it goes on: %v", err)
	}
}

// An instance whose lease is lost while it could not read stands by again.
func TestLostAtATakeover(t *testing.T) {
	a, _, lost := withLease(t)
	lost.Lose()
	if err := a.takeOver(lost); err != nil || a.working.Load() {
		t.Fatalf("%v, working %v", err, a.working.Load())
	}
	if err := a.takeOver(<-a.pair.active()); err != nil || !a.working.Load() || a.pair.lease.Term != lost.Term+1 {
		t.Errorf("%v, working %v", err, a.working.Load())
	}
}

// An instance that learns only while it stops that another one is active ends, whatever waits for
// its state to be written.
func TestSupersededWhileItStops(t *testing.T) {
	a, server, lease := withLease(t)
	if err := a.takeOver(lease); err != nil {
		t.Fatal(err)
	}
	if err := server.Exec(t.Context(), "UPDATE rosterd.pairs SET term = term + 1"); err != nil {
		t.Fatal(err)
	}
	a.stops = append(a.stops, func() {
		written := make(chan struct{})
		a.state.Mark("juliet@example.org", "")
		a.state.Sync(func() { close(written) })
		<-written
		if err := a.state.Err(); !errors.Is(err, store.ErrSuperseded) {
			t.Errorf("written: %v", err)
		}
	})
} // it stops

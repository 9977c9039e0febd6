package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/pgserver"
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
		peer, err := refresh.NewPeer(func() string { return "" }, nil, "")
		if err != nil {
			t.Fatal(err)
		}
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

package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rosterd/internal/freeport"
	"rosterd/internal/leak"
	"rosterd/internal/pgserver"
)

// domain is a pair's that no other test has.
func domain() string { return fmt.Sprintf("contacts%d.example.org", pairs.Add(1)) }

// statement executes a statement in the database of all tests.
func statement(t *testing.T, s *pgserver.Server, statement string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// within waits for an event.
func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain until %s", what)
		panic("")
	}
}

// One of two is active; the other one is when it has gone.
func TestOneIsActive(t *testing.T) {
	leak.Check(t)
	domain := domain()
	first, second := newPair(t, domain), newPair(t, domain)
	l, s := become(t, first, false)
	if l.Term != 1 || l.Before.Term != 0 || l.Doubtful() {
		t.Errorf("%+v", l.Before)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if _, err := second.Stand(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second one is active, too: %v", err)
	}
	active, err := second.Active(t.Context())
	if err != nil || active.Term != 1 || active.URL != "http://"+domain || active.Ended || active.Since.IsZero() {
		t.Errorf("%+v, %v", active, err)
	}
	s.PutUser(juliet(), true, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l.Release(true)
	l, s = become(t, second, false)
	defer l.Release(false)
	defer s.Close()
	if l.Term != 2 || l.Before.Term != 1 || !l.Before.Ended || l.Doubtful() || s.Ended().IsZero() {
		t.Errorf("%+v", l.Before)
	}
	(&state{Store: s, t: t}).want(juliet())
}

// The database ends the lock's session within 15 s when nothing is heard of it, be it that the
// machine has vanished or that the process is paused: then it is in a transaction.
func TestLockIsShortLived(t *testing.T) {
	domain := domain()
	p := newPair(t, domain)
	c, num, err := p.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(c)
	set := func(parameter string) (n int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "SELECT setting::integer FROM pg_settings WHERE name = $1", parameter).Scan(&n); err != nil || n <= 0 {
			t.Errorf("%s is %d, %v", parameter, n, err)
		}
		return n
	}
	const most = 15 // s
	if idle := set("tcp_keepalives_idle") + set("tcp_keepalives_interval")*set("tcp_keepalives_count"); idle > most {
		t.Errorf("a connection without an answer ends after %d s", idle)
	}
	for _, parameter := range []string{"tcp_user_timeout", "idle_in_transaction_session_timeout"} { // ms
		if set(parameter) > most*1000 {
			t.Errorf("%s is too long", parameter)
		}
	}

	l, err := p.Stand(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release(false)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for paused := ""; paused != "idle in transaction"; {
		err := c.QueryRow(ctx, "SELECT coalesce(a.state, '') FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND objid = $1 AND granted", uint32(num)).Scan(&paused)
		if err != nil {
			t.Fatalf("the lock's session is %q, %v", paused, err)
		}
	}
}

// At no moment does the lock's session have the lock and no transaction: a process that is paused
// between two of its steps would keep the lock for good. Who does not get the lock stays in none.
func TestLockIsInATransaction(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	domain := domain()
	p := newPair(t, domain)
	c, num, err := p.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(c)
	if locked, err := tryLock(ctx, c, num); err != nil || !locked {
		t.Fatalf("%v, %v", locked, err)
	}
	late, _, err := p.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(late)
	if locked, err := tryLock(ctx, late, num); err != nil || locked || late.PgConn().TxStatus() != 'I' {
		t.Errorf("the second one: %v, %c, %v", locked, late.PgConn().TxStatus(), err)
	}
	hangUp(c)

	// The writer of the one before hangs, so that the term begins at the second try.
	config := p.config.ConnConfig.Copy()
	config.RuntimeParams["application_name"] = applicationName(domain, "writes")
	hangs, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(hangs)
	if _, err := hangs.Exec(ctx, "BEGIN; UPDATE rosterd.pairs SET written = written WHERE domain = '"+domain+"'"); err != nil {
		t.Fatal(err)
	}
	locks, left := make(chan struct{}, 10), make(chan struct{}, 10)
	dial := p.config.ConnConfig.DialFunc
	p.config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return &overheard{Conn: c, locks: locks, left: left}, err
	}
	l, err := p.Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "it has the lock", locks)
	statement(t, postgresql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", applicationName(domain, "lock"))
	within(t, "it has the lock again", locks)
	await(t, "the next sign of life", func() bool { return l.Err() == nil })
	l.Release(false)
	if len(left) > 0 {
		t.Error("the lock's session was in no transaction")
	}
}

// overheard is a connection with what the server says on it.
type overheard struct {
	net.Conn
	locks chan<- struct{} // receives when it says that the lock is had
	left  chan<- struct{} // when it says afterwards that there is no transaction

	said   []byte // the beginning of a message
	locked bool
}

func (o *overheard) Read(b []byte) (n int, err error) {
	n, err = o.Conn.Read(b)
	for o.said = append(o.said, b[:n]...); len(o.said) >= 5; {
		length := 1 + int(binary.BigEndian.Uint32(o.said[1:]))
		if len(o.said) < length {
			break
		}
		switch message := string(o.said[:length]); {
		case strings.HasPrefix(message, "D") && message[5:] == "\x00\x01\x00\x00\x00\x01t": // a row, of one true as a text
			o.locked = true
			o.locks <- struct{}{}
		case message == "Z\x00\x00\x00\x05I" && o.locked:
			o.left <- struct{}{}
		}
		o.said = o.said[length:]
	}
	return n, err
}

// All that an instance does, it may do as the owner of its database alone, or of its schema.
func TestNoSuperuser(t *testing.T) {
	for _, owns := range []string{"database", "schema"} {
		t.Run(owns, func(t *testing.T) { testNoSuperuser(t, owns) })
	}
}

func testNoSuperuser(t *testing.T, owns string) {
	domain := domain()
	role := strings.NewReplacer(".", "_").Replace(domain)
	statement(t, postgresql, "CREATE ROLE "+role+" LOGIN")
	statement(t, postgresql, "CREATE DATABASE "+role)
	instance := func() *Pair {
		return newPairAt(t, "postgres://"+role+"@"+postgresql.Address()+"/"+role+"?sslmode=disable", domain)
	}
	if v, err := instance().Look(t.Context()); err != nil || v.Made || v.MayMake {
		t.Errorf("with no rights: %+v, %v", v, err)
	}
	if owns == "database" {
		statement(t, postgresql, "ALTER DATABASE "+role+" OWNER TO "+role)
	} else {
		administrator, err := pgx.Connect(t.Context(), postgresql.At(postgresql.Address(), role))
		if err != nil {
			t.Fatal(err)
		}
		defer hangUp(administrator)
		if _, err := administrator.Exec(t.Context(), "CREATE SCHEMA rosterd AUTHORIZATION "+role); err != nil {
			t.Fatal(err)
		}
	}
	first := instance()
	if v, err := first.Look(t.Context()); err != nil || v.Made || !v.MayMake {
		t.Errorf("%+v, %v", v, err)
	}
	l, s := become(t, first, false)
	s.PutUser(juliet(), true, nil)
	(&state{Store: s, t: t}).sync()
	if v, err := first.Look(t.Context()); err != nil || !v.Held {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := first.Size(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.Enter(t.Context(), []string{"juliet@example.org"}); err != nil {
		t.Error(err)
	}
	entries, err := l.Entries(t.Context(), 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
	if err := l.Strike(t.Context(), entries); err != nil {
		t.Error(err)
	}
	// It ends sessions of its own: here, one that hangs.
	c, err := s.db.executor.(*postgres).pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Exec(t.Context(), "BEGIN; UPDATE rosterd.pairs SET written = written"); err != nil {
		t.Fatal(err)
	}
	l.Release(false)
	l, s = become(t, instance(), false)
	defer l.Release(false)
	defer s.Close()
	(&state{Store: s, t: t}).want(juliet())
}

// Pairs do not see each other's rows.
func TestPairsApart(t *testing.T) {
	a, b := openPostgres(t), openPostgres(t)
	a.PutUser(juliet(), true, nil)
	a.PutResource(Resource{JID: "juliet@example.org/balcony"}, false)
	a.Mark("juliet@example.org", "why")
	a.PutServerRoster(hers(), nil)
	a.sync()
	b.none("juliet@example.org")
	b.wantServer("juliet@example.org", ServerRoster{})
	if all := b.all(); len(all) != 0 {
		t.Errorf("%q", all)
	}
	if behind, _, err := b.ServerRostersBehind(time.Now(), "", 10); err != nil || len(behind) > 0 {
		t.Errorf("%q, %v", behind, err)
	}
	b.DeleteUser("juliet@example.org")
	b.DeleteResource("juliet@example.org/balcony")
	b.Unmark("juliet@example.org")
	b.PutUser(User{JID: "juliet@example.org", Version: "other"}, true, nil)
	b.sync()
	a.want(juliet())
	a.wantServer("juliet@example.org", hers())
	if all := a.all(); len(all) != 2 {
		t.Errorf("%q", all)
	}
}

// When the database is back, the instance that was active has headStart to get its lock again:
// nobody else tries before, whether they stood by meanwhile or were started.
func TestActiveGoesFirst(t *testing.T) {
	leak.Check(t)
	for _, stands := range []bool{true, false} {
		t.Run(fmt.Sprintf("stood by %v", stands), func(t *testing.T) {
			t.Parallel()
			server, err := pgserver.Start()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			l, err := newPairAt(t, server.URL(), "contacts.example.org").Stand(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			other := newPairAt(t, server.URL(), "contacts.example.org")
			leases := make(chan *Lease, 1)
			stand := func(until func(err error) bool) {
				go func() {
					l, err := other.Stand(context.Background())
					if err != nil {
						t.Error(err)
					}
					leases <- l
				}()
				await(t, "the other one stands by as it should", func() bool { return until(other.Err()) })
			}
			reached := func(err error) bool { return err == nil }
			away := func(err error) bool { return errors.Is(err, ErrAway) }
			if stands {
				stand(reached)
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			l.Release(false)
			if !stands {
				stand(away)
			}
			began := time.Now()
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
			next := within(t, "the other one is active", leases)
			defer next.Release(false)
			if took := time.Since(began); took < headStart {
				t.Errorf("the other one is active %s after the database began to come back", took)
			}
		})
	}
}

// Of several servers, the one that can be written has the lock: not a replica, before a failover
// or during it, but once it is promoted.
func TestReplica(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	primary, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer primary.Close()
	replica, err := primary.Replica()
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	for _, set := range []string{"ALTER SYSTEM SET synchronous_commit = remote_apply", "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		statement(t, primary, set)
	}
	alone := newPairAt(t, replica.URL(), "contacts.example.org")
	if _, err := alone.Look(ctx); !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrAway) || strings.Count(err.Error(), "read-only") != 1 {
		t.Errorf("looked into a replica: %v", err)
	}
	if _, err := alone.stand(ctx, false); !errors.Is(err, ErrReadOnly) {
		t.Errorf("stood by at a replica: %v", err)
	}
	for _, first := range []*pgserver.Server{replica, primary} {
		second := primary
		if first == primary {
			second = replica
		}
		url := primary.At(first.Address()+","+second.Address(), "postgres") + "&target_session_attrs=any"
		p := newPairAt(t, url, "contacts.example.org")
		if want := first.Address() + "," + second.Address() + "/postgres"; p.where != want {
			t.Errorf("where it is: %s, want %s", p.where, want)
		}
		l, store := become(t, p, false)
		s := &state{Store: store, t: t}
		s.PutUser(juliet(), true, nil)
		s.sync()
		s.want(juliet())
		if first == replica {
			s.Close()
			l.Release(true)
			continue
		}
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		await(t, "the replica is tried", func() bool { return errors.Is(l.Err(), ErrReadOnly) })
		u := juliet()
		u.Version = "later"
		s.PutUser(u, true, nil)
		statement(t, replica, "SELECT pg_promote()")
		await(t, "the replica is written", func() bool { return l.Err() == nil && waiting(store) == 0 })
		s.want(u)
		if l.Term != 2 {
			t.Errorf("the term is %d", l.Term)
		}
		s.Close()
		l.Release(true)
	}
}

// A connection whose timeouts a pooler keeps from the server is of no use: who is paused would
// keep the lock.
func TestPooler(t *testing.T) {
	pooler, err := postgresql.Pooler()
	if err != nil {
		t.Fatal(err)
	}
	defer pooler.Close()
	p := newPairAt(t, postgresql.At(pooler.Address(), "postgres"), domain())
	defer p.Close()
	wantUnusable(t, p, ErrPooled, "idle_in_transaction_session_timeout is 0 there, and not 10000: a pooler (PgBouncer)")
}

// A PostgreSQL that is too old is of no use.
func TestOldPostgres(t *testing.T) {
	p := newPair(t, domain())
	p.oldest = 990000
	wantUnusable(t, p, ErrTooOld, "is too old: 99 or later is needed")
}

// wantUnusable has an instance neither look into its database nor stand by there, and say why.
func wantUnusable(t *testing.T, p *Pair, kind error, text string) {
	t.Helper()
	if _, err := p.Look(t.Context()); !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("looked: %v", err)
	}
	if _, err := p.stand(t.Context(), false); !errors.Is(err, kind) || !errors.Is(err, ErrAway) {
		t.Errorf("stood by: %v", err)
	}
}

// A server that cannot be written any more keeps no lock: the active one goes on from memory,
// and looks for a server that can. When it can again, all is as before.
func TestReadOnlyMeanwhile(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := newPairAt(t, server.URL(), "contacts.example.org")
	l, store := become(t, p, false)
	defer l.Release(false)
	s := &state{Store: store, t: t}
	s.sync()
	if err := p.Enter(ctx, nil); err != nil { // with a connection that stays
		t.Fatal(err)
	}
	statement(t, server, "ALTER SYSTEM SET default_transaction_read_only = on")
	statement(t, server, "SELECT pg_reload_conf()")
	await(t, "the lease knows", func() bool { return errors.Is(l.Err(), ErrReadOnly) })
	s.PutUser(juliet(), true, nil)
	s.sync() // is called, though it is not written
	if err := s.Err(); !errors.Is(err, ErrAway) {
		t.Errorf("the state's error is %v", err)
	}
	if err := p.Enter(ctx, []string{"juliet"}); !errors.Is(err, ErrAway) {
		t.Errorf("entered: %v", err)
	}
	await(t, "no connection to a server that is read-only is kept", func() bool { return p.pool.Stat().TotalConns() == 0 })
	statement(t, server, "ALTER SYSTEM RESET default_transaction_read_only")
	statement(t, server, "SELECT pg_reload_conf()")
	await(t, "all is written", func() bool { return l.Err() == nil && waiting(store) == 0 })
	s.want(juliet())
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Who had the lock and lost it writes nothing any more, and nobody who waits is called,
// before it is given up.
func TestOlderTermIsRefused(t *testing.T) {
	domain := domain()
	l1, old := become(t, newPair(t, domain), false)
	defer l1.Release(false)
	old.PutUser(User{JID: "juliet@example.org", Version: "first"}, false, nil)
	(&state{Store: old, t: t}).sync()
	standing := newPair(t, domain)
	leases := make(chan *Lease)
	go func() {
		l, err := standing.Stand(context.Background())
		if err != nil {
			t.Error(err)
		}
		leases <- l
	}()
	// The old one does not know it yet when it writes: its watch is over.
	l1.stop()
	l1.working.Wait()
	l2 := within(t, "the second one is active", leases)
	defer l2.Release(false)
	called := make(chan struct{}, 2)
	old.PutUser(User{JID: "juliet@example.org", Version: "late"}, false, func() { called <- struct{}{} })
	within(t, "the first one knows", l1.Lost())
	old.Sync(func() { called <- struct{}{} })
	select {
	case <-called:
		t.Error("it says that it is written")
	case <-time.After(100 * time.Millisecond): // nothing is to happen
	}
	if !errors.Is(l1.Err(), ErrSuperseded) {
		t.Error(l1.Err())
	}
	old.Abandon()
	within(t, "all are called", called)
	within(t, "all are called", called)
	if err := old.Close(); !errors.Is(err, ErrSuperseded) {
		t.Error(err)
	}
	s, err := l2.Open(Options{}, l2.Doubtful(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	(&state{Store: s, t: t}).want(User{JID: "juliet@example.org", Version: "first"})
}

// A database that was put back to an older copy gives the number of a term once more. The one that
// had it before writes nothing, neither a row nor that it has ended, and knows that it is over.
func TestSameTermTwice(t *testing.T) {
	domain := domain()
	p := newPair(t, domain)
	l1, old := become(t, p, false)
	defer l1.Release(false)
	old.PutUser(User{JID: "juliet@example.org", Version: "first"}, false, nil)
	(&state{Store: old, t: t}).sync()
	l1.stop()
	l1.working.Wait()
	if err := p.Enter(t.Context(), []string{"romeo"}); err != nil {
		t.Fatal(err)
	}
	entries, err := l1.Entries(t.Context(), 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	statement(t, postgresql, "UPDATE rosterd.pairs SET term = term - 1 WHERE domain = '"+domain+"'")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l2, err := newPair(t, domain).Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Release(false)
	if l2.Term != l1.Term {
		t.Fatalf("the terms are %d and %d", l1.Term, l2.Term)
	}
	if err := l1.Strike(t.Context(), entries); !errors.Is(err, ErrSuperseded) {
		t.Errorf("struck out: %v", err)
	}
	c, _, err := p.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l1.beat(c); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the sign of life: %v", err)
	}
	l1.clean = true
	l1.resign(c)
	if active, err := p.Active(t.Context()); err != nil || active.Ended {
		t.Errorf("%+v, %v", active, err)
	}
	old.PutUser(User{JID: "juliet@example.org", Version: "late"}, false, nil)
	within(t, "the first one knows", l1.Lost())
	old.Abandon()
	old.Close()
	s, err := l2.Open(Options{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	(&state{Store: s, t: t}).want(User{JID: "juliet@example.org", Version: "first"})
	// Nor does it get its lock again, once the other one has gone.
	l2.Release(false)
	if _, err := l1.regainOnce(ctx, 0); !errors.Is(err, ErrSuperseded) {
		t.Errorf("regained: %v", err)
	}
}

// While the database is away, what is put waits, nobody waits for it, and the lease stays.
func TestDatabaseAway(t *testing.T) {
	leak.Check(t)
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := newPairAt(t, server.URL(), "contacts.example.org")
	l, store := become(t, p, false)
	defer l.Release(false)
	s := &state{Store: store, t: t}
	s.PutUser(User{JID: "romeo@example.net", Version: "old"}, false, nil)
	s.sync()
	for _, end := range []func() error{server.Stop, server.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		u := juliet()
		u.Version = fmt.Sprint(time.Now())
		s.PutUser(u, true, nil)
		s.sync() // is called, though it is not written
		s.want(u)
		if _, err := s.User("romeo@example.net"); err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, ErrClosed) {
			t.Errorf("a row that cannot be read: %v", err)
		}
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), server.Address()+"/postgres") {
			t.Errorf("the error %v does not name the database", err)
		}
		await(t, "the lease knows", func() bool { return l.Err() != nil })
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		await(t, "all is written", func() bool { return l.Err() == nil && waiting(s.Store) == 0 })
		s.want(u)
	}
	select {
	case <-l.Lost():
		t.Error("the lease is lost")
	default:
	}
	// A standby that lost the database, too, trusts nothing.
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	l.Release(true)
}

// What could not be written is handed over, and written by the next one.
func TestHandedOver(t *testing.T) {
	domain := domain()
	l1, old := become(t, newPair(t, domain), false)
	s1 := &state{Store: old, t: t}
	s1.PutUser(User{JID: "romeo@example.net", Roster: []byte("old"), Version: "old"}, true, nil)
	s1.PutUser(User{JID: "paris@example.net"}, true, nil)
	s1.Mark("paris@example.net", "why")
	s1.sync()
	standing := newPair(t, domain)
	leases := make(chan *Lease)
	go func() {
		l, err := standing.Stand(context.Background())
		if err != nil {
			t.Error(err)
		}
		leases <- l
	}()
	l1.stop()
	l1.working.Wait()
	l2 := within(t, "the second one is active", leases)
	defer l2.Release(false)
	s1.PutUser(juliet(), true, nil)
	s1.PutUser(User{JID: "romeo@example.net", Version: "new"}, false, nil)
	s1.PutResource(Resource{JID: "juliet@example.org/balcony", Connected: true}, true)
	s1.PutServerRoster(hers(), nil)
	s1.Mark("juliet@example.org", "why not")
	s1.DeleteUser("paris@example.net")
	s1.Unmark("paris@example.net")
	within(t, "the first one knows", l1.Lost())
	s1.Abandon()
	left, err := s1.Unwritten()
	if err != nil {
		t.Fatal(err)
	}
	s1.Close()
	store, err := l2.Open(Options{}, false, left)
	if err != nil {
		t.Fatal(err)
	}
	s2 := &state{Store: store, t: t}
	defer s2.Close()
	for range 2 {
		if u, err := s2.User("juliet@example.org"); err != nil || !u.Unsure {
			t.Errorf("her last answers are sure: %v", err)
		}
		s2.want(juliet())
		s2.want(User{JID: "romeo@example.net", Roster: []byte("old"), Version: "new"})
		s2.none("paris@example.net")
		s2.wantServer("juliet@example.org", hers())
		if all := s2.all(); len(all) != 2 || all[0] != "juliet@example.org: why not" {
			t.Errorf("%q", all)
		}
		s2.sync()
	}
	if _, err := l2.Open(Options{}, false, []byte("garbage")); err == nil {
		t.Error("garbage is taken")
	}
}

// Who takes over from one that hangs in a transaction ends the connections of that one, and
// none of a pair of the same name in another database of the server.
func TestHangingTransaction(t *testing.T) {
	domain := domain()
	name, err := postgresql.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newPairAt(t, postgresql.At(postgresql.Address(), name), domain)
	other, s := become(t, elsewhere, false)
	defer other.Release(false)
	(&state{Store: s, t: t}).sync()
	connected := func() (pids []int32) {
		t.Helper()
		err := elsewhere.pool.QueryRow(t.Context(), "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE application_name = $1 AND datname = $2",
			applicationName(domain, "writes"), name).Scan(&pids)
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	before := connected()
	if len(before) == 0 {
		t.Fatal("the other pair has no connection")
	}
	l, old := become(t, newPair(t, domain), false)
	(&state{Store: old, t: t}).sync()
	c, err := old.db.executor.(*postgres).pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Exec(t.Context(), "BEGIN; UPDATE rosterd.pairs SET written = written WHERE domain = '"+domain+"'"); err != nil {
		t.Fatal(err)
	}
	l.Release(false)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, err := newPair(t, domain).stand(ctx, false) // at once, not when that one's time is over
	if err != nil {
		t.Fatal(err)
	}
	next.Release(false)
	after := connected()
	for _, pid := range before {
		if !slices.Contains(after, pid) {
			t.Errorf("connections of the other pair: %v, there were %v", after, before)
		}
	}
}

// What is promised, as it is said to be written, is not where nothing is written any more:
// neither in the store nor of whom was entered.
func TestNothingIsPromised(t *testing.T) {
	domain := domain()
	p := newPair(t, domain)
	l, s := become(t, p, false)
	defer l.Release(false)
	if err := p.Enter(t.Context(), []string{"juliet@example.org"}); err != nil {
		t.Fatal(err)
	}
	entries, err := l.Entries(t.Context(), 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	statement(t, postgresql, "UPDATE rosterd.pairs SET term = term + 1 WHERE domain = '"+domain+"'")
	if err := l.Strike(t.Context(), entries); !errors.Is(err, ErrSuperseded) {
		t.Errorf("struck out: %v", err)
	}
	if entries, err := l.Entries(t.Context(), 10); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	called := make(chan struct{})
	s.Mark("juliet@example.org", "why")
	s.Sync(func() { close(called) })
	within(t, "the first one knows", l.Lost())
	s.Abandon()
	within(t, "who waits is called", called)
	if err := s.Err(); !errors.Is(err, ErrSuperseded) {
		t.Errorf("written: %v", err)
	}
}

// Who gives up before it has written that all are in doubt says so.
func TestDoubtIsHandedOver(t *testing.T) {
	domain := domain()
	l, err := newPair(t, domain).Stand(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release(false)
	statement(t, postgresql, "UPDATE rosterd.pairs SET term = term + 1 WHERE domain = '"+domain+"'") // nothing can be written any more
	s, err := l.Open(Options{}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Mark("juliet@example.org", "why")
	s.Abandon()
	if left, err := s.Unwritten(); !errors.Is(err, errDoubts) || len(left) == 0 {
		t.Errorf("%q, %v", left, err)
	}
}

// When the lock is gone and another one has it, that is known at once.
func TestLockLost(t *testing.T) {
	domain := domain()
	l1, s1 := become(t, newPair(t, domain), false)
	defer l1.Release(false)
	defer s1.Close()
	ends := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
	// With nobody else, it has it again.
	statement(t, postgresql, ends, applicationName(domain, "lock"))
	(&state{Store: s1, t: t}).sync()
	s1.Close() // it would be refused, and know it by that
	standing := newPair(t, domain)
	leases := make(chan *Lease)
	go func() {
		l, err := standing.Stand(context.Background())
		if err != nil {
			t.Error(err)
		}
		leases <- l
	}()
	for ended := false; !ended; {
		statement(t, postgresql, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted", uint32(l1.num))
		select {
		case l2 := <-leases:
			defer l2.Release(false)
			within(t, "the first one knows", l1.Lost())
			ended = true
		case <-time.After(300 * time.Millisecond): // the first one has had it again
		}
	}
}

// Everybody is in doubt, whatever their answers say, and their epochs are beyond all that
// were told.
func TestDoubtful(t *testing.T) {
	domain := domain()
	told := []Told{{Resource: "balcony", Asked: moment0}}
	l, s := become(t, newPair(t, domain), false)
	s.PutUser(User{JID: "juliet", Epoch: 7, Answered: moment0, Told: told}, false, nil)
	s.PutUser(User{JID: "romeo", Epoch: 7, Answered: moment0}, false, nil)
	s.PutServerRoster(ServerRoster{JID: "juliet"}, nil)
	s.Close()
	l.Release(true)
	l, s = become(t, newPair(t, domain), true)
	defer l.Release(false)
	defer s.Close()
	for range 2 { // before it is written, and afterwards
		u, err := s.User("juliet")
		if err != nil || !u.Unsure || !u.Answered.IsZero() || u.Epoch != 7+epochsUnknown {
			t.Errorf("%+v, %v", u, err)
		}
		if u, err := s.User("romeo"); err != nil || u.Epoch != 7 || u.Answered != moment0 {
			t.Errorf("%+v, %v", u, err)
		}
		if r, err := s.ServerRoster("juliet"); err != nil || !r.Writing {
			t.Errorf("%+v, %v", r, err)
		}
		(&state{Store: s, t: t}).sync()
	}
}

// Who did not end in order is doubted if it has not written for long.
func TestDoubtfulBefore(t *testing.T) {
	for _, test := range []struct {
		before Term
		cut    bool
		want   bool
	}{
		{Term{}, true, false},
		{Term{Term: 1, Ended: true, quiet: time.Hour}, true, false},
		{Term{Term: 1, quiet: time.Second}, false, false},
		{Term{Term: 1, quiet: time.Second}, true, true},
		{Term{Term: 1, quiet: time.Second, away: true}, false, true},
		{Term{Term: 1, quiet: quietFor + 1}, false, true},
	} {
		if got := (&Lease{Before: test.before, cut: test.cut}).Doubtful(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// An instance that takes over and is killed before it has written whom to doubt leaves that
// to the next one.
func TestDoubtOutlivesATakeover(t *testing.T) {
	domain := domain()
	l, s := become(t, newPair(t, domain), false)
	(&state{Store: s, t: t}).sync()
	s.Close()
	statement(t, postgresql, "UPDATE rosterd.pairs SET written = now() - interval '1 hour' WHERE domain = '"+domain+"'") // as after an hour without the database
	l.Release(false)
	for n := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		l, err := newPair(t, domain).Stand(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !l.Doubtful() {
			t.Errorf("%d: nothing is in doubt", n)
		}
		l.Release(false) // it opens nothing
	}
	l, s = become(t, newPair(t, domain), true)
	(&state{Store: s, t: t}).sync()
	s.Close()
	l.Release(false)
	l, _ = become(t, newPair(t, domain), false)
	defer l.Release(false)
	if l.Before.quiet > quietFor {
		t.Errorf("the one before wrote, and was quiet for %v", l.Before.quiet)
	}
}

// Whom the one enters that stands by, the active one finds, until it strikes them out; who
// is entered again meanwhile stays.
func TestEntered(t *testing.T) {
	domain := domain()
	first, second := newPair(t, domain), newPair(t, domain)
	if err := second.Enter(t.Context(), []string{"juliet"}); err == nil {
		t.Error("entered without a database")
	}
	l, s := become(t, first, false)
	defer l.Release(false)
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	standing := make(chan struct{})
	go func() { second.Stand(ctx); close(standing) }()
	defer func() { stop(); <-standing }()
	await(t, "the second one reaches the database", func() bool { return second.Err() == nil })
	enter := func(users ...string) {
		if err := second.Enter(t.Context(), users); err != nil {
			t.Fatal(err)
		}
	}
	entries := func(want ...string) []Entry {
		t.Helper()
		all, err := l.Entries(t.Context(), 100)
		var got []string
		for _, e := range all {
			got = append(got, e.JID)
		}
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
		return all
	}
	entries()
	enter("juliet", "romeo", "juliet")
	within(t, "the active one is told", l.Entered())
	all := entries("juliet", "romeo")
	enter("juliet")
	if err := l.Strike(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	all = entries("juliet")
	if err := l.Strike(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	entries()
	// Not without bound, and one call may meet it.
	second.most = 2
	enter("juliet")
	enter("mercutio", "romeo")
	for _, user := range []string{"tybalt", "juliet"} {
		if err := second.Enter(t.Context(), []string{user}); !errors.Is(err, ErrManyEntered) {
			t.Errorf("one more: %v", err)
		}
	}
	if err := l.Strike(t.Context(), entries("juliet", "mercutio", "romeo")); err != nil {
		t.Fatal(err)
	}
	enter("tybalt")
	entries("tybalt")
}

// A text that PostgreSQL does not take keeps nothing from being written.
func TestTextsOfOthers(t *testing.T) {
	s := openPostgres(t)
	s.Mark("juliet@example.org", "no\x00 \xff")
	s.PutUser(juliet(), true, nil)
	s.sync()
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	s.again()
	s.want(juliet())
	if all := s.all(); len(all) != 1 || all[0] != "juliet@example.org: no\uFFFD \uFFFD" {
		t.Errorf("%q", all)
	}
}

// A row that is not what was put is damaged, no other user's, and not away.
func TestPostgresDamaged(t *testing.T) {
	s := openPostgres(t)
	s.PutUser(juliet(), true, nil)
	s.sync()
	num := s.db.executor.(*postgres).pair
	for _, update := range []string{"UPDATE rosterd.rosters SET roster = 'x' WHERE pair = $1", "UPDATE rosterd.users SET told = 'x' WHERE pair = $1",
		"UPDATE rosterd.users SET answered = 'x' WHERE pair = $1"} {
		statement(t, postgresql, update, num)
		if _, err := s.User(juliet().JID); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", update, err)
		}
		s.PutUser(juliet(), true, nil)
		s.sync()
		s.want(juliet())
	}
}

// What cannot be opened is said, without a secret.
func TestPairErrors(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://rosterd:s3cret@[::/x": "IPv6", "mysql://rosterd:s3cret@localhost/x": "", "host=localhost password=s3cret port=x": "invalid port",
		"postgres://rosterd:s3cret@localhost/x?sslmode=perhaps": "sslmode is invalid", "postgres://rosterd:s3cret@localhost/x?target_session_attrs=perhaps": "target_session_attrs",
		"postgres://rosterd:s3cret@localhost:0/x":                                               "invalid port",
		"postgres://rosterd:s3cret@localhost/x?sslmode=verify-full&sslrootcert=/nowhere/ca.pem": "cannot be used: unable to read CA file: open /nowhere/ca.pem: no such file",
	} {
		p, err := NewPair(url, "contacts.example.org", "", nil)
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "rosterd:") || strings.Contains(err.Error(), "not the URL") {
			t.Errorf("%s: %v", url, err)
		}
	}
	nowhere := newPairAt(t, "postgres://rosterd@"+freeport.Of(t)+"/rosterd", "contacts.example.org") // tried with and without TLS
	if _, err := nowhere.Look(t.Context()); !errors.Is(err, ErrAway) || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "refused") != 1 {
		t.Errorf("nothing listens: %v", err)
	}
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l, s := become(t, newPairAt(t, server.URL(), "contacts.example.org"), false)
	s.Close()
	l.Release(true)
	for _, all := range []string{"UPDATE rosterd.version SET version = 99", "CREATE ROLE other LOGIN PASSWORD 's3cret'", "CREATE DATABASE another"} {
		statement(t, server, all)
	}
	if _, err := newPairAt(t, server.URL(), "contacts.example.org").Stand(t.Context()); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
	p := newPairAt(t, "postgres://other:s3cret@"+server.Address()+"/another?sslmode=disable", "contacts.example.org")
	if _, err := p.stand(t.Context(), false); err == nil || !strings.Contains(err.Error(), "GRANT CREATE ON DATABASE") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a role that may not make the schema: %v", err)
	}
}

// A process that was paused for longer than the lock may live tells clients nothing before the
// database has said that it is the active one still, and nothing at all if another one is.
func TestPausedTellsNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, superseded := range []bool{false, true} {
		l, err := newPair(t, domain()).Stand(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release(false)
		if !may(l) {
			t.Error("it may not tell anything to begin with")
		}
		answer := hold(ctx, t, l)
		pause(l)
		if may(l) {
			t.Error("it goes on before the database has answered")
		}
		if superseded {
			answer(fmt.Sprint("UPDATE rosterd.pairs SET term = term + 1 WHERE pair = ", l.num))
		} else {
			answer("")
		}
		if err := l.Confirm(ctx); superseded && !errors.Is(err, ErrSuperseded) || !superseded && err != nil {
			t.Errorf("superseded %v: %v", superseded, err)
		}
	}
}

// While the database cannot be reached, clients are told all that they would be. One try of a
// process that was paused during it says nothing.
func TestPausedWithoutDatabase(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l, err := newPairAt(t, server.URL(), "contacts.example.org").Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		pause(l)
		if err := l.Confirm(ctx); err != nil {
			t.Fatal(err)
		}
	}
	l.Release(false)
	pause(l)
	if l.tried(time.Now().Add(-sureFor)); may(l) {
		t.Error("a try that took too long counts")
	}
	if l.tried(time.Now()); !may(l) {
		t.Error("a try does not count")
	}
}

// Whom the other one tells may say what it has begun, as that one waits; whom the database
// tells may not.
func TestToldFinishes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := newPair(t, domain()).Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release(false)
	if l.Lose(); !may(l) {
		t.Error("who is told may not finish")
	}
	if l.superseded(); may(l) {
		t.Error("who is superseded goes on")
	}
}

// may reports whether clients may be told something at once.
func may(l *Lease) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return l.Confirm(ctx) == nil
}

// pause does to a lease what a pause of the process does.
func pause(l *Lease) {
	past := time.Now().Add(-time.Minute)
	l.sure.Store(&past)
}

// hold holds back the database's answer to the sign of life that comes next, and waits for
// that. answer lets it go on, when a statement is executed.
func hold(ctx context.Context, t *testing.T, l *Lease) (answer func(statement string)) {
	t.Helper()
	c, err := pgx.Connect(ctx, postgresql.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(c) })
	if _, err := c.Exec(ctx, "BEGIN; LOCK TABLE rosterd.pairs"); err != nil {
		t.Fatal(err)
	}
	for held := false; !held; time.Sleep(time.Millisecond) {
		err := c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock')", applicationName(l.pair.domain, "lock")).Scan(&held)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
			t.Fatal(err)
		}
	}
	return func(statement string) {
		t.Helper()
		if _, err := c.Exec(ctx, statement+"; COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
}

// mute is a connection over which nothing comes or goes once silent is closed.
type mute struct {
	net.Conn
	silent <-chan struct{}
}

func (m *mute) isSilent() bool {
	select {
	case <-m.silent:
		return true
	default:
		return false
	}
}

func (m *mute) Read(b []byte) (n int, err error) {
	for {
		if n, err = m.Conn.Read(b); err != nil || !m.isSilent() {
			return n, err
		}
	}
}

func (m *mute) Write(b []byte) (int, error) {
	if m.isSilent() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// An instance that ends does not wait for a database that says nothing: its whole stop takes
// less than 10 s.
func TestCloseWithoutAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	silent := make(chan struct{})
	p := newPair(t, domain())
	p.pool.Close()
	dial := p.config.ConnConfig.DialFunc
	p.config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &mute{c, silent}, nil
	}
	var err error
	if p.pool, err = p.newPool("stands by", 2); err != nil {
		t.Fatal(err)
	}
	l, err := p.Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.Release(true)
	if _, err := p.Active(ctx); err != nil {
		t.Fatal(err)
	}
	close(silent)
	now, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if _, err := p.Active(now); err == nil {
		t.Fatal("the database has answered")
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		p.Close()
	}()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the database")
	}
}

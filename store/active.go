package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	lockClass  = 0x726f7374 // "rost": of all advisory locks that are rosterd's
	lookEvery  = 200 * time.Millisecond
	beatEvery  = time.Second
	reachEvery = 500 * time.Millisecond
	headStart  = 3 * time.Second

	leaseFor = 10 * time.Second // silence of the lock's connection, after which the server ends it
	// sureFor is how long clients may be told something after one sign of life, or one try to
	// reach the database. It leaves 2 s for what is being sent. The next one ends answerWithin and
	// beatEvery later at most, unless the process is paused.
	sureFor = leaseFor - 2*time.Second
)

// Pair is the PostgreSQL database of the instances that serve one component, of which one at
// a time is active: the one that has the advisory lock of the pair. Its methods are safe for
// concurrent use.
type Pair struct {
	domain, advertise, where string
	config                   *pgxpool.Config
	logger                   *slog.Logger
	pool                     *pgxpool.Pool // for what stands by
	grace                    *grace
	oldest                   int // PostgreSQL that is good: minVersion, but for tests
	most                     int // users who are entered: maxEntered, but for tests

	mu  sync.Mutex // guards all below
	num int        // the pair's number; 0: not known yet
	err error
}

// NewPair is the database at a URL, for the component of a domain. advertise is how the
// other instance reaches this one. It does not connect yet. Errors do not have the URL.
func NewPair(url, domain, advertise string, logger *slog.Logger) (*Pair, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		if cause, ok := errors.AsType[*pgconn.ParseConfigError](err); ok { // its text has the URL in front
			if err = cause.Unwrap(); err == nil {
				_, why, _ := strings.Cut(cause.Error(), "`: ")
				err = errors.New(why)
			}
		}
		return nil, fmt.Errorf("the URL, or a setting in it, cannot be used: %w", err)
	}
	c := config.ConnConfig
	where := strings.Join(hosts(c), ",") + "/" + c.Database
	p := &Pair{domain: domain, advertise: advertise, where: where, config: config, logger: logger, grace: newGrace(), oldest: minVersion, most: maxEntered, err: errors.New("not connected to the database yet")}
	p.configure(c)
	if p.pool, err = p.newPool("stands by", 2); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Pair) newPool(as string, connections int32) (*pgxpool.Pool, error) {
	config := p.config.Copy()
	config.MinConns, config.MaxConns = 0, connections
	config.ConnConfig.RuntimeParams["application_name"] = applicationName(p.domain, as)
	return pgxpool.NewWithConfig(context.Background(), config)
}

// applicationName is what a connection is called in pg_stat_activity, which takes 63 bytes.
func applicationName(domain, as string) string {
	name := "rosterd " + as + " " + domain
	if len(name) > 63 {
		sum := fnv.New32a()
		sum.Write([]byte(name))
		name = fmt.Sprintf("%s %08x", name[:54], sum.Sum32())
	}
	return name
}

// String is where the database is, without a password.
func (p *Pair) String() string { return "postgres://" + p.where }

// End says that this instance ends: the database is not waited for for long any more, not by
// its lease, nor by its store. It may be called again.
func (p *Pair) End() { p.grace.end() }

// Close closes the connections that are not a lease's.
func (p *Pair) Close() { p.grace.closePool(p.pool) }

// Err is why the database cannot be reached by who stands by, or nil.
func (p *Pair) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *Pair) set(num int, err error) {
	p.mu.Lock()
	before := p.err
	if p.err = err; num != 0 {
		p.num = num
	}
	p.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		p.logger.Error("the database cannot be reached: this instance cannot become the active one", "err", err)
	case err == nil && before != nil:
		p.logger.Info("the database is reached", "database", p.where)
	}
}

func (p *Pair) number() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.num == 0 {
		return 0, p.err
	}
	return p.num, nil
}

// Term is who is active, or was last.
type Term struct {
	Term  int64
	URL   string        // its advertise; "": it has none
	Since time.Time     // when it became active; zero: nobody ever was
	Ended bool          // in order; else it is active, or was killed
	quiet time.Duration // since it wrote last
	away  bool          // the database was restarted since
}

// Active is the present term.
func (p *Pair) Active(ctx context.Context) (Term, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	num, err := p.number()
	if err != nil {
		return Term{}, err
	}
	t, err := readTerm(ctx, p.pool, num, "")
	return t, explain(p.where, err)
}

// querier is a connection, a transaction or a pool.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readTerm(ctx context.Context, q querier, num int, lock string) (t Term, err error) {
	var since *time.Time
	var quiet float64
	var away *bool
	err = q.QueryRow(ctx, `SELECT term, active, since, ended, coalesce(extract(epoch FROM clock_timestamp() - written), 0)::float8,
		written < pg_postmaster_start_time() FROM rosterd.pairs WHERE pair = $1 `+lock, num).Scan(&t.Term, &t.URL, &since, &t.Ended, &quiet, &away)
	if since != nil {
		t.Since = *since
	}
	t.away = away != nil && *away
	t.quiet = time.Duration(quiet * float64(time.Second))
	return t, err
}

// maxEntered bounds the users who are entered. Beyond, nobody is, but for those of the call that
// meets it.
const maxEntered = 1_000_000

// ErrManyEntered is why nobody is entered.
var ErrManyEntered = errors.New("too many users are entered to be refreshed")

// Enter says whom the active instance has to refresh. It is kept when Enter returns.
func (p *Pair) Enter(ctx context.Context, users []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	num, err := p.number()
	if err != nil {
		return err
	}
	entered, err := p.pool.Exec(ctx, `INSERT INTO rosterd.entered (pair, jid) SELECT DISTINCT $1::integer, jid FROM unnest($2::text[]) AS jid
		WHERE (SELECT count(*) FROM (SELECT FROM rosterd.entered WHERE pair = $1 LIMIT $3) AS entered) < $3
		ON CONFLICT (pair, jid) DO UPDATE SET id = DEFAULT`, num, users, p.most)
	if err == nil && entered.RowsAffected() == 0 && len(users) > 0 {
		return ErrManyEntered
	}
	return explain(p.where, err)
}

// Stand waits until this instance is the active one, or until ctx ends. It fails for good if
// the database is of a newer rosterd.
func (p *Pair) Stand(ctx context.Context) (*Lease, error) {
	for failed := false; ; failed = true {
		l, err := p.stand(ctx, failed)
		if err == nil || errors.Is(err, ErrNewer) {
			return l, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.set(0, err)
		select {
		case <-ctx.Done():
		case <-time.After(reachEvery):
		}
	}
}

// stand waits with one connection. failed says that it is not the first.
func (p *Pair) stand(ctx context.Context, failed bool) (*Lease, error) {
	c, num, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	p.set(num, nil)
	reached := time.Now()
	if failed { // The one that is active lost its lock, too, when the database went away: it goes first.
		select {
		case <-ctx.Done():
		case <-time.After(headStart):
		}
	}
	for {
		began := time.Now()
		locked, err := tryLock(ctx, c, num)
		if err == nil && locked {
			l := &Lease{pair: p, num: num, lost: make(chan struct{}), entered: make(chan struct{}, 1)}
			l.sureSince(began)
			if err = l.begin(ctx, c); err == nil {
				l.cut = failed && time.Since(reached) < 30*time.Second
				holding, stop := context.WithCancel(context.Background())
				l.stop = stop
				l.working.Go(func() { l.hold(holding, c) })
				return l, nil
			}
		}
		if err != nil {
			hangUp(c)
			return nil, explain(p.where, err)
		}
		select {
		case <-ctx.Done():
			hangUp(c)
			return nil, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// connect connects with a connection for the lock.
func (p *Pair) connect(ctx context.Context) (*pgx.Conn, int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerWithin)
	defer cancel()
	config := p.config.ConnConfig.Copy()
	config.RuntimeParams["application_name"] = applicationName(p.domain, "lock")
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, 0, explain(p.where, err)
	}
	num, err := ensure(ctx, c, p.domain)
	if err != nil {
		hangUp(c)
		return nil, 0, explain(p.where, err)
	}
	return c, num, nil
}

// hangUp closes a connection without waiting for long.
func hangUp(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it may be dead
}

// tryLock tries to get the lock. If it does, the connection is in a transaction, and stays in
// one from then on, see [Lease]: at no moment can a process be paused and keep the lock. The
// lock is the session's, and outlives each transaction.
func tryLock(ctx context.Context, c *pgx.Conn, num int) (locked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	results, err := c.PgConn().Exec(ctx, fmt.Sprintf("BEGIN; SELECT pg_try_advisory_lock(%d, %d)", lockClass, num)).ReadAll()
	if err != nil {
		return false, err
	}
	if locked = string(results[1].Rows[0][0]) == "t"; !locked {
		_, err = c.Exec(ctx, "COMMIT")
	}
	return locked, err
}

// Lease is that this instance is the active one. Its methods are safe for concurrent use.
//
// It has a connection of its own, with the advisory lock, in a transaction from the lock on, which
// begins anew each second: the server ends it, and the lock with it, when it hears nothing for 10 s, be
// it that the machine has gone or that the process is paused.
type Lease struct {
	Term   int64
	Since  time.Time
	Before Term // the one before
	pair   *Pair
	num    int
	cut    bool          // the database was away for us, too, a short time ago
	ahead  time.Duration // that this machine's clock is, of the database's, as far as is sure

	sure atomic.Pointer[time.Time] // until when clients may be told something; mu is held to set it

	lost    chan struct{}
	entered chan struct{} // capacity 1

	mu    sync.Mutex // guards all below
	why   error      // why it is lost
	away  error      // why the database cannot be reached; nil: it is
	clean bool       // all is written

	stop    context.CancelFunc
	working sync.WaitGroup
}

// begin begins a term. The lock is held, in a transaction, and so it is afterwards.
func (l *Lease) begin(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*answerWithin)
	defer cancel()
	for again := false; ; again = true {
		began := time.Now()
		err := l.writeTerm(ctx, c)
		if code(err) != "55P03" || again {
			// The database's time is of some moment between.
			if l.ahead = began.Sub(l.Since); l.ahead < 0 {
				l.ahead = min(0, l.ahead+time.Since(began))
			}
			return err
		}
		// One that was paused in a transaction.
		if _, err := c.Exec(ctx, "ROLLBACK; BEGIN"); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()",
			applicationName(l.pair.domain, "writes")); err != nil {
			return err
		}
	}
}

// writeTerm commits that the term begins.
func (l *Lease) writeTerm(ctx context.Context, c *pgx.Conn) (err error) {
	if _, err := c.Exec(ctx, "SET LOCAL lock_timeout = '1s'"); err != nil {
		return err
	}
	if l.Before, err = readTerm(ctx, c, l.num, "FOR UPDATE"); err != nil {
		return err
	}
	// When was written last stays, if something may be in doubt: who ends before it has
	// written that leaves the doubt to the next one.
	err = c.QueryRow(ctx, `UPDATE rosterd.pairs SET term = term + 1, active = $2, since = clock_timestamp(),
		written = CASE WHEN ended THEN clock_timestamp() ELSE written END, ended = false
		WHERE pair = $1 RETURNING term, since`, l.num, l.pair.advertise).Scan(&l.Term, &l.Since)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "COMMIT; BEGIN")
	return err
}

// is is the condition that a row of rosterd.pairs is this term. The number alone would not do: a
// database that was put back to an older copy gives it once more.
func (l *Lease) is() string {
	return fmt.Sprintf("pair = %d AND term = %d AND since = '%s'", l.num, l.Term, l.Since.UTC().Format(time.RFC3339Nano))
}

func code(err error) string {
	if ofServer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return ofServer.Code
	}
	return ""
}

// Lost is closed when another instance is the active one. What is written afterwards is
// refused, whether this one knows it or not.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Lose says that another instance is active, as this one was told. That one waits until this
// one has told clients the rest.
func (l *Lease) Lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose()
}

// Confirm returns when clients may be told something: nobody else is the active one, as far
// as this instance can know. That is at once, unless the process was paused for so long that
// somebody else may be; then it waits until the database was asked. It fails with ErrSuperseded,
// or when ctx ends. A pause during which the monotonic clock stood still, too, goes unnoticed.
func (l *Lease) Confirm(ctx context.Context) error {
	for time.Until(*l.sure.Load()) <= 0 {
		select {
		case <-l.lost:
			return ErrSuperseded
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// sureSince says that nobody else was the active one at a moment.
func (l *Lease) sureSince(at time.Time) {
	end := at.Add(sureFor)
	l.mu.Lock()
	before, lost := l.sure.Load(), l.why != nil
	if !lost {
		l.sure.Store(&end)
	}
	l.mu.Unlock()
	if !lost && before != nil && time.Until(*before) <= 0 && time.Until(end) > 0 {
		l.pair.logger.Warn("this process was paused, or the database was slow: nothing was sent until it was sure that no other instance is active", "not_sure_for", time.Since(*before))
	}
}

// tried says that the database does not answer, as was tried since began. It counts for
// nothing if the process was paused meanwhile.
func (l *Lease) tried(began time.Time) {
	if now := time.Now(); now.Sub(began) < sureFor {
		l.sureSince(now)
	}
}

// superseded says that another instance is active, as the database says. That one does not
// wait: clients are told nothing more.
func (l *Lease) superseded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sure.Store(new(time.Time))
	l.lose()
}

// Entered receives when somebody was entered, see [Pair.Enter].
func (l *Lease) Entered() <-chan struct{} { return l.entered }

// Err is why the database cannot be reached, or why the lease is lost, or nil.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return l.why
	}
	return l.away
}

// lose says that another instance is active. l.mu is held.
func (l *Lease) lose() {
	if l.why == nil {
		l.why = ErrSuperseded
		close(l.lost)
	}
}

func (l *Lease) setAway(err error) {
	l.mu.Lock()
	before := l.away
	l.away = err
	l.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		l.pair.logger.Error("the database cannot be reached: this instance goes on from memory, and stays active unless another one has become so when it is back", "err", err)
	case err == nil && before != nil:
		l.pair.logger.Info("the database is reached again, and this instance is the active one still", "term", l.Term)
	}
}

// Doubtful reports whether the one before may have told users what it did not write: it did
// not end in order, and could not write, or we cannot tell.
func (l *Lease) Doubtful() bool {
	return l.Before.Term > 0 && !l.Before.Ended && (l.Before.quiet > quietFor || l.Before.away || l.cut)
}

// hold keeps the lock until Release, or until it is lost.
func (l *Lease) hold(ctx context.Context, c *pgx.Conn) {
	for {
		pid := c.PgConn().PID()
		err := l.keep(ctx, c)
		if ctx.Err() != nil {
			l.resign(c)
			return
		}
		hangUp(c)
		if !errors.Is(err, ErrSuperseded) {
			l.setAway(explain(l.pair.where, err))
			c, err = l.regain(ctx, pid)
		}
		switch {
		case errors.Is(err, ErrSuperseded):
			l.superseded()
			return
		case err != nil: // ctx has ended
			return
		}
		l.setAway(nil)
	}
}

// keep begins the transaction of the lock's connection anew each second, until it fails or
// ctx ends.
func (l *Lease) keep(ctx context.Context, c *pgx.Conn) error {
	for {
		began := time.Now()
		err := l.beat(c)
		switch {
		case err == nil:
			l.sureSince(began)
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			l.tried(began)
		}
		if err != nil {
			return err
		}
		// That the server closes the connection is noticed at once.
		waits, cancel := context.WithTimeout(ctx, beatEvery)
		_, err = c.WaitForNotification(waits)
		over := waits.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (!over || c.IsClosed()):
			return err
		}
	}
}

// beat is one sign of life.
func (l *Lease) beat(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	defer l.pair.grace.limit(ctx, cancel)()
	results, err := c.PgConn().Exec(ctx, fmt.Sprintf(`COMMIT; BEGIN;
		SELECT EXISTS (SELECT 1 FROM rosterd.pairs WHERE %s), EXISTS (SELECT 1 FROM rosterd.entered WHERE pair = %d),
			current_setting('transaction_read_only')`, l.is(), l.num)).ReadAll()
	if err != nil {
		return err
	}
	rows := results[len(results)-1].Rows
	if len(rows) != 1 || string(rows[0][0]) != "t" {
		return ErrSuperseded
	}
	if string(rows[0][1]) == "t" {
		wake(l.entered)
	}
	if string(rows[0][2]) != "off" { // it was not when this connection was made; another server may be the primary now
		return ErrReadOnly
	}
	return nil
}

// regain gets the lock again after the connection was lost. While the database is away,
// nobody else can get it, as far as this instance can know.
func (l *Lease) regain(ctx context.Context, before uint32) (*pgx.Conn, error) {
	for {
		began := time.Now()
		c, err := l.regainOnce(ctx, before)
		switch {
		case err == nil:
			l.sureSince(began)
			return c, nil
		case errors.Is(err, ErrSuperseded):
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, errEnding):
			l.tried(began)
		}
		l.setAway(err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(reachEvery):
		}
	}
}

// errEnding is why the lock is not there yet.
var errEnding = errors.New("the connection before is being ended")

// regainOnce tries that within answerWithin.
func (l *Lease) regainOnce(ctx context.Context, before uint32) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c, num, err := l.pair.connect(ctx)
	if err != nil {
		return nil, err
	}
	locked, err := tryLock(ctx, c, l.num)
	if err == nil && !locked {
		// The server may not know yet that our connection before is dead.
		var ended bool
		err = c.QueryRow(ctx, `SELECT coalesce(bool_and(pid = $3 AND pg_terminate_backend(pid)), true) FROM pg_locks WHERE locktype = 'advisory'
			AND classid = $1 AND objid = $2 AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
			uint32(lockClass), uint32(l.num), int32(before)).Scan(&ended)
		if err == nil && ended {
			err = errEnding
		} else if err == nil {
			err = ErrSuperseded
		}
	}
	if err == nil {
		var t Term
		if t, err = readTerm(ctx, c, l.num, ""); err == nil && (t.Term != l.Term || !t.Since.Equal(l.Since) || num != l.num) {
			err = ErrSuperseded
		}
	}
	if err != nil {
		hangUp(c)
		return nil, explain(l.pair.where, err)
	}
	return c, nil
}

// resign ends the term, and gives the lock away.
func (l *Lease) resign(c *pgx.Conn) {
	l.mu.Lock()
	clean := l.clean
	l.mu.Unlock()
	if clean {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := c.PgConn().Exec(ctx, "ROLLBACK; UPDATE rosterd.pairs SET ended = true WHERE "+l.is()).ReadAll(); err != nil {
			l.pair.logger.Warn("that this instance ends in order could not be written", "err", explain(l.pair.where, err))
		}
	}
	hangUp(c)
}

// Release gives the lease away. clean says that all was written. It may be called again.
func (l *Lease) Release(clean bool) {
	l.mu.Lock()
	l.clean = clean
	l.mu.Unlock()
	l.stop()
	l.working.Wait()
}

// Open opens the store of the pair for this instance. doubtful says that the one before may
// have told users what it did not write: all are in doubt then. left is what it has handed
// over, see [Store.Unwritten], or nil.
func (l *Lease) Open(o Options, doubtful bool, left []byte) (*Store, error) {
	pool, err := l.pair.newPool("writes", connections)
	if err != nil {
		return nil, err
	}
	d := &database{&postgres{pool: pool, where: l.pair.where, grace: l.pair.grace, pair: l.num, term: l.Term, since: l.Since}, newStatements(l.num)}
	ended, err := d.lastAlive()
	if err != nil {
		l.pair.grace.closePool(pool)
		return nil, err
	}
	s := newStore(&Store{options: o, db: d, remote: true, ended: ended, superseded: l.superseded}, doubtful)
	if err := s.adopt(left); err != nil {
		s.Close()
		return nil, fmt.Errorf("what the instance before has handed over cannot be read: %w", err)
	}
	s.warnOfClocks(l.ahead)
	return s, nil
}

// Entry is a user who was entered.
type Entry struct {
	JID string
	id  int64
}

// Entries are some users who were entered, those first who wait longest.
func (l *Lease) Entries(ctx context.Context, limit int) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	rows, err := l.pair.pool.Query(ctx, "SELECT jid, id FROM rosterd.entered WHERE pair = $1 ORDER BY id LIMIT $2", l.num, limit)
	if err != nil {
		return nil, explain(l.pair.where, err)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e Entry, err error) { return e, r.Scan(&e.JID, &e.id) })
	return all, explain(l.pair.where, err)
}

// Strike strikes out entries, unless they were entered again. It fails with ErrSuperseded if
// another instance has become the active one, which is to refresh them then.
func (l *Lease) Strike(ctx context.Context, entries []Entry) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	ids := make([]int64, len(entries))
	for i, e := range entries {
		ids[i] = e.id
	}
	var active bool
	err := l.pair.pool.QueryRow(ctx, `WITH mine AS (SELECT 1 FROM rosterd.pairs WHERE `+l.is()+` FOR SHARE),
		struck AS (DELETE FROM rosterd.entered WHERE pair = $1 AND id = ANY($2) AND EXISTS (SELECT 1 FROM mine))
		SELECT EXISTS (SELECT 1 FROM mine)`, l.num, ids).Scan(&active)
	if err == nil && !active {
		return ErrSuperseded
	}
	return explain(l.pair.where, err)
}

// Size is that of the tables of all pairs, in bytes.
func (p *Pair) Size(ctx context.Context) (bytes int64, err error) {
	err = p.pool.QueryRow(ctx, "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'rosterd'::regnamespace").Scan(&bytes)
	return bytes, explain(p.where, err)
}

// View is what can be seen of a pair without being an instance of it.
type View struct {
	Made    bool // the tables are there
	MayMake bool // or can be made
	Held    bool // an instance is active
	Last    Term // that one, or the one before
}

// Look changes nothing.
func (p *Pair) Look(ctx context.Context) (v View, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	err = p.pool.QueryRow(ctx, `SELECT to_regclass('rosterd.version') IS NOT NULL,
		coalesce(has_schema_privilege(to_regnamespace('rosterd')::oid, 'CREATE'), has_database_privilege(current_database(), 'CREATE'))`).Scan(&v.Made, &v.MayMake)
	if err != nil || !v.Made {
		return v, explain(p.where, err)
	}
	var known, num int
	if err = p.pool.QueryRow(ctx, "SELECT version FROM rosterd.version").Scan(&known); err == nil && known > version {
		err = fmt.Errorf("%w (format %d, this one knows %d)", ErrNewer, known, version)
	}
	if err == nil {
		err = p.pool.QueryRow(ctx, "SELECT pair FROM rosterd.pairs WHERE domain = $1", p.domain).Scan(&num)
	}
	if err == nil {
		v.Last, err = readTerm(ctx, p.pool, num, "")
	}
	if err == nil {
		err = p.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND objsubid = 2 AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, uint32(lockClass), uint32(num)).Scan(&v.Held)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil // no instance of this pair was ever here
	}
	return v, explain(p.where, err)
}

package store

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rosterd/internal/locked"
	"rosterd/internal/pgserver"
)

// patience is how long a test waits for what happens by itself.
const patience = 20 * time.Second

// The test binary, started again with this variable, is a process that uses a
// store and may be killed. It is told what to do on its standard input, and says
// on its standard output when that is done.
const childVariable = "ROSTERD_STORE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		if err := child(path); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if worker := flag.Lookup("test.fuzzworker"); worker == nil || worker.Value.String() != "true" {
		var err error
		if postgresql, err = pgserver.Start(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests of PostgreSQL:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if postgresql != nil {
		postgresql.Close()
	}
	os.Exit(code)
}

// postgresql is for all tests, of which each has a pair of its own in it.
var postgresql *pgserver.Server

// pairs counts those.
var pairs atomic.Int64

// newPair is an instance of a pair.
func newPair(t testing.TB, domain string) *Pair {
	t.Helper()
	return newPairAt(t, postgresql.URL(), domain)
}

func newPairAt(t testing.TB, url, domain string) *Pair {
	t.Helper()
	p, err := NewPair(url, domain, "http://"+domain, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// become waits until an instance is the active one, and opens its store.
func become(t testing.TB, p *Pair, doubtful bool) (*Lease, *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := p.Stand(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Open(Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, doubtful, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return l, s
}

func child(path string) error {
	signal.Ignore(syscall.SIGXFSZ) // beyond the limit, a write fails
	var s *Store
	var log records
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var err error
		var key, data string
		command, rest, _ := strings.Cut(in.Text(), " ")
		fmt.Sscan(rest, &key, &data)
		switch command {
		case "open":
			s, err = Open(path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Errors: &log})
		case "put": // a user, and waits until it is written
			done := make(chan struct{})
			s.PutUser(User{JID: key, Version: data, Roster: []byte(data)}, true, func() { close(done) })
			<-done
		case "server": // a server's roster, and waits until it is written
			done := make(chan struct{})
			s.PutServerRoster(ServerRoster{JID: key, Version: data, Writing: true, Roster: []byte(data)}, func() { close(done) })
			<-done
		case "later": // a user
			s.PutUser(User{JID: key, Version: data, Roster: []byte(data)}, true, nil)
		case "resource":
			s.PutResource(Resource{JID: key, Connected: true}, data == "soon")
		case "churn": // puts until it is killed, and says the number of each that is written
			for n := 0; ; n++ {
				done := make(chan struct{})
				version := strconv.Itoa(n)
				s.PutUser(User{JID: fmt.Sprint("later", n%50), Version: version}, false, nil)
				s.PutUser(User{JID: fmt.Sprint(key, n%20), Version: version, Roster: append(noise(n, 2000), version...)}, n%3 == 0, func() { close(done) })
				<-done
				fmt.Println(n)
			}
		case "fill": // puts what cannot be compressed
			for n := range 200 {
				s.PutUser(User{JID: fmt.Sprint(key, n), Roster: noise(n, 5000)}, true, nil)
			}
		case "limit": // the size of files that are written
			var limit uint64
			fmt.Sscan(key, &limit)
			var all syscall.Rlimit
			if err = syscall.Getrlimit(syscall.RLIMIT_FSIZE, &all); err == nil {
				if all.Cur = limit; limit == 0 {
					all.Cur = all.Max
				}
				err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &all)
			}
		case "nobody": // is who it is from now on
			err = syscall.Setuid(65534)
		case "wait": // until there is an error, or none, or all is written, or that many errors are counted
			there := map[string]func() bool{
				"error":   func() bool { return s.Err() != nil },
				"well":    func() bool { return s.Err() == nil },
				"written": func() bool { return waiting(s) == 0 },
				"counted": func() bool { n, _ := strconv.Atoi(data); return log.count.Load() >= int64(n) },
			}[key]
			if !comes(there) {
				return fmt.Errorf("waited in vain for %s, the error is %v", rest, s.Err())
			}
			fmt.Println(s.Err())
		case "log":
			fmt.Printf("%d %q\n", log.count.Load(), log.String())
		case "close":
			err = s.Close()
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

// comes waits for what nobody tells of, and reports whether it comes.
func comes(there func() bool) bool {
	for end := time.Now().Add(3 * patience); !there(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// await waits for what nobody tells of.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	if !comes(there) {
		t.Fatalf("waited in vain until %s", what)
	}
}

// waiting is how many keys are to be written.
func waiting(s *Store) int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.changes)
}

// noise is some bytes that do not repeat.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	state := uint64(seed)
	for k := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[k] = byte(state >> 56)
	}
	return b
}

// records is a log that can be read, and a counter.
type records struct {
	locked.Buffer
	count atomic.Int64
}

func (r *records) Inc() { r.count.Add(1) }

// process is a child.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts a child, which does what it is told first.
func start(t *testing.T, path string, commands ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childVariable+"="+path)
	p.cmd.Stderr = t.Output()
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	for _, command := range commands {
		p.do("%s", command)
	}
	return p
}

// kill is kill -9. It returns what the child had still said.
func (p *process) kill() string {
	p.cmd.Process.Kill()
	rest, _ := io.ReadAll(p.out)
	p.cmd.Wait()
	return string(rest)
}

// do has the child do something, and returns what it said.
func (p *process) do(format string, args ...any) string {
	p.t.Helper()
	said, err := p.try(format, args...)
	if err != "" {
		p.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), err)
	}
	return said
}

// try is do, but returns the error with which the child ended.
func (p *process) try(format string, args ...any) (said, failed string) {
	p.t.Helper()
	fmt.Fprintf(p.in, format+"\n", args...)
	for {
		line, err := p.out.ReadString('\n')
		if failed, ok := strings.CutPrefix(line, "failed: "); ok {
			return said, strings.TrimSpace(failed)
		}
		if err != nil {
			p.t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
		}
		if line == "done\n" {
			return said, ""
		}
		said += line
	}
}

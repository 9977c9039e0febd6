package fetcher

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
)

// crowd is a backend whose users have one contact each, of their own.
type crowd struct {
	*httptest.Server
	bulk http.HandlerFunc // of the POST; nil: answers

	mu    sync.Mutex
	alone []string   // who was asked for by a GET
	posts [][]string // who was asked for together
	heads []http.Header
	hold  map[string]chan struct{} // whom a GET waits for
}

func contactOf(name string) string { return "friend-of-" + name + "@example.org" }

func contactsOf(name string) string { return fmt.Sprintf(`{%q: {"name": "Friend"}}`, contactOf(name)) }

func newCrowd(t *testing.T, bulk http.HandlerFunc) *crowd {
	t.Helper()
	c := &crowd{bulk: bulk, hold: make(map[string]chan struct{})}
	c.Server = serve(t, c.serve)
	return c
}

func (c *crowd) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		c.post(w, r)
		return
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/contacts/"), "@")
	c.mu.Lock()
	c.alone = append(c.alone, name)
	hold := c.hold[name]
	c.mu.Unlock()
	if hold != nil {
		<-hold
	}
	w.Header().Set("ETag", `"`+name+`"`)
	if r.Header.Get("If-None-Match") == `"`+name+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	io.WriteString(w, contactsOf(name))
}

func (c *crowd) post(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var names []string
	if err := json.Unmarshal(body, &names); err != nil || r.URL.Path != "/bulk/example.org" {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	c.mu.Lock()
	c.posts = append(c.posts, names)
	c.heads = append(c.heads, r.Header)
	c.mu.Unlock()
	if c.bulk != nil {
		c.bulk(w, r.WithContext(context.WithValue(r.Context(), namesKey{}, names)))
		return
	}
	io.WriteString(w, answerFor(names))
}

type namesKey struct{}

// namesIn is who is asked for by a POST.
func namesIn(r *http.Request) []string { return r.Context().Value(namesKey{}).([]string) }

// answerFor is the answer of a backend that knows everybody.
func answerFor(names []string) string {
	members := make([]string, len(names))
	for i, name := range names {
		members[len(names)-1-i] = fmt.Sprintf("%q: %s", name, contactsOf(name)) // in another order
	}
	return "{" + strings.Join(members, ", ") + "}"
}

func (c *crowd) asked() (alone []string, posts [][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.alone), slices.Clone(c.posts)
}

// holds lets the GET of a user wait until the test lets go.
func (c *crowd) holds(name string) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := make(chan struct{})
	c.hold[name] = held
	return sync.OnceFunc(func() { close(held) })
}

// newBulkBench makes a bench that asks c for up to size users at once.
func newBulkBench(t *testing.T, c *crowd, size int, change ...func(*Options)) *bench {
	t.Helper()
	b := newBench(t, c.URL, append([]func(*Options){func(o *Options) {
		o.BulkURL = func(domain string) (string, bool) {
			return c.URL + "/bulk/" + domain + "?key=" + secret, domain == "example.org"
		}
		o.BulkSize = size
		o.Metrics.BulkFetches = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulk"}, []string{"result"})
	}}, change...)...)
	b.company = time.Minute // so that who comes together is together on a slow machine, too
	return b
}

func (b *bench) bulkFetches(result string) float64 {
	return testutil.ToFloat64(b.metrics.BulkFetches.WithLabelValues(result))
}

// each fetches several users at the same time, in this order, and wants the
// roster of each.
func (b *bench) each(t *testing.T, names ...string) {
	t.Helper()
	b.begin(t, names...)()
}

// begin fetches several users at the same time: one after the other comes, when
// the one before is waiting. wait wants their rosters.
func (b *bench) begin(t *testing.T, names ...string) (wait func()) {
	t.Helper()
	q := b.bulk("example.org")
	var wg sync.WaitGroup
	for _, name := range names {
		before := q.came()
		wg.Go(func() {
			r, err := b.Fetch(t.Context(), mustParse(name+"@example.org"))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if _, ok := r.Item(mustParse(contactOf(name))); !ok || r.Len() != 1 {
				t.Errorf("%s has the roster %v", name, r.Items())
			}
		})
		for q.came() == before {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return func() {
		wg.Wait()
		for q.underWay() > 0 { // the users have their rosters before that is counted
			time.Sleep(50 * time.Microsecond)
		}
	}
}

func (q *bulk) underWay() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.batches
}

func (q *bulk) came() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.joined
}

func numberedNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
	}
	return names
}

// One who comes alone is asked for alone, with what is known.
func TestBulkLone(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 10)
	validator := ""
	for range 4 {
		got, err := b.Fetcher.Fetch(t.Context(), roster.Request{User: juliet, Validator: validator})
		if err != nil || (got.Roster == nil) != (validator != "") {
			t.Fatal(got, err)
		}
		validator = got.Validator
	}
	if alone, posts := c.asked(); len(alone) != 4 || len(posts) != 0 || b.fetches(resultNotModified) != 3 {
		t.Errorf("asked for %v and %v", alone, posts)
	}
}

// Those who come while somebody is asked for are asked for together, in the order
// in which they came, with all that is sent with every fetch.
func TestBulkTogether(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 4, func(o *Options) { o.MaxInFlight = 100 })
	names := numberedNames(100)
	release := c.holds(names[0])
	wait := b.begin(t, names...)
	release()
	wait()
	alone, posts := c.asked()
	if n := len(alone) + len(slices.Concat(posts...)); n != 100 || len(posts) < 10 {
		t.Errorf("%d users are asked for, %d alone, %d times together", n, len(alone), len(posts))
	}
	for i, names := range posts {
		if len(names) < 2 || len(names) > 4 || !slices.IsSortedFunc(names, func(a, b string) int { return number(a) - number(b) }) {
			t.Errorf("together: %q", names)
		}
		h := c.heads[i]
		if h.Get("Content-Type") != "application/json" || h.Get("Accept") != "application/json" || h.Get("User-Agent") != "rosterd/test" ||
			h.Get("X-Key") != secret || h.Get("Authorization") != "Bearer "+secret || len(h.Values("Idempotency-Key")) != 0 {
			t.Errorf("header %v", h)
		}
	}
	if b.fetches(resultOK) != 100 || b.bulkFetches(bulkOK) != float64(len(posts)) || b.bulkFetches(bulkFailed) != 0 || b.inFlight() != 0 {
		t.Errorf("counted %s", b.exposed(t))
	}
}

func number(name string) (n int) {
	fmt.Sscanf(name, "user%d", &n)
	return n
}

// Nobody for whom a query waits is asked for together with others, nor anybody of
// a domain without the URL.
func TestBulkNotInHurry(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 10, func(o *Options) { o.MaxInFlight = 20 })
	release := c.holds("user0")
	wait := b.begin(t, "user0")
	for _, user := range []jid.JID{mustParse("user1@example.org"), mustParse("user2@example.org"), mustParse("user1@example.net")} {
		if _, err := b.Fetch(inHurry(t.Context()), user); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Fetch(t.Context(), mustParse("user2@example.net")); err != nil {
		t.Error(err)
	}
	release()
	wait()
	if alone, posts := c.asked(); len(alone) != 5 || len(posts) != 0 {
		t.Errorf("asked for %v and %v", alone, posts)
	}
}

// TestBulkAnswers: whom the answer does not help is asked for alone, and nobody
// else.
func TestBulkAnswers(t *testing.T) {
	two, three := contactsOf("user2"), contactsOf("user3")
	for name, test := range map[string]struct {
		answer string // user1 is in it, too
		alone  []string
	}{
		"complete":         {`, "user2": ` + two + `, "user3": ` + three, nil},
		"missing":          {`, "user3": ` + three, []string{"user2"}},
		"others":           {`, "user2": ` + two + `, "mallory": {"x@example.org": {}}, "": 1, "user3@example.org": {}`, []string{"user3"}},
		"other case":       {`, "User2": ` + two + `, "user3": ` + three, []string{"user2"}},
		"escaped":          {`, "\u0075ser2": ` + two + `, "user3": ` + three, nil},
		"null":             {`, "user2": null, "user3": ` + three, []string{"user2"}},
		"a text":           {`, "user2": "no such user", "user3": ` + three, []string{"user2"}},
		"a number":         {`, "user2": 404, "user3": ` + three, []string{"user2"}},
		"an error":         {`, "user2": {"error": {"code": 500}}, "user3": ` + three, []string{"user2"}},
		"nothing usable":   {`, "user2": {"@": {}}, "user3": [1]`, []string{"user2", "user3"}},
		"twice":            {`, "user2": ` + two + `, "user3": ` + three + `, "user2": {}`, []string{"user2"}},
		"three times":      {`, "user2": {}, "user2": {}, "user3": ` + three + `, "user2": ` + two, []string{"user2"}},
		"as arrays":        {`, "user2": [{"jid": "` + contactOf("user2") + `"}], "user3": ` + three, nil},
		"skipped contacts": {`, "user2": {"@": {}, ` + two[1:] + `, "user3": ` + three, nil},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := newCrowd(t, answer(200, `{"user1": `+contactsOf("user1")+test.answer+"}"))
			b := newBulkBench(t, c, 3)
			release := c.holds("user0")
			wait := b.begin(t, "user0", "user1", "user2", "user3")
			release()
			wait()
			alone, posts := c.asked()
			slices.Sort(alone)
			if want := append([]string{"user0"}, test.alone...); !slices.Equal(alone, want) || len(posts) != 1 {
				t.Errorf("asked for %v and %v, want %v", alone, posts, want)
			}
			if b.fetches(resultOK) != 4 || b.bulkFetches(bulkOK) != 1 {
				t.Errorf("counted %s", b.exposed(t))
			}
			if skipped := b.skipped(reasonJID); (skipped == 1) != (name == "skipped contacts") || skipped > 1 {
				t.Errorf("skipped %d contacts", skipped)
			}
		})
	}
	t.Run("an empty roster", func(t *testing.T) {
		c := newCrowd(t, answer(200, `{"user1": [], "user2": {}}`))
		b := newBulkBench(t, c, 2)
		release := c.holds("user0")
		wait := b.begin(t, "user0")
		defer wait()
		defer release()
		var wg sync.WaitGroup
		for _, user := range []string{"user1", "user2"} {
			wg.Go(func() {
				if r, err := b.Fetch(t.Context(), mustParse(user+"@example.org")); err != nil || r == nil || r.Len() != 0 {
					t.Errorf("%s: %v, %v", user, r, err)
				}
			})
		}
		wg.Wait()
		if _, posts := c.asked(); len(posts) != 1 {
			t.Errorf("asked for %v", posts)
		}
	})
}

// TestBulkFails: however the whole fails, each user gets his roster alone, and
// for a while nobody is asked for together.
func TestBulkFails(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, test := range map[string]struct {
		bulk  http.HandlerFunc
		url   string
		pause time.Duration
	}{
		"500":         {bulk: answer(500, bodySecret)},
		"503":         {bulk: answer(503, "")},
		"404":         {bulk: answer(404, bodySecret), pause: bulkLongPause},
		"405":         {bulk: answer(405, ""), pause: bulkLongPause},
		"501":         {bulk: answer(501, ""), pause: bulkLongPause},
		"401":         {bulk: answer(401, "")},
		"304":         {bulk: answer(304, "")},
		"204":         {bulk: answer(204, "")},
		"redirect":    {bulk: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/contacts/romeo", http.StatusFound) }},
		"HTML":        {bulk: answer(200, "<html>"+bodySecret)},
		"no body":     {bulk: answer(200, "")},
		"half a body": {bulk: answer(200, `{"user1": {"romeo@example.org": {}}, "user2": {`)},
		"cut off": {bulk: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, `{"user1": {}}`)
		}},
		"two values":      {bulk: answer(200, `{"user1": {}} {}`)},
		"an array":        {bulk: answer(200, `[{"romeo@example.org": {}}]`)},
		"an empty array":  {bulk: answer(200, `[]`)},
		"an empty object": {bulk: answer(200, `{}`)},
		"null":            {bulk: answer(200, `null`)},
		"a text":          {bulk: answer(200, `"`+bodySecret+`"`)},
		"others alone":    {bulk: answer(200, `{"mallory": {"x@example.org": {}}}`)},
		"contacts of one": {bulk: answer(200, contactsOf("user1"))},
		"hung up":         {bulk: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"silent":          {bulk: hang},
		"packed": {bulk: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			answer(200, "{}")(w, r)
		}},
		"refused": {url: "http://127.0.0.1:1/bulk/example.org?key=" + secret},
		"no URL":  {url: "http://[/?" + secret},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := newCrowd(t, test.bulk)
			b := newBulkBench(t, c, 3, func(o *Options) {
				if name == "silent" {
					o.Timeout = 3 * time.Second
				}
				if test.url != "" {
					o.BulkURL = func(string) (string, bool) { return test.url, true }
				}
			})
			release := c.holds("user0")
			waitFirst := b.begin(t, "user0")
			wait := b.begin(t, "user1", "user2", "user3")
			release()
			wait()
			waitFirst()
			began := time.Now()
			b.each(t, "user4", "user5", "user6")
			alone, posts := c.asked()
			if slices.Sort(alone); !slices.Equal(alone, numberedNames(7)) || test.url == "" && len(posts) != 1 && name != "hung up" { // which is sent again, as the connection may have been stale
				t.Errorf("asked for %v and %v", alone, posts)
			}
			if b.fetches(resultOK) != 7 || b.bulkFetches(bulkFailed) != 1 || b.bulkFetches(bulkOK) != 0 {
				t.Errorf("counted %s", b.exposed(t))
			}
			if test.pause == 0 {
				test.pause = bulkPause
			}
			q := b.bulk("example.org")
			q.mu.Lock()
			if left := q.apart.Sub(began); left > test.pause || left < test.pause-time.Minute/2 {
				t.Errorf("no bulk for %v more, want %v", left, test.pause)
			}
			q.apart = time.Time{}
			q.mu.Unlock()
			if all := b.exposed(t); b.logged("cannot be fetched in bulk") != 1 || strings.Contains(all, secret) || strings.Contains(all, bodySecret) || strings.Contains(all, "user1") {
				t.Errorf("exposed %s", all)
			}

			// Then it is tried again, and said once when it works.
			if test.url != "" {
				return
			}
			c.mu.Lock()
			c.bulk = nil
			c.mu.Unlock()
			for range 2 {
				release = c.holds("user7")
				wait = b.begin(t, "user7", "user8", "user9", "user10")
				release()
				wait()
			}
			if b.bulkFetches(bulkOK) == 0 || b.logged("in bulk again") != 1 {
				t.Errorf("logged %s", b.log)
			}
		})
	}
}

// Too many at once for the largest body that is read, or for the backend: half of
// them are asked for, and again, until it fits.
func TestBulkTooLarge(t *testing.T) {
	for name, tooMany := range map[string]http.HandlerFunc{
		"body": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"x": "`+strings.Repeat("x", 1<<17)+`"}`)
		},
		"status": answer(http.StatusRequestEntityTooLarge, ""),
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := newCrowd(t, nil)
			c.bulk = func(w http.ResponseWriter, r *http.Request) {
				if names := namesIn(r); len(names) > 2 {
					tooMany(w, r)
				} else {
					io.WriteString(w, answerFor(names))
				}
			}
			b := newBulkBench(t, c, 8, func(o *Options) { o.MaxInFlight = 2 }) // one of them in the background
			release := c.holds("user0")
			wait := b.begin(t, numberedNames(9)...)
			release()
			wait()
			alone, posts := c.asked()
			if !slices.Equal(alone, []string{"user0"}) || len(slices.Concat(posts...)) < 8+4+8 {
				t.Errorf("asked for %v and %v", alone, posts)
			}
			if b.logged("fewer users") == 0 || b.bulkFetches(bulkOK) != 4 {
				t.Errorf("logged %s", b.log)
			}
			q := b.bulk("example.org")
			q.mu.Lock()
			defer q.mu.Unlock()
			if q.limit() != 2 {
				t.Errorf("%d at once from now on", q.limit())
			}
			q.halved = time.Now()
			if q.limit() != 8 {
				t.Errorf("%d at once later", q.limit())
			}
		})
	}
	t.Run("two", func(t *testing.T) {
		leak.Check(t)
		c := newCrowd(t, answer(200, strings.Repeat(" ", 1<<17)+"{}"))
		b := newBulkBench(t, c, 2)
		release := c.holds("user0")
		wait := b.begin(t, "user0", "user1", "user2")
		release()
		wait()
		if alone, posts := c.asked(); len(alone) != 3 || len(posts) != 1 {
			t.Errorf("asked for %v and %v", alone, posts)
		}
	})
}

// A caller who loses interest takes nothing from the others; when all have, the
// request ends.
func TestBulkCanceled(t *testing.T) {
	leak.Check(t)
	gone, release := make(chan struct{}), make(chan struct{})
	c := newCrowd(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			close(gone)
		case <-release:
			io.WriteString(w, answerFor(namesIn(r)))
		}
	})
	b := newBulkBench(t, c, 3)
	q := b.bulk("example.org")
	lone := c.holds("user0")
	wait := b.begin(t, "user0")
	fetch := func(ctx context.Context, name string) chan error {
		done := make(chan error, 1)
		before := q.came()
		go func() {
			_, err := b.Fetch(ctx, mustParse(name+"@example.org"))
			done <- err
		}()
		for q.came() == before {
			time.Sleep(50 * time.Microsecond)
		}
		return done
	}
	canceled := func(err error) bool {
		e, ok := err.(*Error)
		return ok && e.Result == resultCanceled
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second, third := fetch(ctx, "user1"), fetch(t.Context(), "user2"), fetch(t.Context(), "user3")
	cancel()
	if err := <-first; !canceled(err) {
		t.Error(err)
	}
	close(release)
	for _, done := range []chan error{second, third} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}

	release = nil
	ctx, cancel = context.WithCancel(t.Context())
	var all []chan error
	for _, name := range numberedNames(7)[4:] {
		all = append(all, fetch(ctx, name))
	}
	for { // the backend has them
		if _, posts := c.asked(); len(posts) == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	for _, done := range all {
		if err := <-done; !canceled(err) {
			t.Error(err)
		}
	}
	<-gone
	lone()
	wait()
	if b.bulkFetches(bulkFailed) != 0 || b.fetches(resultCanceled) != 4 {
		t.Errorf("counted %s", b.exposed(t))
	}
	b.each(t, "user8") // nothing is left in the way
}

// Who waits for company and leaves is not asked for.
func TestBulkCanceledBefore(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 3)
	q := b.bulk("example.org")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if _, err := b.Fetch(ctx, juliet); err == nil {
			t.Error("no error")
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if alone, posts := c.asked(); q.lone != 0 || q.batches != 0 || len(q.waiting) != 0 || len(alone)+len(posts) != 0 {
		t.Errorf("%d lone, %d batches, %d wait; asked for %v and %v", q.lone, q.batches, len(q.waiting), alone, posts)
	}
}

// Closing ends a request under way, and what comes later is asked for alone.
func TestBulkClose(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b := newBulkBench(t, c, 2, func(o *Options) { o.MaxInFlight = 10 })
	release := c.holds("user0")
	wait := b.begin(t, "user0", "user1", "user2")
	for {
		if _, posts := c.asked(); len(posts) == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.Close()
	b.each(t, "user3", "user4")
	release()
	wait()
}

// While the backend is down, nothing is sent; the many who were to be asked for
// together do not all ask alone either.
func TestBulkCircuit(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 50, func(o *Options) { o.MaxInFlight = 8 })
	c.Close()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if _, err := b.Fetch(t.Context(), numbered(i)); err == nil {
				t.Error("no error")
			}
		})
	}
	wg.Wait()
	if refused, open := b.fetches(resultRefused), b.fetches(resultOpen); refused > 40 || refused+open != 1000 {
		t.Errorf("%v refused, %v not asked for", refused, open)
	}
	if n := b.bulkFetches(bulkFailed); n > BulkRequests {
		t.Errorf("%v times together", n)
	}
}

// However many are in no hurry, a query finds a slot.
func TestBulkLeavesSlots(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, answer(404, ""))
	b := newBulkBench(t, c, 20, func(o *Options) { o.MaxInFlight = 4 })
	names := numberedNames(30)
	var releases []func()
	for _, name := range names {
		releases = append(releases, c.holds(name))
	}
	wait := b.begin(t, names...)
	for { // as many as may
		if alone, _ := c.asked(); len(alone) == 3 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := b.Fetch(inHurry(t.Context()), juliet); err != nil {
		t.Error(err)
	}
	for _, release := range releases {
		release()
	}
	wait()
}

// A circuit at the host of the bulk URL alone is probed there.
func TestBulkProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(refuse), func(o *Options) {
			o.BulkURL = func(string) (string, bool) { return "http://bulk.test/bulk", true }
			o.BulkSize = 10
		})
		q := b.bulk("example.org")
		for i := range tripFetches {
			if failure := b.together(t.Context(), q.url, []asked{{numbered(i), func(*roster.Roster) {}}}); failure == nil {
				t.Fatal("no failure")
			}
		}
		if b.open() != 1 {
			t.Fatal("the circuit is not open")
		}
		s.now(200)
		time.Sleep(2 * openTime)
		if paths := s.requests(); b.open() != 0 || paths[len(paths)-1] != "/bulk" {
			t.Errorf("%v open, asked for %q", b.open(), paths[tripFetches:])
		}
	})
}

// Under load, most are asked for together, and each gets his own roster.
func TestBulkLoad(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 100, func(o *Options) { o.MaxInFlight = 16 })
	b.company = forCompany
	const users = 3000
	places := make(chan struct{}, 400)
	var wg sync.WaitGroup
	for i := range users {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			name := fmt.Sprintf("user%d", i)
			r, err := b.Fetch(t.Context(), mustParse(name+"@example.org"))
			if err != nil {
				t.Error(err)
			} else if _, ok := r.Item(mustParse(contactOf(name))); !ok {
				t.Errorf("%s has the roster of another", name)
			}
		})
	}
	wg.Wait()
	alone, posts := c.asked()
	t.Logf("%d users, %d alone, the others with %d requests", users, len(alone), len(posts))
	if len(alone)+len(posts) > users/5 {
		t.Errorf("%d alone, %d together", len(alone), len(posts))
	}
}

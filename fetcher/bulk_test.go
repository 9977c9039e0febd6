package fetcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/internal/bubble"
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
	}}, change...)...)
	return b
}

func (b *bench) bulkFetches(result string) float64 {
	return testutil.ToFloat64(b.options.Metrics.BulkFetches.WithLabelValues(result))
}

// many fetches several users with FetchMany and wants the roster of each, once.
func (b *bench) many(t *testing.T, names ...string) {
	t.Helper()
	for i, err := range b.manyErrors(t, t.Context(), names...) {
		if err != nil {
			t.Errorf("%s: %v", names[i], err)
		}
	}
}

// manyErrors fetches several users with FetchMany. Each has an outcome, once: the
// error that is returned, or their own roster.
func (b *bench) manyErrors(t *testing.T, ctx context.Context, names ...string) []error {
	t.Helper()
	var mu sync.Mutex
	errs, times := make([]error, len(names)), make([]int, len(names))
	b.FetchMany(ctx, requestsFor(names...), func(i int, got roster.Fetched, err error) {
		mu.Lock()
		defer mu.Unlock()
		errs[i] = err
		times[i]++
		if err == nil {
			if _, ok := got.Roster.Item(mustParse(contactOf(names[i]))); !ok || got.Roster.Len() != 1 {
				t.Errorf("%s has the roster %v", names[i], got.Roster.Items())
			}
		}
	})
	for i, n := range times {
		if n != 1 {
			t.Errorf("%s has %d outcomes", names[i], n)
		}
	}
	return errs
}

func requestsFor(names ...string) []roster.Request {
	rs := make([]roster.Request, len(names))
	for i, name := range names {
		rs[i].User = mustParse(name + "@example.org")
	}
	return rs
}

// until waits until something is so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	for !so() {
		if t.Context().Err() != nil {
			t.Fatal("too late")
		}
		time.Sleep(time.Millisecond)
	}
}

func numberedNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
	}
	return names
}

// One who comes alone is asked for alone, with what is known. So is one who has no
// localpart, and nobody is asked for nobody.
func TestBulkOne(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 10)
	validator := ""
	for range 4 {
		b.FetchMany(t.Context(), []roster.Request{{User: mustParse("juliet@example.org/balcony"), Validator: validator}}, func(i int, got roster.Fetched, err error) {
			if i != 0 || err != nil || (got.Roster == nil) != (validator != "") {
				t.Fatal(got, err)
			}
			validator = got.Validator
		})
	}
	if alone, posts := c.asked(); len(alone) != 4 || len(posts) != 0 || b.fetches(resultNotModified) != 3 {
		t.Errorf("asked for %v and %v", alone, posts)
	}
	var outcomes atomic.Int32
	count := func(int, roster.Fetched, error) { outcomes.Add(1) }
	b.FetchMany(t.Context(), []roster.Request{{User: mustParse("example.org")}, {User: juliet}}, count)
	b.FetchMany(t.Context(), nil, count)
	if alone, posts := c.asked(); len(alone) != 6 || len(posts) != 0 || outcomes.Load() != 2 {
		t.Errorf("asked for %v and %v, %d outcomes", alone, posts, outcomes.Load())
	}
}

// Many are asked for together, in the order in which they are given, with all that
// is sent with every fetch.
func TestBulkTogether(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 4)
	names := numberedNames(100)
	if size := b.BatchSize("example.org"); size != 4 {
		t.Errorf("%d at once", size)
	}
	for batch := range slices.Chunk(names, 4) {
		b.many(t, batch...)
	}
	alone, posts := c.asked()
	if !slices.Equal(slices.Concat(posts...), names) || len(posts) != 25 || len(alone) != 0 {
		t.Errorf("asked for %v and %v", alone, posts)
	}
	for _, h := range c.heads {
		if h.Get("Content-Type") != "application/json" || h.Get("Accept") != "application/json" || h.Get("User-Agent") != "rosterd/test" ||
			h.Get("X-Key") != secret || h.Get("Authorization") != "Bearer "+secret || len(h.Values("Idempotency-Key")) != 0 {
			t.Errorf("header %v", h)
		}
	}
	if b.fetches(resultOK) != 100 || b.bulkFetches(bulkOK) != 25 || b.bulkFetches(bulkFailed) != 0 || b.inFlight() != 0 {
		t.Errorf("counted %s", b.exposed(t))
	}
}

// The request, byte for byte.
func TestBulkRequest(t *testing.T) {
	var got []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		dump, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(dump))
		io.WriteString(w, `{"zoé": {}, "romeo": {}}`)
	})
	b := newBench(t, s.URL, func(o *Options) {
		o.BulkSize, o.BulkURL = 10, func(string) (string, bool) { return s.URL + "/bulk?x=1", true }
	})
	b.FetchMany(t.Context(), []roster.Request{{User: mustParse("zoé@example.org")}, {User: mustParse("romeo@example.org")}}, func(int, roster.Fetched, error) {})
	want := "POST /bulk?x=1 HTTP/1.1\r\nHost: " + strings.TrimPrefix(s.URL, "http://") + "\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n" +
		"Authorization: Bearer " + secret + "\r\nContent-Length: 16\r\nContent-Type: application/json\r\nUser-Agent: rosterd/test\r\nX-Key: " + secret + "\r\n\r\n[\"zoé\",\"romeo\"]"
	if !slices.Equal(got, []string{want}) {
		t.Errorf("sent %q\nwant %q", got, want)
	}
}

// Nobody who is fetched by themselves is asked for together with others, nor
// anybody of a domain without the URL.
func TestBulkForManyAlone(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 10)
	for _, ctx := range []context.Context{t.Context(), inHurry(t.Context())} {
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if _, err := b.Fetch(ctx, numbered(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if size := b.BatchSize("example.net"); size != 1 {
		t.Errorf("%d at once", size)
	}
	outcomes := make(chan error, 9)
	b.FetchMany(t.Context(), []roster.Request{{User: mustParse("user1@example.net")}, {User: mustParse("user2@example.net")}},
		func(_ int, _ roster.Fetched, err error) { outcomes <- err })
	if err := errors.Join(<-outcomes, <-outcomes); err != nil || len(outcomes) != 0 {
		t.Error(err)
	}
	if alone, posts := c.asked(); len(alone) != 8 || len(posts) != 0 {
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
			b.many(t, "user1", "user2", "user3")
			alone, posts := c.asked()
			if slices.Sort(alone); !slices.Equal(alone, test.alone) || len(posts) != 1 {
				t.Errorf("asked for %v and %v, want %v", alone, posts, test.alone)
			}
			if b.fetches(resultOK) != 3 || b.bulkFetches(bulkOK) != 1 {
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
		outcomes := 0
		b.FetchMany(t.Context(), requestsFor("user1", "user2"), func(i int, got roster.Fetched, err error) {
			if outcomes++; err != nil || got.Roster == nil || got.Roster.Len() != 0 {
				t.Errorf("user%d: %v, %v", i+1, got, err)
			}
		})
		if alone, posts := c.asked(); len(posts) != 1 || len(alone) != 0 || outcomes != 2 {
			t.Errorf("asked for %v and %v, %d outcomes", alone, posts, outcomes)
		}
	})
}

// Who is in the answer has their roster, while others are asked for alone.
func TestBulkAnswersAtOnce(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, answer(200, `{"user1": `+contactsOf("user1")+`}`))
	b := newBulkBench(t, c, 2)
	release := c.holds("user2")
	first := make(chan int, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		b.FetchMany(t.Context(), requestsFor("user1", "user2"), func(i int, _ roster.Fetched, _ error) { first <- i })
	})
	if i := <-first; i != 0 {
		t.Errorf("user%d is first", i+1)
	}
	release()
	wg.Wait()
}

// TestBulkFails: however the whole fails, each user gets their roster alone, and
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
			b.many(t, "user0", "user1", "user2")
			began := time.Now()
			if size := b.BatchSize("example.org"); size != 1 {
				t.Errorf("%d at once", size)
			}
			b.many(t, "user3", "user4", "user5")
			alone, posts := c.asked()
			if slices.Sort(alone); !slices.Equal(alone, numberedNames(6)) || test.url == "" && len(posts) != 1 && name != "hung up" { // which is sent again, as the connection may have been stale
				t.Errorf("asked for %v and %v", alone, posts)
			}
			if b.fetches(resultOK) != 6 || b.bulkFetches(bulkFailed) != 1 || b.bulkFetches(bulkOK) != 0 {
				t.Errorf("counted %s", b.exposed(t))
			}
			if test.pause == 0 {
				test.pause = bulkPause
			}
			q := b.bulk("example.org")
			q.mu.Lock()
			if left := q.until.Sub(began); left > test.pause || left < test.pause-time.Minute/2 {
				t.Errorf("no bulk for %v more, want %v", left, test.pause)
			}
			q.until = time.Time{}
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
				b.many(t, "user7", "user8", "user9")
			}
			if b.bulkFetches(bulkOK) != 2 || b.BatchSize("example.org") != 3 || b.logged("in bulk again") != 1 {
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
			b.many(t, numberedNames(8)...)
			alone, posts := c.asked()
			if sizes := sizesOf(posts); !slices.Equal(sizes, []int{8, 4, 2, 2, 2, 2}) || len(alone) != 0 {
				t.Errorf("asked for %v and %v", alone, posts)
			}
			if b.logged("fewer users") != 2 || b.bulkFetches(bulkOK) != 4 || b.bulkFetches(bulkFailed) != 2 {
				t.Errorf("logged %s", b.log)
			}
			if size := b.BatchSize("example.org"); size != 2 {
				t.Errorf("%d at once from now on", size)
			}
			b.many(t, numberedNames(5)...) // more than that
			if alone, posts := c.asked(); !slices.Equal(sizesOf(posts[6:]), []int{2, 2}) || !slices.Equal(alone, []string{"user4"}) {
				t.Errorf("asked for %v and %v", alone, posts[6:])
			}
			q := b.bulk("example.org")
			q.mu.Lock()
			if left := time.Until(q.until); left > bulkLongPause || left < bulkLongPause-time.Minute {
				t.Errorf("for %v", left)
			}
			q.until = time.Now()
			q.mu.Unlock()
			if size := b.BatchSize("example.org"); size != 8 {
				t.Errorf("%d at once later", size)
			}
		})
	}
	t.Run("two", func(t *testing.T) {
		leak.Check(t)
		c := newCrowd(t, answer(200, strings.Repeat(" ", 1<<17)+"{}"))
		b := newBulkBench(t, c, 2)
		b.many(t, "user0", "user1")
		if alone, posts := c.asked(); len(alone) != 2 || len(posts) != 1 || b.BatchSize("example.org") != 1 {
			t.Errorf("asked for %v and %v", alone, posts)
		}
	})
}

func sizesOf(posts [][]string) (sizes []int) {
	for _, names := range posts {
		sizes = append(sizes, len(names))
	}
	return sizes
}

// When the context ends, so does the request, which tells nothing about the bulk
// URL, and each user has an outcome.
func TestBulkCanceled(t *testing.T) {
	leak.Check(t)
	gone := make(chan struct{})
	c := newCrowd(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	})
	b := newBulkBench(t, c, 3)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		until(t, func() bool { _, posts := c.asked(); return len(posts) == 1 }) // the backend has them
		cancel()
	}()
	for range 2 { // and when it has ended before, nobody is asked for
		for _, err := range b.manyErrors(t, ctx, "user1", "user2", "user3") {
			if e, ok := err.(*Error); !ok || e.Result != resultCanceled {
				t.Error(err)
			}
		}
	}
	<-gone
	if alone, posts := c.asked(); len(alone) != 0 || len(posts) != 1 {
		t.Errorf("asked for %v and %v", alone, posts)
	}
	if b.bulkFetches(bulkFailed) != 0 || b.fetches(resultCanceled) != 6 || b.inFlight() != 0 || b.BatchSize("example.org") != 3 {
		t.Errorf("counted %s", b.exposed(t))
	}
	c.mu.Lock()
	c.bulk = nil
	c.mu.Unlock()
	b.many(t, "user1", "user2") // nothing is left in the way
}

// While the backend is down, nothing is sent; the many who were to be asked for
// together do not all ask alone either.
func TestBulkCircuit(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 50, func(o *Options) { o.MaxInFlight = 8 })
	c.Close()
	b.inBatches(numberedNames(1000), func(names []string) {
		for _, err := range b.manyErrors(t, t.Context(), names...) {
			if err == nil {
				t.Error("no error")
			}
		}
	})
	if refused, open := b.fetches(resultRefused), b.fetches(resultOpen); refused > 40 || refused+open != 1000 {
		t.Errorf("%v refused, %v not asked for", refused, open)
	}
	if n := b.bulkFetches(bulkFailed); n > bulkRequests {
		t.Errorf("%v times together", n)
	}
}

// bulkRequests are as many FetchMany of one domain as users has at once.
const bulkRequests = 4

// inBatches calls fetch with as many names at once as BatchSize says, as many times
// at once as it may be.
func (b *bench) inBatches(names []string, fetch func(names []string)) {
	slots := make(chan struct{}, bulkRequests)
	var wg sync.WaitGroup
	for len(names) > 0 {
		slots <- struct{}{}
		n := min(b.BatchSize("example.org"), len(names))
		batch := names[:n]
		names = names[n:]
		wg.Go(func() {
			defer func() { <-slots }()
			fetch(batch)
		})
	}
	wg.Wait()
}

// However many are in no hurry, a query finds a slot.
func TestBulkLeavesSlots(t *testing.T) {
	for _, test := range []struct{ maxInFlight, background int }{{4, 3}, {12, 9}} {
		leak.Check(t)
		c := newCrowd(t, answer(404, ""))
		b := newBulkBench(t, c, 20, func(o *Options) { o.MaxInFlight = test.maxInFlight })
		names := numberedNames(20)
		var releases []func()
		for _, name := range names {
			releases = append(releases, c.holds(name))
		}
		var wg sync.WaitGroup
		wg.Go(func() { b.many(t, names...) })
		until(t, func() bool { alone, _ := c.asked(); return len(alone) == test.background }) // as many as may
		if _, err := b.Fetch(inHurry(t.Context()), juliet); err != nil {
			t.Error(err)
		}
		if alone, _ := c.asked(); len(alone) != test.background+1 {
			t.Errorf("asked for %v", alone)
		}
		for _, release := range releases {
			release()
		}
		wg.Wait()
	}
}

// A circuit at the host of the bulk URL alone is probed there.
func TestBulkProbe(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(refuse), func(o *Options) {
			o.BulkURL = func(string) (string, bool) { return "http://bulk.test/bulk", true }
			o.BulkSize = 10
		})
		q := b.bulk("example.org")
		for i := range tripFetches {
			if failure := b.post(t.Context(), q.url, []jid.JID{numbered(i)}, func(int, *roster.Roster) {}); failure == nil {
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

// Under load, all are asked for together, and each gets their own roster.
func TestBulkLoad(t *testing.T) {
	leak.Check(t)
	c := newCrowd(t, nil)
	b := newBulkBench(t, c, 100, func(o *Options) { o.MaxInFlight = 16 })
	b.inBatches(numberedNames(3000), func(names []string) { b.many(t, names...) })
	if alone, posts := c.asked(); len(alone) != 0 || len(posts) != 30 || b.fetches(resultOK) != 3000 {
		t.Errorf("%d alone, %d together", len(alone), len(posts))
	}
}

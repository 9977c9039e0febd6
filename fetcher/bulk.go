package fetcher

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// How long fewer are asked for at once after a failure, and after one that will hardly
// pass by itself.
const (
	bulkPause     = 5 * time.Second
	bulkLongPause = 5 * time.Minute
)

// The results of a request for several users, as label values.
const (
	bulkOK     = "ok"
	bulkFailed = "failed"
)

// BulkResults are all values of the label of [Metrics.BulkFetches], not to be modified.
var BulkResults = []string{bulkOK, bulkFailed}

// bulk is the bulk URL of one domain, and how well it works. It is safe for
// concurrent use.
type bulk struct {
	f       *Fetcher
	url     string
	backend string // its host:port

	mu      sync.Mutex // guards all below; nothing blocks while it is held
	limit   int        // how many are asked for at once before until; 1: each alone
	until   time.Time  // from then on as many as Options.BulkSize says
	failing bool       // it was logged that all are asked for alone, and not yet that this is over
}

// bulk finds or makes the bulk of a domain. It is nil if its users are asked for alone.
func (f *Fetcher) bulk(domain string) *bulk {
	if f.options.BulkURL == nil || f.options.BulkSize < 2 {
		return nil
	}
	text, ok := f.options.BulkURL(domain)
	if !ok {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.bulks[domain]
	if b == nil {
		b = &bulk{f: f, url: text}
		if u, err := url.Parse(text); err == nil {
			b.backend = backendOf(u)
		}
		f.bulks[domain] = b
	}
	return b
}

// BatchSize is how many users of a domain one [Fetcher.FetchMany] is best given
// now. It is 1 where users are asked for alone, for a while or always.
func (f *Fetcher) BatchSize(domain string) int {
	b := f.bulk(domain)
	if b == nil {
		return 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.until) {
		return b.limit
	}
	return f.options.BulkSize
}

// FetchMany asks for several users of one domain, for whom no query waits and none
// of whom comes twice: with one request if it can, else for each alone, like
// [Fetcher.Fetch]. Those who came in one answer have no Validator.
//
// It calls done once for each request rs[i], from any goroutine, as soon as its
// outcome is known, and returns when all are. The error is an [*Error] or nil. done
// must not block: the memory for an answer is held meanwhile. If ctx ends, so does
// what is under way.
func (f *Fetcher) FetchMany(ctx context.Context, rs []roster.Request, done func(i int, got roster.Fetched, err error)) {
	var alone sync.WaitGroup
	defer alone.Wait()
	fetchAlone := func(indices ...int) {
		for _, i := range indices {
			alone.Go(func() {
				got, err := f.Fetch(ctx, rs[i])
				done(i, got, err)
			})
		}
	}
	var left []int // of rs
	for i, r := range rs {
		if r.User.Local() != "" {
			left = append(left, i)
		} else {
			fetchAlone(i)
		}
	}
	for len(left) > 0 {
		domain := rs[left[0]].User.Domain()
		n, tooMany := min(f.BatchSize(domain), len(left)), false
		unanswered := left[:n]
		if n > 1 {
			unanswered, tooMany = f.bulk(domain).fetch(ctx, rs, unanswered, done)
		}
		if left = left[n:]; tooMany {
			left = append(unanswered, left...)
		} else {
			fetchAlone(unanswered...)
		}
	}
}

// fetch asks for those of rs that the indices name with one request. It returns the
// indices of those that were not answered. tooMany says that it may work with fewer.
func (b *bulk) fetch(ctx context.Context, rs []roster.Request, indices []int, done func(int, roster.Fetched, error)) (unanswered []int, tooMany bool) {
	users := make([]jid.JID, len(indices))
	for n, i := range indices {
		users[n] = rs[i].User.Bare()
	}
	answered := make([]bool, len(users))
	failure := b.f.post(ctx, b.url, users, func(n int, r *roster.Roster) {
		answered[n] = true
		got, _ := b.f.count(roster.Fetched{Roster: r}, nil)
		done(indices[n], got, nil)
	})
	for n, i := range indices {
		if !answered[n] {
			unanswered = append(unanswered, i)
		}
	}
	return unanswered, b.ended(len(users), failure)
}

// ended draws the conclusions from a request for n users. tooMany says that fewer
// at once may work.
func (b *bulk) ended(n int, failure *Error) (tooMany bool) {
	results, log := b.f.options.Metrics.BulkFetches, b.f.options.Logger.With("backend", b.backend)
	if failure == nil {
		results.WithLabelValues(bulkOK).Inc()
		b.mu.Lock()
		again := b.failing
		b.failing = false
		b.mu.Unlock()
		if again {
			log.Info("contacts are fetched in bulk again")
		}
		return false
	}
	if failure.cause != nil && !failure.down || failure.Result == resultOpen {
		return false // the caller's context or the breaker ended it, not the bulk URL
	}
	results.WithLabelValues(bulkFailed).Inc()
	limit, while := 1, bulkPause
	switch {
	case failure.Result == resultTooLarge || failure.Status == http.StatusRequestEntityTooLarge:
		limit, while = max(1, n/2), bulkLongPause
	case slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, failure.Status):
		while = bulkLongPause
	}
	b.mu.Lock()
	b.limit, b.until = limit, time.Now().Add(while)
	logged := b.failing
	b.failing = logged || limit == 1
	b.mu.Unlock()
	switch {
	case limit > 1:
		log.Warn("an answer in bulk was too large: fewer users are asked for at once for a while", "while", while, "users", limit)
	case !logged:
		log.Warn("contacts cannot be fetched in bulk: each user is asked for alone for a while", "while", while, "err", failure.text)
	}
	return limit > 1
}

// post asks for several users with one request: a POST of the array of their
// localparts, answered with an object that has the contacts of each. got is called
// with the index of each user whose contacts it has. The request fails if those are
// none.
func (f *Fetcher) post(ctx context.Context, url string, users []jid.JID, got func(i int, r *roster.Roster)) *Error {
	names := make([]string, len(users))
	for i, user := range users {
		names[i] = user.Local()
	}
	body, _ := json.Marshal(names) // texts can be written always
	header := http.Header{
		"Content-Type": {"application/json"},
		// It changes nothing, so it may be sent again on a new connection if the old
		// one was closed meanwhile, as a GET may. The empty list says that to net/http
		// alone, and is not sent.
		"Idempotency-Key": {},
	}
	req, failure := f.newRequest(http.MethodPost, url, header, bytes.NewReader(body))
	if failure != nil {
		return failure
	}
	return f.exchange(ctx, req, users[0], false, func(a response) *Error {
		d := f.decoders.Get().(*decoder)
		defer f.putDecoder(d)
		values, failure := d.split(a.body, names)
		if failure != nil {
			return failure
		}
		usable := 0
		for i, user := range users {
			if values[i] == "" || ctx.Err() != nil {
				continue
			}
			if r, found, failure := d.decode(values[i], user); failure == nil {
				usable++
				f.report(ctx, user, found)
				got(i, r)
			}
		}
		if usable == 0 && ctx.Err() == nil {
			return &Error{Result: resultInvalid, text: "no contacts of the users that were asked for", nobody: true}
		}
		return nil
	})
}

// split finds the JSON that an answer has for each name, "" if none. A name that
// comes twice has null, which is no contacts: nobody knows which one is meant.
func (d *decoder) split(body string, names []string) ([]string, *Error) {
	index := make(map[string]int, len(names))
	for i, name := range names {
		index[name] = i
	}
	values := make([]string, len(names))
	d.begin(body)
	if d.kind() != '{' {
		d.skipValue()
		return nil, cmp.Or(d.end(), &Error{Result: resultInvalid, text: "not a JSON object"})
	}
	for d.open(); d.more(); {
		i, known := index[text(d.value())]
		switch {
		case !known:
			d.skipValue()
		case values[i] != "":
			d.skipValue()
			values[i] = "null"
		default:
			values[i] = d.value()
		}
	}
	return values, d.end()
}

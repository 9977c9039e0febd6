package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
)

// newEditBench makes a bench whose edits go to a backend.
func newEditBench(t *testing.T, base string, change ...func(*Options)) *bench {
	t.Helper()
	return newBench(t, base, append([]func(*Options){func(o *Options) {
		o.EditURL = func(domain string) (string, bool) {
			return base + "/edit/" + domain + "?key=" + secret, domain == "example.org"
		}
	}}, change...)...)
}

var rename = roster.Change{Action: roster.Changed, Item: roster.Item{JID: mustParse("romeo@example.org"), Name: "R<&\u202e\t\u007f", Groups: []string{"A", "B"}}}

// The backend is told who changes what, with the headers of the contacts.
func TestEdit(t *testing.T) {
	leak.Check(t)
	var got atomic.Value
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("X-Key"), " ", r.Header.Get("Authorization"), " ", r.Header.Get("Content-Type"), " ", r.Header.Get("Idempotency-Key"), " ", string(body)))
		w.WriteHeader(204)
	})
	b := newEditBench(t, s.URL, func(o *Options) { o.Header.Set("Idempotency-Key", "x") })
	for _, c := range []struct {
		change roster.Change
		body   string
	}{
		{rename, `{"user":"juliet","action":"update","jid":"romeo@example.org","name":"R\u003c\u0026` + "\u202e" + `\t` + "\u007f" + `","groups":["A","B"]}`},
		{roster.Change{Action: roster.Added, Item: roster.Item{JID: mustParse("example.net")}}, `{"user":"juliet","action":"add","jid":"example.net","name":"","groups":[]}`},
		{roster.Change{Action: roster.Removed, Item: roster.Item{JID: mustParse("romeo@example.org")}}, `{"user":"juliet","action":"remove","jid":"romeo@example.org","name":"","groups":[]}`},
	} {
		if err := b.Edit(t.Context(), juliet, c.change); err != nil {
			t.Error(err)
		}
		if want := "POST /edit/example.org?key=" + secret + " " + secret + " Bearer " + secret + " application/json  " + c.body; got.Load() != want {
			t.Errorf("sent\n%s, want\n%s", got.Load(), want)
		}
	}
	for _, user := range []string{"juliet@example.net", "juliet@example.com"} {
		if err := b.Edit(t.Context(), mustParse(user), rename); !errors.As(err, new(*roster.NotAllowedError)) {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := newBench(t, s.URL).Edit(t.Context(), juliet, rename); !errors.As(err, new(*roster.NotAllowedError)) {
		t.Errorf("without a URL: %v", err)
	}
}

// What each answer means. None says the URL's secret, nor what the body has but its message.
func TestEditAnswers(t *testing.T) {
	leak.Check(t)
	long := strings.Repeat("ü", 600)
	refused := func(message string) func(error) bool {
		return func(err error) bool {
			var r *roster.NotAllowedError
			return errors.As(err, &r) && r.Message == message
		}
	}
	failed := func(status int) func(error) bool {
		return func(err error) bool {
			e, ok := err.(*Error)
			return ok && e.Result == resultStatus && e.Status == status
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		is      func(error) bool
	}{
		"taken":                         {answer(200, "<html>"), func(err error) bool { return err == nil }},
		"taken, with an endless body":   {endless("x"), func(err error) bool { return err == nil }},
		"accepted":                      {answer(202, ""), func(err error) bool { return err == nil }},
		"another place":                 {answer(307, ""), failed(307)},
		"not modified":                  {answer(304, ""), failed(304)},
		"refused":                       {answer(403, `{"message": " Nein\u0000, \ud83c\udf39 ]]> "}`), refused("Nein, 🌹 ]]>")},
		"refused, with a mark":          {answer(422, "\ufeff"+`{"a": [], "message": "no"}`), refused("no")},
		"refused at length":             {answer(400, `{"message": "`+long+`"}`), refused(strings.Repeat("ü", 510) + "…")},
		"refused with a trace behind":   {answer(422, `{"message": "no", "trace": "`+strings.Repeat("x", 17<<10)+`"}`), refused("no")},
		"refused with a trace before":   {answer(422, `{"trace": [{"message": "`+bodySecret+`"}, "`+strings.Repeat("x", 900<<10)+`"], "message": "no"}`), refused("no")},
		"refused with too long a trace": {answer(422, `{"trace": "`+strings.Repeat("x", 1<<20)+`", "message": "no"}`), refused("")},
		"refused twice":                 {answer(409, `{"message": "no", "message": "`+bodySecret+`"}`), refused("no")},
		"refused deeper":                {answer(409, `{"error": {"message": "`+bodySecret+`"}}`), refused("")},
		"refused with a number":         {answer(409, `{"message": 1, "x": "`+bodySecret+`"}`), refused("")},
		"refused with null":             {answer(409, `{"message": null}`), refused("")},
		"refused in an array":           {answer(409, `["message", "`+bodySecret+`"]`), refused("")},
		"refused, cut off":              {answer(409, `{"message": "`+bodySecret), refused("")},
		"refused, stalled behind":       {stalled(409, `{"message": "no", `), refused("no")},
		"refused without a word":        {answer(404, ""), refused("")},
		"refused in HTML":               {answer(401, "<html>"+bodySecret), refused("")},
		"refused with another type":     {answer(405, `{"message": {"`+bodySecret+`": 1}}`), refused("")},
		"refused with an endless body":  {trickle("HTTP/1.1 409 x\r\n\r\n", strings.Repeat(" ", 1<<12)), refused("")},
		"refused, and stalled":          {stalled(409, `{"message": "`), refused("")},
		"too many":                      {answer(429, `{"message": "slower"}`), func(err error) bool { return failed(429)(err) && errors.Is(err, roster.ErrBusy) }},
		"failed":                        {answer(500, `{"message": "`+bodySecret+`"}`), failed(500)},
		"unavailable":                   {answer(503, bodySecret), failed(503)},
		"no HTTP":                       {raw(bodySecret), func(err error) bool { e, ok := err.(*Error); return ok && e.Result == resultInvalid }},
		"hung up":                       {raw(""), func(err error) bool { e, ok := err.(*Error); return ok && e.Result == resultReset }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				io.Copy(io.Discard, r.Body)
				c.handler(w, r)
			})
			b := newEditBench(t, s.URL, func(o *Options) { o.Timeout = time.Second })
			err := b.Edit(t.Context(), juliet, rename)
			if !c.is(err) {
				t.Errorf("%#v", err)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("sent %d times", n)
			}
			if text := fmt.Sprint(err) + b.exposed(t); strings.Contains(text, secret) || strings.Contains(text, bodySecret) {
				t.Errorf("a secret in %s", text)
			}
			if b.inFlight() != 0 || b.open() != 0 {
				t.Errorf("%v in flight, %v open", b.inFlight(), b.open())
			}
		})
	}
}

// Whether the URL or a token is wrong is the operator's business: they read it once a minute.
func TestEditMisdirected(t *testing.T) {
	s := serve(t, answer(404, ""))
	b := newEditBench(t, s.URL)
	for range 5 {
		if err := b.Edit(t.Context(), juliet, rename); !errors.As(err, new(*roster.NotAllowedError)) {
			t.Error(err)
		}
	}
	if n := b.logged("contacts.edit_url"); n != 1 {
		t.Errorf("%d lines: %s", n, b.log)
	}
}

// A backend that does not answer edits keeps nobody from logging in, nor does one edit wait
// longer than its caller.
func TestEditsThatHang(t *testing.T) {
	leak.Check(t)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		io.WriteString(w, good)
	})
	b := newEditBench(t, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for range 20 {
		go func() { errs <- b.Edit(ctx, juliet, rename) }()
	}
	if _, err := b.Fetch(inHurry(t.Context()), juliet); err != nil {
		t.Error(err)
	}
	if _, err := b.Fetch(t.Context(), juliet); err != nil {
		t.Error(err)
	}
	cancel()
	for range 20 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := newEditBench(t, s.URL, func(o *Options) { o.Timeout = 50 * time.Millisecond }).Edit(t.Context(), juliet, rename); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// While the backend is down, it is not asked to take an edit either.
func TestEditWhileTheBackendIsDown(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(503), func(o *Options) {
			o.EditURL = func(string) (string, bool) { return "http://backend.test/edit", true }
		})
		for i := range tripFetches {
			b.result(t.Context(), numbered(i))
		}
		if b.open() != 1 {
			t.Fatal("the circuit is closed")
		}
		before := s.count()
		if err, _ := b.Edit(t.Context(), juliet, rename).(*Error); err == nil || err.Result != resultOpen || s.count() != before {
			t.Errorf("%v, %d requests", err, s.count()-before)
		}
	})
}

// An edit for a domain whose contacts are elsewhere does not keep from being found that this
// backend is up again.
func TestEditForContactsElsewhere(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(503), func(o *Options) {
			o.EditURL = func(string) (string, bool) { return "http://backend.test/edit", true }
			o.URL = func(user jid.JID) (string, error) {
				if user.Domain() == "example.net" {
					return "http://elsewhere.test/contacts", nil
				}
				return "http://backend.test/contacts", nil
			}
		})
		s.open(t, b)
		if err, _ := b.Edit(t.Context(), mustParse("juliet@example.net"), rename).(*Error); err == nil || err.Result != resultOpen {
			t.Error(err)
		}
		s.now(200)
		time.Sleep(2 * openTime)
		if b.open() != 0 {
			t.Error("the circuit is open")
		}
	})
}

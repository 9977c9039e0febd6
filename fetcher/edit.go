package fetcher

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	// maxAnswer is how much of a refusal is read: a framework in debug mode puts a trace beside
	// the message. maxMessage is how much of its message a user is shown. Both are in bytes.
	maxAnswer  = 1 << 20
	maxMessage = 1 << 10
)

// edit is the body of the request for an edit.
type edit struct {
	User   string   `json:"user"`   // the localpart, as in a request for many users
	Action string   `json:"action"` // add, update or remove
	JID    jid.JID  `json:"jid"`    // of the contact
	Name   string   `json:"name"`
	Groups []string `json:"groups"` // not null
}

var editActions = map[roster.Action]string{roster.Added: "add", roster.Changed: "update", roster.Removed: "remove"}

// Edit passes a change that a user (a bare JID) makes of their own contacts to the backend:
// one POST, which is never repeated. It waits for a place if too many requests are under way,
// and returns when ctx ends. The error is a [*roster.NotAllowedError] if the answer is 4xx,
// 429 excepted; any other is an [*Error] fit for everybody's eyes, after which the backend may
// have taken the change all the same.
//
// Edits have a quarter of all places, and none that is kept for those who log in. They do not
// count for whether the backend is down; while it is, it is not asked.
func (f *Fetcher) Edit(ctx context.Context, user jid.JID, c roster.Change) error {
	if f.options.EditURL == nil {
		return &roster.NotAllowedError{}
	}
	url, ok := f.options.EditURL(user.Domain())
	if !ok {
		return &roster.NotAllowedError{}
	}
	body, _ := json.Marshal(edit{user.Local(), editActions[c.Action], c.Item.JID, c.Item.Name, append([]string{}, c.Item.Groups...)})
	req, failure := f.newRequest(http.MethodPost, url, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(body))
	if failure != nil {
		return failure
	}
	// net/http would send it again on a new connection: by HTTP/1 with such a field, and by
	// HTTP/2 with a body that it can read again.
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		delete(req.Header, name)
	}
	req.GetBody = nil
	if err := f.edits.Acquire(ctx, 1); err != nil {
		return contextError(err, "timed out while it waited for other edits")
	}
	defer f.edits.Release(1)
	release, err := f.slot(ctx, false)
	if err != nil {
		return contextError(err, "timed out while it waited for fetches")
	}
	defer release()
	if f.breaker(req.URL).isOpen() {
		return circuitOpen()
	}
	f.options.Metrics.InFlight.Inc()
	defer f.options.Metrics.InFlight.Dec()
	start := time.Now()
	message, failure := f.sendEdit(ctx, req)
	f.options.Metrics.Duration.Observe(time.Since(start).Seconds())
	switch {
	case failure == nil:
		return nil
	case failure.Status == http.StatusTooManyRequests:
		failure.cause = roster.ErrBusy
	case failure.Status >= 400 && failure.Status < 500:
		if slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, failure.Status) {
			f.misdirected.Do(func() {
				f.options.Logger.Warn("the backend refuses an edit of a user: if it refuses all, contacts.edit_url, contacts.token or contacts.headers may be wrong",
					"backend", backendOf(req.URL), "user", user, "status", failure.Status)
			})
		}
		return &roster.NotAllowedError{Message: message}
	}
	f.nameProxy(req, failure)
	return failure
}

// sendEdit sends an edit, and returns nil if the answer is 2xx, of which no body is needed.
// message is what a refusal tells the user.
func (f *Fetcher) sendEdit(ctx context.Context, req *http.Request) (message string, failure *Error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.options.Timeout, errTimeout)
	defer cancel()
	resp, err := f.transport.Load().RoundTrip(req.WithContext(ctx))
	if err != nil {
		return "", f.failure(ctx, err)
	}
	defer resp.Body.Close()
	status := resp.StatusCode
	if status >= 400 && status < 500 {
		message = messageOf(resp)
	}
	drain(resp.Body, cancel)
	if status >= 200 && status < 300 {
		return "", nil
	}
	return message, &Error{Result: resultStatus, Status: status, text: fmt.Sprintf("the backend answered %d", status), down: status >= 500}
}

// messageOf is the text of the first member message in the JSON object of an answer, fit for
// XML and bounded; "" if there is none, or if it is no text. Nothing behind it is read.
func messageOf(resp *http.Response) string {
	content, _, err := decoded(resp)
	if err != nil {
		return ""
	}
	body := bufio.NewReader(io.LimitReader(content, maxAnswer))
	if mark, _ := body.Peek(len("\ufeff")); string(mark) == "\ufeff" {
		_, _ = body.Discard(len(mark))
	}
	answer := jsontext.NewDecoder(body, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if token, err := answer.ReadToken(); err != nil || token.Kind() != '{' {
		return ""
	}
	for {
		name, err := answer.ReadToken()
		if err != nil || name.Kind() != '"' {
			return ""
		}
		if strings.EqualFold(name.String(), "message") {
			break
		}
		if answer.SkipValue() != nil {
			return ""
		}
	}
	text, err := answer.ReadToken()
	if err != nil || text.Kind() != '"' {
		return ""
	}
	message := strings.TrimSpace(roster.CleanText(text.String()))
	if len(message) <= maxMessage {
		return message
	}
	end := maxMessage - len("…")
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + "…"
}

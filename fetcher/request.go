package fetcher

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"rosterd/jid"
)

const (
	firstRead = 1 << 20 // most that is allocated on the word of a Content-Length

	// How much of a useless body is read, and how long, to keep its connection.
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

// get is one GET of the user's contacts URL: the body of an answer 200.
//
// It calls RoundTrip instead of [http.Client.Do], which would follow redirects
// and wrap errors together with the URL.
func (f *Fetcher) get(ctx context.Context, user jid.JID) ([]byte, *Error) {
	req, failure := f.request(user)
	if failure != nil {
		return nil, failure
	}
	deadline, cancel := context.WithTimeoutCause(ctx, f.timeout, errTimeout)
	defer cancel()
	resp, err := f.transport.RoundTrip(req.WithContext(deadline))
	if err != nil {
		return nil, f.failure(deadline, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		drain(resp.Body, cancel)
		return nil, statusError(resp.StatusCode)
	}
	// What the Transport asked for, it has decoded and taken off the header.
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &Error{Result: resultInvalid, text: "the answer has a content encoding that cannot be read"}
	}
	if resp.ContentLength > f.maxBytes {
		return nil, tooLarge(f.maxBytes)
	}
	var body bytes.Buffer
	body.Grow(int(min(max(resp.ContentLength, 0), firstRead)) + bytes.MinRead)
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, f.maxBytes+1)); err != nil {
		return nil, f.failure(deadline, err)
	}
	if int64(body.Len()) > f.maxBytes {
		return nil, tooLarge(f.maxBytes)
	}
	return body.Bytes(), nil
}

// request is the request for the user's contacts. The errors it swallows hold
// the URL, which may hold a key.
func (f *Fetcher) request(user jid.JID) (*http.Request, *Error) {
	url, err := f.url(user)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "no contacts URL can be made for the user"}
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "the contacts URL is not valid"}
	}
	if u := req.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	for name, values := range f.header {
		req.Header[name] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // net/http ignores the field in the header
	}
	return req, nil
}

// drain reads a bounded rest of body: only a connection whose answer was read
// to its end is used again. Calling cancel ends the reading.
func drain(body io.Reader, cancel context.CancelFunc) {
	defer time.AfterFunc(drainTime, cancel).Stop()
	_, _ = io.CopyN(io.Discard, body, drainBytes) // failed, the connection is closed
}

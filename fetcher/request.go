package fetcher

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"rosterd/roster"
)

const (
	pieceSize = 16 << 10 // is read at once

	// How much of a useless body is read, and how long, to keep its connection.
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

// response is what a backend has answered.
type response struct {
	body   string
	header http.Header
	same   bool // as what the request said is known; there is no body
}

// bom is the byte order mark, which some write before UTF-8.
const bom = "\ufeff"

// get sends one request, and reads the body of an answer 200. The deadline of ctx
// is that of the fetch.
//
// It calls RoundTrip instead of [http.Client.Do], which would follow redirects
// and wrap errors together with the URL.
func (f *Fetcher) get(ctx context.Context, req *http.Request) (a response, failure *Error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := f.transport.Load().RoundTrip(req.WithContext(ctx))
	if err != nil {
		return a, f.failure(ctx, err)
	}
	defer resp.Body.Close()
	a.header = resp.Header
	if resp.StatusCode == http.StatusNotModified && conditional(req) {
		a.same = true
		return a, nil
	}
	if resp.StatusCode != http.StatusOK {
		drain(resp.Body, cancel)
		return a, statusError(resp.StatusCode)
	}
	if resp.ContentLength > f.maxBytes {
		return a, tooLarge(f.maxBytes)
	}
	body, odd, err := decoded(resp)
	if err != nil {
		return a, f.failure(ctx, err)
	}
	if a.body, err = f.read(io.LimitReader(body, f.maxBytes+1)); err != nil {
		return a, f.failure(ctx, err)
	}
	if int64(len(a.body)) > f.maxBytes {
		return a, tooLarge(f.maxBytes)
	}
	if a.body = strings.TrimPrefix(a.body, bom); odd && !valid(a.body) {
		return a, &Error{Result: resultInvalid, text: "not JSON, and the answer has a content coding that there is not"}
	}
	return a, nil
}

// read is all that r has. It is read in pieces, whose memory is used again, and
// then joined: few answers say how long they are, and one that grows is copied
// several times.
func (f *Fetcher) read(r io.Reader) (string, error) {
	var pieces []*[pieceSize]byte
	defer func() {
		for _, piece := range pieces {
			f.pieces.Put(piece)
		}
	}()
	length := 0
	for {
		if length == len(pieces)*pieceSize {
			pieces = append(pieces, f.pieces.Get().(*[pieceSize]byte))
		}
		n, err := r.Read(pieces[len(pieces)-1][length%pieceSize:])
		length += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	var body strings.Builder
	body.Grow(length)
	for _, piece := range pieces {
		body.Write(piece[:min(length-body.Len(), pieceSize)])
	}
	return body.String(), nil
}

// request is the request for the user's contacts. The errors it swallows hold
// the URL, which may hold a key.
func (f *Fetcher) request(r roster.Request) (*http.Request, *Error) {
	url, err := f.url(r.User)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "no contacts URL can be made for the user"}
	}
	req, failure := f.newRequest(http.MethodGet, url, make(http.Header), nil)
	if failure == nil {
		condition(req, r.Validator, r.Reported)
	}
	return req, failure
}

// newRequest makes a request with a header, which it takes, and all that is sent
// with every fetch.
func (f *Fetcher) newRequest(method, url string, header http.Header, body io.Reader) (*http.Request, *Error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "the contacts URL is not valid"}
	}
	req.Header = header
	if u := req.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	for name, values := range *f.header.Load() {
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

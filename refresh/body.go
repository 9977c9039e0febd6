package refresh

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errBusy says that a caller has their share of large bodies.
var errBusy = errors.New("too many large requests")

// body is the body of a request. If a part of it does not arrive in time, reading
// fails with [os.ErrDeadlineExceeded]. A large body takes a share until release;
// if there is none, reading fails with errBusy.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	end     time.Time // when all of it has to be there

	take    func() (release func(), ok bool)
	release func()
	read    int64
	err     error // of the last Read
}

// newBody is the body of r. It may not be read after r was served.
func newBody(w http.ResponseWriter, r *http.Request, l Limits, take func() (func(), bool)) *body {
	return &body{ReadCloser: r.Body, control: http.NewResponseController(w), stall: l.Stall, end: time.Now().Add(l.Body),
		take: take, release: func() {}}
}

// await sets the deadline for the next part.
func (b *body) await() {
	deadline := time.Now().Add(b.stall)
	if deadline.After(b.end) {
		deadline = b.end
	}
	_ = b.control.SetReadDeadline(deadline) // fails in tests without a connection
}

func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		// After the end, net/http reads on to see the caller hang up. A deadline
		// would look like that.
		return 0, b.err
	}
	b.await()
	n, b.err = b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.read > largeBody && b.read-int64(n) <= largeBody {
		release, ok := b.take()
		if !ok {
			b.err = errBusy
			return 0, b.err
		}
		b.release = release
	}
	return n, b.err
}

// bom is the byte order mark, which some write before UTF-8.
const bom = "\ufeff"

// entry is one element of a request's array.
type entry struct {
	name string // as it was given; a number is the name that it spells
	err  error  // why it cannot be a name; nil if it may be one
}

// decode reads a JSON array and nothing else, without holding all of it. Its
// error is of the reader, or says what the body is in place of an array.
func decode(body io.Reader) ([]entry, error) {
	const wants = "wants a JSON array of usernames, got "
	r := bufio.NewReader(body)
	if mark, _ := r.Peek(len(bom)); string(mark) == bom {
		_, _ = r.Discard(len(bom)) // it is there
	}
	d := json.NewDecoder(r)
	d.UseNumber()
	first, err := d.Token()
	if delim, isDelim := first.(json.Delim); err == nil && delim != '[' {
		if isDelim {
			return nil, errors.New(wants + "an object")
		}
		return nil, errors.New(wants + "a single value")
	}
	list := []entry{}
	for err == nil && d.More() {
		var element json.RawMessage
		if err = d.Decode(&element); err == nil {
			list = append(list, entryOf(element))
		}
	}
	if err == nil {
		_, err = d.Token() // the end of the array
	}
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return list, nil
		}
		if err == nil {
			return nil, errors.New(wants + "something behind it")
		}
	}
	switch {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New(wants + "none, or a part")
	case errors.As(err, new(*json.SyntaxError)):
		return nil, fmt.Errorf("%sno JSON: %w", wants, err)
	}
	return nil, err
}

// entryOf reads a valid element.
func entryOf(element json.RawMessage) entry {
	switch element[0] {
	case '"':
		var name string
		err := json.Unmarshal(element, &name) // no string of valid JSON fails
		return entry{name, err}
	case '{', '[':
		return entry{err: errors.New("an object or array is no name")}
	case 'n', 't', 'f':
		return entry{err: fmt.Errorf("%s is no name", element)}
	}
	return entry{name: string(element)}
}

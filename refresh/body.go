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

// notArray says what a body is in place of an array.
type notArray string

func (e notArray) Error() string { return "wants a JSON array of usernames, got " + string(e) }

// decode reads a JSON array and nothing else, without holding all of it. Its
// error is a notArray, or of the reader.
func decode(body io.Reader) ([]entry, error) {
	r := bufio.NewReader(body)
	if mark, _ := r.Peek(len(bom)); string(mark) == bom {
		_, _ = r.Discard(len(bom)) // it is there
	}
	d := json.NewDecoder(r)
	d.UseNumber()
	switch first, err := d.Token(); {
	case err == io.EOF:
		return nil, notArray("an empty body")
	case err != nil:
		return nil, inWords(err)
	case first != json.Delim('['):
		return nil, notArray(kindOf(first))
	}
	list := []entry{}
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, inWords(err)
		}
		list = append(list, entryOf(element))
	}
	if _, err := d.Token(); err != nil {
		return nil, inWords(err)
	}
	_, err := d.Token()
	if err == io.EOF {
		return list, nil
	}
	if err = inWords(err); err == nil || errors.As(err, new(notArray)) {
		err = notArray("one with something behind it")
	}
	return nil, err
}

// kindOf names a value that is no array by its first token.
func kindOf(first json.Token) string {
	switch first.(type) {
	case json.Delim:
		return "an object"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	}
	return "null"
}

// inWords makes an error of JSON a notArray. Others stay.
func inWords(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return notArray("one that is cut off")
	case errors.As(err, new(*json.SyntaxError)):
		return notArray("what is no JSON")
	}
	return err
}

// entryOf reads a valid element.
func entryOf(element json.RawMessage) entry {
	what := string(element)
	switch element[0] {
	case '"':
		var name string
		err := json.Unmarshal(element, &name) // no string of valid JSON fails
		return entry{name, err}
	case 'n', 't', 'f':
	case '{':
		what = "an object"
	case '[':
		what = "an array"
	default:
		return entry{name: what}
	}
	return entry{err: fmt.Errorf("%s is no name", what)}
}

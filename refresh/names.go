package refresh

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// bom is the byte order mark, which some write before UTF-8.
const bom = "\ufeff"

// named is one element of a request's array.
type named struct {
	name string // as it was given; a number is the one that it spells
	err  error  // why it cannot be a name; nil if it may be one
}

// wantsArray is why a body is no array.
type wantsArray string

func (e wantsArray) Error() string { return "wants a JSON array of usernames, got " + string(e) }

// decode reads a JSON array, and nothing else. Its error is a wantsArray, or of who
// is read from.
func decode(body io.Reader) ([]named, error) {
	r := bufio.NewReader(body)
	if mark, _ := r.Peek(len(bom)); string(mark) == bom {
		_, _ = r.Discard(len(bom)) // it is there
	}
	d := json.NewDecoder(r)
	d.UseNumber()
	if err := begins(d); err != nil {
		return nil, err
	}
	list := []named{}
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, inWords(err)
		}
		list = append(list, nameOf(element))
	}
	if _, err := d.Token(); err != nil {
		return nil, inWords(err)
	}
	_, err := d.Token()
	if err == io.EOF {
		return list, nil
	}
	if err = inWords(err); err == nil || errors.As(err, new(wantsArray)) {
		err = wantsArray("one with something behind it")
	}
	return nil, err
}

// begins reads the bracket that an array begins with.
func begins(d *json.Decoder) error {
	first, err := d.Token()
	if err == io.EOF {
		return wantsArray("an empty body")
	}
	if err != nil {
		return inWords(err)
	}
	switch first := first.(type) {
	case json.Delim:
		if first == '[' {
			return nil
		}
		return wantsArray("an object")
	case string:
		return wantsArray("a string")
	case json.Number:
		return wantsArray("a number")
	case bool:
		return wantsArray("true or false")
	}
	return wantsArray("null")
}

// inWords is a wantsArray for what is wrong with the JSON; other errors stay.
func inWords(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return wantsArray("one that is cut off")
	case errors.As(err, &syntax):
		return wantsArray("what is no JSON")
	}
	return err
}

func nameOf(element json.RawMessage) named {
	switch element[0] {
	case '"':
		var name string
		if err := json.Unmarshal(element, &name); err != nil {
			return named{err: err} // no string of valid JSON does this
		}
		return named{name: name}
	case 'n':
		return named{err: errors.New("null is no name")}
	case 't', 'f':
		return named{err: fmt.Errorf("%s is no name", element)}
	case '{':
		return named{err: errors.New("an object is no name")}
	case '[':
		return named{err: errors.New("an array is no name")}
	}
	return named{name: string(element)}
}

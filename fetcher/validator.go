package fetcher

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A validator is what is kept of an answer, to ask later whether the contacts are
// still the same (RFC 9110, section 8.8): a hash of the URL from which it came and
// to which alone it is sent, and behind that a tag or a date.
const (
	byTag  = "E" // the ETag follows
	byDate = "D" // the Last-Modified follows, of an answer without ETag
)

const (
	// maxValidator bounds what is kept of a header, in bytes.
	maxValidator = 512
	// clearlyOlder is how much older than the answer its Last-Modified has to be to
	// be a validator: of two changes within a second the first would be taken for
	// the second, and the clocks of backend and files may differ (RFC 9110, section
	// 8.8.2.2, which wants a second at least, and enough against such clocks).
	clearlyOlder = time.Minute
)

// validatorOf is the validator of an answer from u, or "" if it has none.
func validatorOf(u *url.URL, h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && len(tag) <= maxValidator {
		return urlHash(u) + byTag + tag
	}
	text := h.Get("Last-Modified")
	modified, err := http.ParseTime(text)
	if err != nil || len(text) > maxValidator {
		return ""
	}
	if answered, err := http.ParseTime(h.Get("Date")); err != nil || answered.Sub(modified) < clearlyOlder {
		return ""
	}
	return urlHash(u) + byDate + text
}

// condition makes a request conditional on a validator, if that came from the same
// URL. A date does not tell a file that was replaced by an older one: it is not
// trusted where the backend has said that something changed.
func condition(req *http.Request, validator string, reported bool) {
	rest, ok := strings.CutPrefix(validator, urlHash(req.URL))
	if !ok {
		return
	}
	if tag, ok := strings.CutPrefix(rest, byTag); ok {
		req.Header.Set("If-None-Match", tag)
	} else if date, ok := strings.CutPrefix(rest, byDate); ok && !reported {
		req.Header.Set("If-Modified-Since", date)
	}
}

// contradicts reports whether an answer 304 names another tag or date than the
// request did: then it is not of what is known, whatever it says.
func contradicts(req *http.Request, h http.Header) bool {
	differ := func(sent, got string) bool {
		return sent != "" && got != "" && strings.TrimPrefix(sent, "W/") != strings.TrimPrefix(got, "W/")
	}
	return differ(req.Header.Get("If-None-Match"), h.Get("ETag")) || differ(req.Header.Get("If-Modified-Since"), h.Get("Last-Modified"))
}

// urlHash is the hash of a URL.
func urlHash(u *url.URL) string {
	sum := sha256.Sum256([]byte(u.String()))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// conditional reports whether a request may be answered with 304 (RFC 9110,
// section 13.1).
func conditional(req *http.Request) bool {
	return req.Header.Get("If-None-Match") != "" || req.Header.Get("If-Modified-Since") != ""
}

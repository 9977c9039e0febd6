package refresh

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"
)

// Tokens are the tokens that callers may send. If there is none, or Tokens is
// nil, callers need not send any. Tokens are safe for concurrent use.
type Tokens struct {
	// SHA-256 sums can be compared in constant time, whatever the tokens' length.
	sums  atomic.Pointer[[][sha256.Size]byte]
	first atomic.Pointer[string] // see First
}

// NewTokens makes tokens of those in list that are not empty.
func NewTokens(list ...string) *Tokens {
	t := &Tokens{}
	t.Set(list...)
	return t
}

// Set replaces all tokens, from the next request on.
func (t *Tokens) Set(list ...string) {
	var sums [][sha256.Size]byte
	for _, token := range list {
		if token != "" {
			sums = append(sums, sha256.Sum256([]byte(token)))
		}
	}
	t.sums.Store(&sums)
	first := ""
	for _, token := range list {
		first = cmp.Or(first, token)
	}
	t.first.Store(&first)
}

// First is the one with which this instance calls the other one of a pair; "": none.
func (t *Tokens) First() string { return *t.first.Load() }

// allow reports whether a request has one of the tokens (RFC 6750, section 2.1),
// or needs none. The time that it takes does not depend on which token matches,
// or how much of it.
func (t *Tokens) allow(r *http.Request) bool {
	if t == nil || len(*t.sums.Load()) == 0 {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	same := 0
	for _, known := range *t.sums.Load() {
		same |= subtle.ConstantTimeCompare(sum[:], known[:])
	}
	return same == 1 && strings.EqualFold(scheme, "Bearer")
}

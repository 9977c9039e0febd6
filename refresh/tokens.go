package refresh

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"
)

// Tokens are what callers may send. They are safe for concurrent use. nil, as
// without a single one, callers need not send any.
type Tokens struct {
	// Their SHA-256 sums: so they are compared in constant time, whatever their
	// length.
	sums atomic.Pointer[[][sha256.Size]byte]
}

// NewTokens makes tokens of those in list that are not empty.
func NewTokens(list ...string) *Tokens {
	t := &Tokens{}
	t.Set(list...)
	return t
}

// Set replaces all, from the next request on.
func (t *Tokens) Set(list ...string) {
	var sums [][sha256.Size]byte
	for _, token := range list {
		if token != "" {
			sums = append(sums, sha256.Sum256([]byte(token)))
		}
	}
	t.sums.Store(&sums)
}

// allow reports whether a request has one of them, or there are none. How long
// it takes tells neither which one nor how much of it was right.
func (t *Tokens) allow(r *http.Request) bool {
	if t == nil {
		return true
	}
	sums := *t.sums.Load()
	if len(sums) == 0 {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	same := 0
	for i := range sums {
		same |= subtle.ConstantTimeCompare(sum[:], sums[i][:])
	}
	return same == 1 && strings.EqualFold(scheme, "Bearer")
}

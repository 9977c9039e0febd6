package refresh

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// tokens are the SHA-256 sums of what callers may send: so they are compared in
// constant time, whatever their length.
type tokens [][sha256.Size]byte

// newTokens leaves the empty ones out.
func newTokens(list ...string) tokens {
	var t tokens
	for _, token := range list {
		if token != "" {
			t = append(t, sha256.Sum256([]byte(token)))
		}
	}
	return t
}

// allow reports whether a request has one of them, or there are none. How long
// it takes tells neither which one nor how much of it was right.
func (t tokens) allow(r *http.Request) bool {
	if len(t) == 0 {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	same := 0
	for i := range t {
		same |= subtle.ConstantTimeCompare(sum[:], t[i][:])
	}
	return same == 1 && strings.EqualFold(scheme, "Bearer")
}

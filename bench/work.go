package main

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// worked lets each request for h take the processor time that its parameter work
// says, in µs, before it is answered: that is what a request costs an application
// that starts a process, reads a session, or asks its database.
func worked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			µs, _ := strconv.Atoi(r.FormValue("work"))
			work(time.Duration(µs) * time.Microsecond)
		}
		h.ServeHTTP(w, r)
	})
}

// work takes processor time. It is measured in what this processor does, not by
// the clock, which goes on while others have the processor.
func work(long time.Duration) {
	for range long / stint() {
		hash()
	}
}

// stint is how long hash takes here.
var stint = sync.OnceValue(func() time.Duration {
	fastest := time.Hour
	for range 1000 {
		began := time.Now()
		hash()
		fastest = min(fastest, time.Since(began))
	}
	return max(fastest, 1)
})

func hash() {
	var block [4096]byte
	sha256.Sum256(block[:])
}

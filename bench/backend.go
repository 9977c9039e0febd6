package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// backend is the contacts backend of all programs that are compared.
//
//	GET  /contacts/USER   the contacts of a user, with ETag and Last-Modified, or 304
//	POST /bulk            a JSON array of users; the answer is an object user -> contacts
//	POST /change          kind, contacts, first, n: each of these users gets their next version
//	GET  /stats           what was answered so far
//
// The parameter work lets a request take that many µs of processor time, see worked.
type backend struct {
	began time.Time
	stats backendStats
	pool  sync.Pool // of *[]byte

	mu       sync.RWMutex
	versions map[user]int // of those who changed; guarded by mu
}

// backendStats are what the backend has answered.
type backendStats struct {
	Full, NotModified, BulkUsers atomic.Int64
}

func runBackend(args []string) error {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "host:port")
	_ = flags.Parse(args)
	b := newBackend()
	people() // before the first request, as is stint
	stint()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, b.handler())
}

func newBackend() *backend {
	b := &backend{began: time.Now().Add(-time.Hour), versions: make(map[user]int)}
	b.pool.New = func() any { return new([]byte) }
	return b
}

func (b *backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /contacts/{user}", b.contacts)
	mux.HandleFunc("POST /bulk", b.bulk)
	mux.HandleFunc("POST /change", b.change)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"full":%d,"not_modified":%d,"bulk_users":%d}`,
			b.stats.Full.Load(), b.stats.NotModified.Load(), b.stats.BulkUsers.Load())
	})
	return worked(mux)
}

func (b *backend) version(u user) int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.versions[u]
}

func (b *backend) contacts(w http.ResponseWriter, r *http.Request) {
	u, ok := parseUser(r.PathValue("user"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	version := b.version(u)
	tag := `"` + u.String() + "." + strconv.Itoa(version) + `"`
	h := w.Header()
	h.Set("Etag", tag)
	h.Set("Last-Modified", b.began.Add(time.Duration(version)*time.Second).UTC().Format(http.TimeFormat))
	if strings.Contains(r.Header.Get("If-None-Match"), tag) {
		b.stats.NotModified.Add(1)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	b.stats.Full.Add(1)
	body := b.pool.Get().(*[]byte)
	*body = u.appendJSON((*body)[:0], version)
	b.write(w, body)
}

// write answers with a body of the pool.
func (b *backend) write(w http.ResponseWriter, body *[]byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(*body)))
	_, _ = w.Write(*body)
	b.pool.Put(body)
}

func (b *backend) bulk(w http.ResponseWriter, r *http.Request) {
	var names []string
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)).Decode(&names); err != nil {
		http.Error(w, "the body has to be a JSON array of user names", http.StatusBadRequest)
		return
	}
	b.stats.BulkUsers.Add(int64(len(names)))
	body := b.pool.Get().(*[]byte)
	out := append((*body)[:0], '{')
	for _, name := range names {
		u, ok := parseUser(name)
		if !ok {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(strconv.AppendQuote(out, name), ':')
		out = u.appendJSON(out, b.version(u))
	}
	*body = append(out, '}')
	b.write(w, body)
}

func (b *backend) change(w http.ResponseWriter, r *http.Request) {
	number := func(name string) int { n, _ := strconv.Atoi(r.FormValue(name)); return n }
	kind := r.FormValue("kind")
	if len(kind) != 1 {
		http.Error(w, "kind?", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range users(kind[0], number("contacts"), number("first"), number("n")) {
		b.versions[u]++
	}
}

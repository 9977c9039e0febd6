package harness

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"rosterd/internal/freeport"
)

// Contact is an entry of the contacts object. The zero fields are left out.
type Contact struct {
	Name         string          `json:"name,omitempty"`
	Groups       map[string]bool `json:"groups,omitempty"`
	Subscription string          `json:"subscription,omitempty"`
	Ask          string          `json:"ask,omitempty"`
	Approved     bool            `json:"approved,omitempty"`
}

// Contacts are a user's contacts, keyed by JID.
type Contacts map[string]Contact

// Request is what the backend has been asked.
type Request struct {
	URI    string // as it stood in the request line, not decoded
	Header http.Header
	Body   string // of an edit
}

// Fault is what the backend does wrong. The zero value is no fault. Several
// fields may be set: first it waits, then it answers.
type Fault struct {
	Hang  bool            // do not answer until the client gives up or Close
	Until <-chan struct{} // do not answer before this is closed

	Status int    // answer with this status
	Body   []byte // answer with this body
	Cut    bool   // answer with half of the body, then break the connection
	Stall  bool   // answer with half of the body, then nothing, like Hang
}

// Backend is a small contacts backend: GET /contacts/USER answers the contacts
// of USER, which may contain slashes, so that a URL with a domain works as
// well. PUT replaces them. POST /edit takes the edits of users, of the user
// [Edits] for [Backend.Requests] and [Backend.SetFault]. Its methods may be called by several goroutines.
type Backend struct {
	port int

	mu       sync.Mutex
	server   *http.Server      // nil while connections are refused; guarded by mu, as all below
	listener net.Listener      // of server
	bodies   map[string][]byte // contacts by user, as JSON
	faults   map[string]Fault  // by user; "" is for all others
	requires http.Header       // headers without which a request is refused

	requests *feed[userRequest]
	closing  chan struct{}
}

type userRequest struct {
	user string
	Request
}

// Edits stands for the user of all edits.
const Edits = "/edit"

// StartBackend starts a backend without users, which is to be Closed.
func StartBackend() (*Backend, error) {
	ports, err := freeport.Find(1) // one that can be listened on again, see Refuse
	if err != nil {
		return nil, err
	}
	b := &Backend{
		port: ports[0], bodies: map[string][]byte{}, faults: map[string]Fault{}, requires: http.Header{},
		requests: newFeed[userRequest](), closing: make(chan struct{}),
	}
	return b, b.Accept()
}

// BaseURL is the backend's URL without a path.
func (b *Backend) BaseURL() string { return "http://" + freeport.Address(b.port) }

// URL is what contacts.url has to be.
func (b *Backend) URL() string { return b.BaseURL() + "/contacts/%s" }

// EditURL is what contacts.edit_url has to be.
func (b *Backend) EditURL() string { return b.BaseURL() + Edits }

// Set replaces the contacts of a user.
func (b *Backend) Set(user string, contacts Contacts) {
	body, err := json.Marshal(contacts)
	if err != nil {
		panic(err) // strings and booleans: cannot be
	}
	b.SetBody(user, body)
}

// Items are the contacts of a user as a client has them, by JID, or none if they are not
// the JSON of [Contacts].
func (b *Backend) Items(user string) []Item {
	b.mu.Lock()
	defer b.mu.Unlock()
	var contacts map[string]struct {
		Contact
		Groups any `json:"groups"` // an edit has left an array
	}
	if json.Unmarshal(b.bodies[user], &contacts) != nil {
		return nil
	}
	var items []Item
	for _, jid := range slices.Sorted(maps.Keys(contacts)) {
		c := contacts[jid]
		it := Item{JID: jid, Name: c.Name, Ask: c.Ask, Approved: c.Approved, Subscription: cmp.Or(c.Subscription, "both")}
		switch groups := c.Groups.(type) {
		case map[string]any:
			it.Groups = slices.Sorted(maps.Keys(groups))
		case []any:
			for _, group := range groups {
				it.Groups = append(it.Groups, fmt.Sprint(group))
			}
		}
		items = append(items, it)
	}
	return items
}

// SetBody replaces the contacts of a user with any bytes.
func (b *Backend) SetBody(user string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bodies[user] = body
}

// SetFault makes requests for a user go wrong, until ClearFault; "" is for all
// users who have no fault of their own.
func (b *Backend) SetFault(user string, fault Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[user] = fault
}

// ClearFault ends what SetFault began. A request that is held stays so.
func (b *Backend) ClearFault(user string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.faults, user)
}

// RequireHeader has requests without this header answered 401.
func (b *Backend) RequireHeader(name, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requires.Set(name, value)
}

// Refuse closes all connections and refuses new ones, until Accept.
func (b *Backend) Refuse() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		_ = b.listener.Close() // the server may not know it yet
		_ = b.server.Close()
		b.server = nil
	}
}

// Accept ends Refuse, on the same port.
func (b *Backend) Accept() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	ln, err := net.Listen("tcp", freeport.Address(b.port))
	if err != nil {
		return fmt.Errorf("starting the contacts backend: %w", err)
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	b.server, b.listener = server, ln
	go func() { _ = server.Serve(ln) }()
	return nil
}

// Close ends the backend and all requests under way.
func (b *Backend) Close() {
	close(b.closing)
	b.Refuse()
}

// Requests are the requests for a user so far, in the order of arrival.
func (b *Backend) Requests(user string) []Request {
	var requests []Request
	all, _ := b.requests.since(0)
	for _, r := range all {
		if r.user == user {
			requests = append(requests, r.Request)
		}
	}
	return requests
}

// WaitRequests waits until n requests for a user have arrived, answered or not.
func (b *Backend) WaitRequests(ctx context.Context, user string, n int) error {
	seen, next := 0, 0
	for seen < n {
		var err error
		if _, next, err = b.requests.wait(ctx, next, func(r userRequest) bool { return r.user == user }); err != nil {
			return fmt.Errorf("%d requests for %s, not %d: %w", seen, user, n, err)
		}
		seen++
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == Edits && r.Method == http.MethodPost {
		b.edit(w, r)
		return
	}
	user, isContacts := strings.CutPrefix(r.URL.EscapedPath(), "/contacts/")
	user, err := url.PathUnescape(user)
	if !isContacts || err != nil {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodPut {
		b.put(w, r, user)
		return
	}
	b.requests.add(userRequest{user, Request{URI: r.RequestURI, Header: r.Header.Clone()}})
	if body, fault, ok := b.admit(w, r, user); ok {
		b.answer(r.Context(), w, body, fault)
	}
}

// admit is what to answer to a request for a user, once it is to be answered. ok is false if
// that is done, or never to be.
func (b *Backend) admit(w http.ResponseWriter, r *http.Request, user string) (body []byte, fault Fault, ok bool) {
	body, fault, authorized := b.lookUp(user, r.Header)
	if !authorized {
		http.Error(w, "a required header is missing", http.StatusUnauthorized)
		return nil, Fault{}, false
	}
	return body, fault, b.hold(r.Context(), fault)
}

// lookUp is all that needs the lock in an answer. The body is nil for a user
// without contacts.
func (b *Backend) lookUp(user string, header http.Header) (body []byte, fault Fault, authorized bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.requires {
		if header.Get(name) != b.requires.Get(name) {
			return nil, Fault{}, false
		}
	}
	fault, ok := b.faults[user]
	if !ok {
		fault = b.faults[""]
	}
	return b.bodies[user], fault, true
}

// hold delays an answer, and says whether one is to be given.
func (b *Backend) hold(ctx context.Context, fault Fault) bool {
	until := fault.Until
	if until == nil && !fault.Hang {
		return true
	}
	if fault.Hang {
		until = nil
	}
	select {
	case <-until:
		return true
	case <-ctx.Done():
	case <-b.closing:
	}
	return false
}

func (b *Backend) answer(ctx context.Context, w http.ResponseWriter, body []byte, fault Fault) {
	status := http.StatusOK
	if body == nil {
		status, body = http.StatusNotFound, []byte(`{"error":"no such user"}`)
	}
	if fault.Status != 0 {
		status = fault.Status
	}
	if fault.Body != nil {
		status, body = max(fault.Status, http.StatusOK), fault.Body
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if fault.Cut || fault.Stall {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		if fault.Stall {
			b.hold(ctx, Fault{Hang: true})
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// edit does what a user asks for, unless there is a fault.
func (b *Backend) edit(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	var e struct {
		User, Action, JID, Name string
		Groups                  []string
	}
	if err != nil || json.Unmarshal(body, &e) != nil {
		http.Error(w, "the body has to be JSON", http.StatusBadRequest)
		return
	}
	b.requests.add(userRequest{Edits, Request{URI: r.RequestURI, Header: r.Header.Clone(), Body: string(body)}})
	_, fault, ok := b.admit(w, r, Edits)
	if !ok {
		return
	}
	if fault.Status == 0 && fault.Body == nil && !b.apply(e.User, e.Action, e.JID, e.Name, e.Groups) {
		fault = Fault{Status: http.StatusConflict, Body: []byte(`{"message": "There is no such user."}`)}
	}
	b.answer(r.Context(), w, []byte(`{}`), fault)
}

// apply changes a contact of a user, and reports whether the user's contacts are known.
func (b *Backend) apply(user, action, contact, name string, groups []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	contacts := map[string]map[string]any{}
	if json.Unmarshal(b.bodies[user], &contacts) != nil {
		return false
	}
	if action == "remove" {
		delete(contacts, contact)
	} else {
		if contacts[contact] == nil {
			contacts[contact] = map[string]any{}
		}
		contacts[contact]["name"], contacts[contact]["groups"] = name, groups
	}
	body, err := json.Marshal(contacts)
	b.bodies[user] = body
	return err == nil
}

// put replaces a user's contacts with the request's JSON.
func (b *Backend) put(w http.ResponseWriter, r *http.Request, user string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !json.Valid(body) {
		http.Error(w, "the body has to be JSON", http.StatusBadRequest)
		return
	}
	b.SetBody(user, body)
	w.WriteHeader(http.StatusNoContent)
}

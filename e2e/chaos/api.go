package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// api is ejabberd's HTTP API, or what a fault makes of it. Its methods may be called
// by several goroutines.
type api struct {
	behind  func(w http.ResponseWriter, r *http.Request, body []byte) // the API itself
	figures *Figures

	server   *http.Server
	listener net.Listener

	mu    sync.Mutex
	rng   *rand.Rand // guarded by mu, as all below
	kind  string     // of the fault; "": none
	share float64    // of the calls
	ended chan struct{}
}

// apiFaults are the kinds.
var apiFaults = []string{"403", "500", "answer lost", "half an answer", "refused", "silent", "slow"}

func startAPI(behind func(http.ResponseWriter, *http.Request, []byte), f *Figures, rng *rand.Rand) (*api, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &api{behind: behind, figures: f, rng: rng, listener: l, ended: make(chan struct{})}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

func (a *api) url() string { return "http://" + a.listener.Addr().String() + "/api" }

func (a *api) close() {
	a.setFault("", 0)
	_ = a.server.Close()
}

// setFault begins a fault; "" ends it.
func (a *api) setFault(kind string, share float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kind, a.share = kind, share
	close(a.ended)
	a.ended = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a.mu.Lock()
	kind, ended := a.kind, a.ended
	if kind != "" && a.rng.Float64() >= a.share {
		kind = ""
	}
	long := 20*time.Millisecond + time.Duration(a.rng.Int64N(int64(400*time.Millisecond)))
	a.mu.Unlock()
	if kind != "" {
		a.figures.fault("the API: " + kind)
	}
	switch kind {
	case "":
	case "403", "500":
		w.WriteHeader(map[string]int{"403": http.StatusForbidden, "500": http.StatusInternalServerError}[kind])
		return
	case "answer lost":
		a.behind(&lost{}, r, body)
		panic(http.ErrAbortHandler)
	case "half an answer":
		answer := &lost{}
		a.behind(answer, r, body)
		w.Header().Set("Content-Length", fmt.Sprint(answer.body.Len()+1))
		_, _ = w.Write(answer.body.Bytes()[:answer.body.Len()/2])
		panic(http.ErrAbortHandler)
	case "silent":
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case "slow":
		select {
		case <-time.After(long):
		case <-r.Context().Done():
		}
	default:
		panic(http.ErrAbortHandler)
	}
	a.behind(w, r, body)
}

// lost is an answer that does not arrive.
type lost struct {
	header http.Header
	body   bytes.Buffer
}

func (l *lost) Header() http.Header {
	if l.header == nil {
		l.header = http.Header{}
	}
	return l.header
}
func (l *lost) Write(b []byte) (int, error) { return l.body.Write(b) }
func (l *lost) WriteHeader(int)             {}

// pass has the API of a real server answer.
func pass(target string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, target+strings.TrimPrefix(r.URL.Path, "/api"), bytes.NewReader(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		request.Close = true
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(http.ErrAbortHandler) // as one that is down
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(response.StatusCode)
		_, _ = w.Write(answer)
	}
}

// call is the API of the fake server, as ejabberd has it from 24.02 on.
func (f *fake) call(w http.ResponseWriter, r *http.Request, body []byte) {
	var args struct {
		User, Host, Nick, Subs string
		LocalUser, LocalHost   string
		Groups                 []string
	}
	if json.Unmarshal(body, &args) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isUp {
		panic(http.ErrAbortHandler)
	}
	contact := strings.TrimPrefix(args.User+"@"+args.Host, "@")
	switch command := strings.TrimPrefix(r.URL.Path, "/api/"); {
	case args.LocalUser == "@":
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `"Invalid 'localuser'"`)
	case command == "get_roster":
		list := []map[string]any{}
		for jid, item := range f.rosters[args.User] {
			list = append(list, map[string]any{"jid": jid, "nick": item.Name, "subscription": item.Subscription, "ask": "none",
				"groups": slices.DeleteFunc(strings.Split(item.Groups, "\n"), func(g string) bool { return g == "" })})
		}
		_ = json.NewEncoder(w).Encode(list)
	case command == "add_rosteritem":
		slices.Sort(args.Groups)
		item := Item{JID: contact, Name: args.Nick, Subscription: args.Subs}
		for _, group := range args.Groups {
			item.Groups += group + "\n"
		}
		if had, there := f.rosters[args.LocalUser][contact]; item.Subscription == "none" && !f.truth.wasOwnItem(args.LocalUser, item) {
			// rosterd does so before it removes: see the package serverroster.
			if there {
				had.Subscription = "none"
				f.rosters[args.LocalUser][contact] = had
			}
		} else {
			f.written(args.LocalUser, item)
		}
		f.pushOwn(args.LocalUser, item)
		_, _ = io.WriteString(w, "0")
	case command == "delete_rosteritem":
		item := Item{JID: contact, Subscription: "remove"}
		if _, there := f.rosters[args.LocalUser][contact]; there {
			f.written(args.LocalUser, item)
		}
		f.pushOwn(args.LocalUser, item) // also of what is not there
		_, _ = io.WriteString(w, "0")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// pushOwn has the server push what was written to its own roster. f.mu is held.
func (f *fake) pushOwn(user string, item Item) {
	for full := range f.sessions {
		if strings.HasPrefix(full, user+"@"+host+"/") {
			f.push(full, []Item{item})
		}
	}
}

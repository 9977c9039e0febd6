// Package webdemo is the page of the demo: on the left an editor of a backend's contacts, on
// the right Converse.js, logged in as the user whose contacts they are.
package webdemo

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"io"
	"net"
	"net/http"
	"time"

	"rosterd/e2e/harness"
)

//go:embed page.html chat.html page.css editor.js chat.js
var files embed.FS

var templates = template.Must(template.ParseFS(files, "page.html", "chat.html"))

// maxContacts is how large a user's contacts are at most, in bytes of JSON.
const maxContacts = 1 << 20

// Options say what the page shows.
type Options struct {
	Converse  string // the folder of [Converse]
	WebSocket string // the server's URL for it (RFC 7395)
	Backend   *harness.Backend
	Refresh   func(ctx context.Context, user string) (harness.RefreshAnswer, error) // reports a user to rosterd

	User, Host, Password string                                       // who is logged in
	Friend               string                                       // the localpart of who comes online and goes
	Visit                func(ctx context.Context, online bool) error // has the friend do that
}

// Page is the page, served. Its methods are safe for concurrent use.
type Page struct {
	URL    string
	server *http.Server
}

// Serve begins to serve the page on a free port of this machine, until [Page.Close].
func Serve(o Options) (*Page, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for path, name := range map[string]string{"GET /{$}": "page.html", "GET /chat": "chat.html"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_ = templates.ExecuteTemplate(w, name, o) // fails only if the caller has gone
		})
	}
	for _, name := range []string{"page.css", "editor.js", "chat.js"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) })
	}
	mux.Handle("GET /converse/", http.StripPrefix("/converse/", http.FileServer(http.Dir(o.Converse))))
	mux.HandleFunc("GET /contacts", o.contacts)
	mux.HandleFunc("PUT /contacts", o.change)
	mux.HandleFunc("POST /friend", o.visit)
	// A page of another origin changes nothing here.
	p := &Page{URL: "http://" + l.Addr().String() + "/", server: &http.Server{Handler: http.NewCrossOriginProtection().Handler(mux), ReadHeaderTimeout: 10 * time.Second}}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// Close ends the page.
func (p *Page) Close() { _ = p.server.Close() }

func (o Options) contacts(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, o.Backend.BaseURL()+"/contacts/"+o.User, nil)
	if err != nil {
		panic(err) // the URL is the backend's own
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.Copy(w, resp.Body) // fails only if the caller has gone
}

// change is what an application does: it changes its database, then says so.
func (o Options) change(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxContacts))
	if err != nil || !json.Valid(body) {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	o.Backend.SetBody(o.User, body)
	answer, err := o.Refresh(r.Context(), o.User)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the same
}

func (o Options) visit(w http.ResponseWriter, r *http.Request) {
	if err := o.Visit(r.Context(), r.FormValue("online") == "true"); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
}

package metrics

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html page.css page.js page.svg
var pageFiles embed.FS

// Overview is what the status page says of the program. Nothing of it names a user.
type Overview struct {
	Version, Commit string
	Started         time.Time
	Role            string    // "active" or "standby" in a pair; "": alone
	Since           time.Time // when the role began

	Connected     bool
	Reason        string // why not
	Domain        string // of the component
	Address       string // of the server
	State         string // where the state is: a path or a database, without a password
	StateError    string // why it is not written; ""
	Hosts         []HostOverview
	Backends      []Backend
	ServerRosters []RosterProgress
	Users         []Count // those that something is to be done for, with the reason
}

// HostOverview is how a domain of users is served.
type HostOverview struct {
	Host     string
	Software string   // the server's name and version; "": it has not said so
	Level    string   // "good"; "warn": it could be better; "bad": it is not served
	Ways     []string // in words
	Lacks    []Lack   // what a better way needs
}

// Lack is what is missing, and the lines that mend it.
type Lack struct {
	Text  string
	Lines []string
}

// Backend is a host and port of the contacts URLs.
type Backend struct {
	Name      string    `json:"name"`
	Down      bool      `json:"down"` // its circuit breaker is open
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	ErrorAt   time.Time `json:"last_error_at,omitzero"`
}

// RosterProgress is how far the server's own rosters of a domain are kept in step.
type RosterProgress struct {
	Host             string
	Waiting          int
	Written, Removed uint64 // items
	Busy             float64
	Error            string
}

// Count is how many there are, of what.
type Count struct {
	What  string
	Count int
}

// Page serves the status page, its stylesheet and its script. overview is called at each
// request, from any goroutine.
type Page struct {
	Overview func() Overview
	History  *History
	Events   *Events
}

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"ago": ago, "clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"level":   func(l slog.Level) string { return strings.ToLower(l.String()) },
	"percent": func(v float64) string { return strconv.FormatFloat(100*v, 'f', 0, 64) + " %" },
}).ParseFS(pageFiles, "page.html"))

// page is what the template is given.
type page struct {
	Overview
	Now    time.Time
	Charts []chart
	Events []Event
}

// Trouble is what somebody should look at, the worst first.
func (p page) Trouble() (trouble []string) {
	if !p.Connected && p.Role != "standby" {
		trouble = append(trouble, "Not connected to the XMPP server: "+p.Reason)
	}
	for _, h := range p.Hosts {
		if h.Level == "bad" {
			trouble = append(trouble, "Users of "+h.Host+" get no roster from rosterd: see below.")
		}
	}
	for _, b := range p.Backends {
		if b.Down {
			trouble = append(trouble, "The backend "+b.Name+" is down: "+b.LastError)
		}
	}
	for _, r := range p.ServerRosters {
		if r.Error != "" {
			trouble = append(trouble, "The server's own rosters of "+r.Host+": "+r.Error)
		}
	}
	if p.StateError != "" {
		trouble = append(trouble, "The state is not written: "+p.StateError)
	}
	return trouble
}

// Improvable reports whether some domain could be served better.
func (p page) Improvable() bool {
	return slices.ContainsFunc(p.Hosts, func(h HostOverview) bool { return h.Level == "warn" })
}

// chart is a line of the last hour, as SVG.
type chart struct {
	Title, Now, Most string
	Line, Area       string // points of a polyline
}

const chartWidth, chartHeight = 300, 60

// chart draws a series.
func (h *History) chart(i int, now time.Time) chart {
	points, most := h.points(i), 0.0
	for _, p := range points {
		most = max(most, p.value)
	}
	c := chart{Title: series[i].title, Now: "–", Most: number(most) + series[i].unit}
	var b strings.Builder
	first, last := 0.0, 0.0
	for n, p := range points {
		x := chartWidth * (1 - now.Sub(p.at).Seconds()/time.Hour.Seconds())
		if x < 0 {
			continue
		}
		y := float64(chartHeight - 2)
		if most > 0 {
			y -= p.value / most * (chartHeight - 6)
		}
		if b.Len() == 0 {
			first = x
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
		last = x
		if n == len(points)-1 {
			c.Now = number(p.value) + series[i].unit
		}
	}
	if c.Line = strings.TrimSpace(b.String()); c.Line != "" {
		c.Area = fmt.Sprintf("%.1f,%d %s %.1f,%d", first, chartHeight, c.Line, last, chartHeight)
	}
	return c
}

// number writes a value with three digits or more.
func number(v float64) string {
	if v == math.Trunc(v) || v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// ago says how long ago something was.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

func (p Page) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.serve)
	for _, name := range []string{"page.css", "page.js", "page.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pageFiles, name) })
	}
}

func (p Page) serve(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	shown := page{Overview: p.Overview(), Now: now, Events: p.Events.Recent()}
	for i := range series {
		shown.Charts = append(shown.Charts, p.History.chart(i, now))
	}
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, shown); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = body.WriteTo(w) // fails only if the caller has gone
}

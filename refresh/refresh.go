// Package refresh is the HTTP endpoint that the backend calls when users'
// contacts have changed. It takes the same requests and gives the same answers
// as Prosody's community module mod_http_roster_admin, and says more in them.
package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/roster"
)

// Path is the endpoint: POST to it refreshes many users, GET of a name below
// it one.
const Path = "/roster_admin/refresh"

// The values of the label result of rosterd_refreshed_users_total.
const (
	resultUpdated = "updated"
	resultError   = "error"
)

// Results are all values of that label.
var Results = []string{resultUpdated, resultError}

// Codes are all values of the label code of rosterd_refresh_requests_total.
var Codes = []string{"200", "400", "401", "403", "404", "405", "408", "413", "500", "503"}

// maxNamed is how many users of a refresh the log names at level debug.
const maxNamed = 10

// maxFailed is how many failed users an answer names.
const maxFailed = 100

// Refresher refreshes the rosters of users (bare JIDs, none twice) and returns
// those who failed. It fails as a whole with [roster.ErrNotConnected].
type Refresher interface {
	Refresh(ctx context.Context, users []jid.JID) (failed map[jid.JID]error, err error)
}

// Options of a handler.
type Options struct {
	Hosts    []string // served domains, prepared
	Tokens   *Tokens  // of which callers must send one, or nil
	MaxBytes int64    // of a request's body
	Limits   Limits
	// Certificates are for TLS, or nil: there is none.
	Certificates *Certificates
	Logger       *slog.Logger
	Requests     *prometheus.CounterVec // label code
	Users        *prometheus.CounterVec // label result
}

// Answer is the JSON body of every answer.
type Answer struct {
	Status  string            `json:"status"` // "ok", or "error" if nothing could be done
	Message string            `json:"message"`
	Updated int               `json:"updated"`          // users
	Errors  int               `json:"errors"`           // users
	Failed  map[string]string `json:"failed,omitempty"` // at most 100 of the users in Errors: why; "[2]" is the third element

	code int
}

// Handler serves the endpoint. It is safe for concurrent use. The server that it
// is for is to be set up by [Protect].
func Handler(o Options, refresher Refresher) http.Handler {
	o.Limits = o.Limits.orDefault()
	return &handler{Options: o, refresher: refresher,
		requests: newPlaces(o.Limits.Requests), large: newPlaces(o.Limits.Large)}
}

type handler struct {
	Options
	refresher       Refresher
	requests, large *places // that are worked on, and of these the large ones
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // that of the answer before
	began := time.Now()
	answer := h.serve(w, r)
	h.Logger.Debug("refresh request answered", "caller", r.RemoteAddr, "code", answer.code, "updated", answer.Updated, "errors", answer.Errors,
		"took", time.Since(began))
	h.Requests.WithLabelValues(strconv.Itoa(answer.code)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = control.SetWriteDeadline(time.Now().Add(h.Limits.Answer))
	w.WriteHeader(answer.code)
	json.NewEncoder(w).Encode(answer) // fails only if the caller has gone, or does not read
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) Answer {
	large := func() {}
	defer func() { large() }()
	body := newBody(w, r, h.Limits, func() (err error) {
		large, err = h.place(h.large, r)
		return err
	})
	if r.Body != http.NoBody {
		body.await() // net/http reads it if this does not
	}
	single, isSingle := strings.CutPrefix(r.URL.Path, Path+"/")
	if r.URL.Path != Path && (!isSingle || single == "") {
		return failure(http.StatusNotFound, "there is only "+Path)
	}
	if !h.Certificates.trusts(r.TLS) {
		w.Header().Set("Connection", "close")
		return failure(http.StatusForbidden, "the certificate is not trusted any more")
	}
	if !h.Tokens.allow(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return failure(http.StatusUnauthorized, "bad or missing token")
	}
	method := http.MethodPost
	if isSingle {
		method = http.MethodGet
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		return failure(http.StatusMethodNotAllowed, "wants "+method)
	}
	release, err := h.place(h.requests, r)
	if err != nil {
		return busy(w)
	}
	defer release()
	if isSingle {
		return h.refresh(r.Context(), []named{{name: single}})
	}
	list, err := decode(http.MaxBytesReader(w, body, h.MaxBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return failure(http.StatusRequestEntityTooLarge, "larger than "+strconv.FormatInt(h.MaxBytes, 10)+" bytes")
	case errors.Is(err, errBusy):
		return busy(w)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure(http.StatusRequestTimeout, "the body came too slowly")
	case err != nil:
		message := "the body could not be read"
		if words := wantsArray(""); errors.As(err, &words) {
			message = words.Error()
		}
		h.Logger.Warn("refresh request refused", "caller", callerOf(r.RemoteAddr), "err", message)
		return failure(http.StatusBadRequest, message)
	}
	return h.refresh(r.Context(), list)
}

// place takes a place of the caller's, or fails with errBusy.
func (h *handler) place(p *places, r *http.Request) (release func(), err error) {
	release, ok := p.take(callerOf(r.RemoteAddr))
	if !ok {
		return func() {}, errBusy
	}
	return release, nil
}

func busy(w http.ResponseWriter) Answer {
	w.Header().Set("Retry-After", "1") // second
	return failure(http.StatusServiceUnavailable, "too many requests at once: nothing was refreshed, try again")
}

func failure(code int, message string) Answer {
	return Answer{Status: "error", Message: message, code: code}
}

// refresh refreshes the users that a request names.
func (h *handler) refresh(ctx context.Context, list []named) Answer {
	users := make(map[jid.JID]string, len(list)) // to the name as it was given
	failed := make(map[string]error)
	nameless, places := 0, make(map[string]error) // elements that are no names, and the first of them
	var order []jid.JID
	for i, n := range list {
		if n.err != nil {
			if nameless++; nameless <= maxFailed {
				places["["+strconv.Itoa(i)+"]"] = n.err
			}
			continue
		}
		user, err := h.user(n.name)
		if err != nil {
			failed[n.name] = err
		} else if _, twice := users[user]; !twice {
			users[user] = n.name
			order = append(order, user)
		}
	}
	h.Logger.Debug("refresh", "users", len(order), "first", order[:min(len(order), maxNamed)], "errors", len(failed))
	var refused map[jid.JID]error
	if len(order) > 0 {
		var err error
		if refused, err = h.refresher.Refresh(ctx, order); err != nil {
			return h.unavailable(err, len(order)+len(failed)+nameless)
		}
	}
	for user, err := range refused {
		failed[users[user]] = err
	}
	answer := Answer{Status: "ok", Message: "roster update complete", Errors: len(failed) + nameless,
		Updated: len(order) - len(refused), Failed: reasons(places, failed), code: http.StatusOK}
	if answer.Errors > 0 && answer.Updated == 0 {
		answer.Status, answer.Message, answer.code = "error", "no roster could be updated", http.StatusInternalServerError
	}
	h.Users.WithLabelValues(resultUpdated).Add(float64(answer.Updated))
	h.Users.WithLabelValues(resultError).Add(float64(answer.Errors))
	if answer.Errors > 0 {
		h.Logger.Warn("refresh with failed users", "updated", answer.Updated, "errors", answer.Errors, "failed", first(answer.Failed))
	}
	return answer
}

// unavailable is the answer when nothing could be tried.
func (h *handler) unavailable(err error, users int) Answer {
	message := "rosterd cannot refresh now"
	if errors.Is(err, roster.ErrNotConnected) {
		message = "not connected to the server: users who are online are refreshed after reconnecting"
	}
	h.Users.WithLabelValues(resultError).Add(float64(users))
	answer := failure(http.StatusServiceUnavailable, message)
	answer.Errors = users
	return answer
}

var (
	errForeign = errors.New("not a user of a served domain")
	errNoJID   = errors.New("not a username or bare JID")
	errDomain  = errors.New("wants a bare JID, several domains are served")
)

// user is the bare JID that a name means.
func (h *handler) user(name string) (jid.JID, error) {
	if !strings.Contains(name, "@") {
		if len(h.Hosts) > 1 {
			return jid.JID{}, errDomain
		}
		user, err := jid.New(name, h.Hosts[0], "")
		if err != nil || user.Local() == "" {
			return jid.JID{}, errNoJID
		}
		return user, nil
	}
	user, err := jid.Parse(name)
	if err != nil || !user.IsBare() || user.Local() == "" {
		return jid.JID{}, errNoJID
	}
	for _, host := range h.Hosts {
		if user.Domain() == host {
			return user, nil
		}
	}
	return jid.JID{}, errForeign
}

// reasons are the first few of those who failed, with names of bounded length.
func reasons(failed ...map[string]error) map[string]string {
	list := make(map[string]string)
	for _, some := range failed {
		for name, err := range some {
			if len(list) == maxFailed {
				return list
			}
			list[shorten(name)] = err.Error()
		}
	}
	return list
}

// maxName is the longest bare JID in bytes (RFC 7622, section 3.1).
const maxName = 1023 + 1 + 1023

// shorten bounds a name, which may be none.
func shorten(name string) string {
	if len(name) > maxName {
		return strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

// first is one of the failed, for the log.
func first(failed map[string]string) string {
	for name, reason := range failed {
		return strconv.QuoteToASCII(name) + ": " + reason
	}
	return ""
}

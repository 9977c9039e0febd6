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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/roster"
)

// Path is the endpoint: a POST to it refreshes many users, a GET of a name below
// it refreshes one.
const Path = "/roster_admin/refresh"

// The values of the label result of rosterd_refreshed_users_total.
const (
	resultUpdated  = "updated"
	resultAccepted = "accepted"
	resultError    = "error"
)

// Results are all values of that label.
var Results = []string{resultUpdated, resultAccepted, resultError}

// Codes are all values of the label code of rosterd_refresh_requests_total.
var Codes = []string{"200", "202", "400", "401", "403", "404", "405", "408", "413", "500", "503"}

const (
	maxLoggedUsers = 10              // users of a refresh that the log names at level debug
	maxFailed      = 100             // failed users that an answer names
	maxName        = 1023 + 1 + 1023 // bytes of a bare JID (RFC 7622, section 3.1)

	cannotKeep  = "rosterd cannot keep this now, try again"
	manyOffline = "too many users who are offline wait to be fetched: try again"
)

// Refresher refreshes the rosters of users (bare JIDs, none twice): a users.Manager.
type Refresher interface {
	// Refresh returns those that failed. It fails as a whole with
	// [roster.ErrNotConnected]. With [roster.ErrNotKept] a kill may forget what is to be done,
	// with [roster.ErrManyOffline] it is forgotten at once.
	Refresh(ctx context.Context, users []jid.JID) (failed map[jid.JID]error, err error)
	// RefreshLater returns when a kill of the process cannot lose that they are to be
	// refreshed, or an error if that is not sure.
	RefreshLater(ctx context.Context, users []jid.JID) error
	// RefreshAll has all users of a domain refreshed in the background who are online, or
	// whose roster the server keeps, and returns how many are online. After an error a kill of
	// the process may forget it.
	RefreshAll(ctx context.Context, domain string) (online int, err error)
}

// Options of a handler.
type Options struct {
	Hosts    []string // served domains, prepared
	Tokens   *Tokens  // of which callers must send one, or nil
	MaxBytes int64    // of a request's body
	Limits   Limits
	// Certificates are for TLS. nil: there is none.
	Certificates *Certificates
	// Pass has users refreshed by the active instance of a pair; ok is false if this one is to
	// do it. passed says that the other one has passed them on. nil: this one does it.
	// If async, the caller does not wait for more than that it is kept.
	Pass func(ctx context.Context, users []jid.JID, passed, async bool) (a Answer, ok bool)
	// PassAll is the same for all users of a domain.
	PassAll func(ctx context.Context, domain string, passed bool) (a Answer, ok bool)
	// Told is told that another instance is active since a term, and returns when this one is
	// not any more. nil: there is no other.
	Told     func(ctx context.Context, term int64) Left
	Logger   *slog.Logger
	Requests *prometheus.CounterVec // label code
	Users    *prometheus.CounterVec // label result
}

// Answer is the JSON body of every answer.
type Answer struct {
	Status  string `json:"status"` // "ok", or "error" if nothing could be done
	Message string `json:"message"`
	Updated int    `json:"updated"` // users
	Errors  int    `json:"errors"`  // users
	// Accepted are users who will be refreshed, whatever happens: the answer is 202.
	Accepted int `json:"accepted,omitempty"`
	// Retry says that the same request should be sent again, as rosterd does not
	// remember it. What it remembers, it tries again by itself.
	Retry bool `json:"retry"`
	// Failed are at most 100 of the users in Errors, and why each failed. "[2]" is
	// the third element of the request's array.
	Failed map[string]string `json:"failed,omitempty"`
	Left   *Left             `json:"left,omitempty"` // at TermPath alone

	code  int
	async bool // as the caller preferred
}

// failed names a failed user, if there is room.
func (a *Answer) failed(name string, err error) {
	if a.Failed == nil {
		a.Failed = make(map[string]string)
	}
	if len(a.Failed) == maxFailed {
		return
	}
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	a.Failed[name] = err.Error()
}

// Unavailable is the answer if nothing could be done, with the status 503.
// If retry, the caller has to ask again.
func Unavailable(message string, users int, retry bool) Answer {
	a := failure(http.StatusServiceUnavailable, message)
	a.Errors, a.Retry = users, retry
	return a
}

func failure(code int, message string) Answer {
	return Answer{Status: "error", Message: message, code: code}
}

// again is a failure after which the same request should be sent again.
func again(code int, message string) Answer {
	a := failure(code, message)
	a.Retry = true
	return a
}

type handler struct {
	Options
	refresher       Refresher
	requests, large *shares // large ones are of the requests, too
}

// Handler serves the endpoint. It is safe for concurrent use. [Protect] sets up
// the server for it.
func Handler(o Options, refresher Refresher) http.Handler {
	o.Limits = o.Limits.orDefault()
	return &handler{o, refresher, newShares(o.Limits.Requests), newShares(o.Limits.Large)}
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
	if answer.async {
		w.Header().Set("Preference-Applied", respondAsyncToken)
	}
	_ = control.SetWriteDeadline(time.Now().Add(h.Limits.Answer))
	w.WriteHeader(answer.code)
	json.NewEncoder(w).Encode(answer) // fails only if the caller has gone, or does not read
}

// serve does what a request asks for, and sets the headers that its answer needs
// besides.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) Answer {
	caller := callerOf(r.RemoteAddr)
	body := newBody(w, r, h.Limits, func() (func(), bool) { return h.large.take(caller) })
	defer func() { body.release() }()
	if r.Body != http.NoBody {
		body.await() // net/http reads it if this does not
	}
	single, isSingle := strings.CutPrefix(r.URL.Path, Path+"/")
	if r.URL.Path != Path && (h.Told == nil || r.URL.Path != TermPath) && (!isSingle || single == "") {
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
	if r.URL.Path == TermPath {
		return h.told(r)
	}
	method := http.MethodPost
	if isSingle {
		method = http.MethodGet
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		return failure(http.StatusMethodNotAllowed, "wants "+method)
	}
	release, ok := h.requests.take(caller)
	if !ok {
		return busy(w)
	}
	defer release()
	async := respondAsync(r.Header)
	if isSingle {
		return h.refresh(r, []entry{{name: single}}, async)
	}
	if domains, all := r.URL.Query()["all"]; all {
		return h.refreshAll(r, domains)
	}
	list, err := decode(http.MaxBytesReader(w, body, h.MaxBytes))
	switch {
	case err == nil:
		return h.refresh(r, list, async)
	case errors.As(err, new(*http.MaxBytesError)):
		return failure(http.StatusRequestEntityTooLarge, "larger than "+strconv.FormatInt(h.MaxBytes, 10)+" bytes")
	case errors.Is(err, errBusy):
		return busy(w)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return again(http.StatusRequestTimeout, "the body came too slowly")
	}
	h.Logger.Warn("refresh request refused", "caller", caller, "err", err)
	return failure(http.StatusBadRequest, err.Error())
}

// busy is the answer to a caller who has their share.
func busy(w http.ResponseWriter) Answer {
	w.Header().Set("Retry-After", "1") // second
	return again(http.StatusServiceUnavailable, "too many requests at once: nothing was refreshed, try again")
}

const respondAsyncToken = "respond-async"

// respondAsync reports whether the caller would rather not wait (RFC 7240, section 4.1).
func respondAsync(header http.Header) bool {
	for _, line := range header.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			token, _, _ := strings.Cut(preference, ";")
			if strings.EqualFold(strings.TrimSpace(token), respondAsyncToken) {
				return true
			}
		}
	}
	return false
}

// refreshAll refreshes all users of a domain. Nobody waits for that.
func (h *handler) refreshAll(r *http.Request, domains []string) Answer {
	domain, err := jid.PrepareDomain(domains[0])
	if err != nil || len(domains) != 1 || !slices.Contains(h.Hosts, domain) {
		return failure(http.StatusBadRequest, "all wants one domain, and that it is served")
	}
	if h.PassAll != nil {
		if a, elsewhere := h.PassAll(r.Context(), domain, r.Header.Get(passedHeader) != ""); elsewhere {
			return a
		}
	}
	n, err := h.refresher.RefreshAll(r.Context(), domain)
	if err != nil {
		h.Logger.Warn("a refresh of everybody is not accepted, as it cannot be kept", "host", domain, "err", err)
		return again(http.StatusServiceUnavailable, cannotKeep)
	}
	h.Users.WithLabelValues(resultAccepted).Add(float64(n))
	return Answer{Status: "ok", Message: "everybody who is online, or whose roster the server keeps, is refreshed in the background", Accepted: n, code: http.StatusAccepted}
}

// refresh refreshes the users that a request names; if async, later.
func (h *handler) refresh(r *http.Request, list []entry, async bool) Answer {
	ctx := r.Context()
	answer := Answer{Status: "ok", Message: "roster update complete", code: http.StatusOK}
	names := make(map[jid.JID]string, len(list)) // as they were given first
	failed := make(map[string]error)
	var users []jid.JID
	for i, e := range list {
		if e.err != nil {
			answer.Errors++
			answer.failed("["+strconv.Itoa(i)+"]", e.err)
			continue
		}
		user, err := h.user(e.name)
		if err != nil {
			failed[e.name] = err
		} else if _, twice := names[user]; !twice {
			names[user] = e.name
			users = append(users, user)
		}
	}
	h.Logger.Debug("refresh", "users", len(users), "first", users[:min(len(users), maxLoggedUsers)], "errors", len(failed))
	elsewhere := false
	if len(users) > 0 && h.Pass != nil {
		var a Answer
		if a, elsewhere = h.Pass(ctx, users, r.Header.Get(passedHeader) != "", async); elsewhere {
			answer.merge(a, names)
			answer.Retry = answer.Retry || a.Retry // also where others of the users were updated
			if answer.async = a.code == http.StatusAccepted; a.code != http.StatusOK {
				answer.Status, answer.Message, answer.code = a.Status, a.Message, a.code
			}
		}
	}
	switch {
	case elsewhere:
	case len(users) > 0 && async:
		if err := h.refresher.RefreshLater(ctx, users); err != nil {
			h.notAccepted(users, err)
			if !errors.Is(err, roster.ErrManyOffline) {
				err = roster.ErrNotKept
			}
			return h.unavailable(err, len(users)+len(failed)+answer.Errors)
		}
		answer.Accepted, answer.Message, answer.code = len(users), "the users are refreshed in the background", http.StatusAccepted
		answer.async = true
	case len(users) > 0:
		refused, err := h.refresher.Refresh(ctx, users)
		if errors.Is(err, roster.ErrNotKept) || errors.Is(err, roster.ErrManyOffline) {
			h.notAccepted(users, err)
		}
		if err != nil {
			return h.unavailable(err, len(users)+len(failed)+answer.Errors)
		}
		answer.Updated = len(users) - len(refused)
		for user, err := range refused {
			failed[names[user]] = err
			answer.Retry = answer.Retry || errors.Is(err, roster.ErrStopping) || errors.Is(err, roster.ErrNotKept) || errors.Is(err, roster.ErrManyOffline)
		}
	}
	answer.Errors += len(failed)
	for name, err := range failed {
		answer.failed(name, err)
	}
	if answer.Errors > 0 && answer.Updated+answer.Accepted == 0 && answer.code == http.StatusOK {
		answer.Status, answer.Message, answer.code = "error", "no roster could be updated", http.StatusInternalServerError
	}
	h.Users.WithLabelValues(resultUpdated).Add(float64(answer.Updated))
	h.Users.WithLabelValues(resultAccepted).Add(float64(answer.Accepted))
	h.Users.WithLabelValues(resultError).Add(float64(answer.Errors))
	if answer.Errors > 0 {
		var first string // any of them
		for name, reason := range answer.Failed {
			first = strconv.QuoteToASCII(name) + ": " + reason
			break
		}
		h.Logger.Warn("refresh with failed users", "updated", answer.Updated, "errors", answer.Errors, "failed", first)
	}
	return answer
}

// notAccepted logs that users are not remembered.
func (h *handler) notAccepted(users []jid.JID, err error) {
	h.Logger.Warn("a refresh is not accepted", "users", len(users), "err", err)
}

// unavailable is the answer if nothing could be tried.
func (h *handler) unavailable(err error, users int) Answer {
	answer := again(http.StatusServiceUnavailable, "rosterd cannot refresh now")
	switch {
	case errors.Is(err, roster.ErrNotConnected):
		answer.Retry, answer.Message = false, "not connected to the server: users who are online are refreshed after reconnecting"
	case errors.Is(err, roster.ErrNotKept):
		answer.Message = cannotKeep
	case errors.Is(err, roster.ErrManyOffline):
		answer.Message = manyOffline
	}
	h.Users.WithLabelValues(resultError).Add(float64(users))
	answer.Errors = users
	return answer
}

var (
	errForeign = errors.New("not a user of a served domain")
	errNoJID   = errors.New("not a username or bare JID")
	errDomain  = errors.New("wants a bare JID, several domains are served")
)

// user is the bare JID of the user whom a name means.
func (h *handler) user(name string) (jid.JID, error) {
	if len(h.Hosts) > 1 && !strings.Contains(name, "@") {
		return jid.JID{}, errDomain
	}
	user, err := jid.ParseUser(name, h.Hosts[0])
	switch {
	case err != nil:
		return jid.JID{}, errNoJID
	case !slices.Contains(h.Hosts, user.Domain()):
		return jid.JID{}, errForeign
	}
	return user, nil
}

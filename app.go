package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/config"
	"rosterd/fetcher"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/presence"
	"rosterd/refresh"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/store"
)

// How long each step of a stop may take. Closing the stream takes 3 s at most,
// and all together stay below 10 s.
const (
	httpWork   = 4 * time.Second // requests under way; then they are answered with what there is
	httpStop   = time.Second     // those answers
	answerStop = time.Second     // answers to the queries that wait
)

// serve runs rosterd with the configuration in file until ctx ends, or a
// listener fails, then stops in order: HTTP, what is under way, the stream. Each
// of hangups meanwhile has the configuration read again.
func serve(ctx context.Context, hangups <-chan os.Signal, file string, logs io.Writer) error {
	cfg, warnings, err := config.Load(file)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(levelOf(cfg.Log))
	log := newLogger(cfg.Log, level, logs)
	warn(log, warnings)
	a, err := assemble(cfg, log)
	if err != nil {
		return err
	}
	a.level = level
	log.Info("rosterd starts", "version", version, "commit", buildCommit(),
		"refresh", a.refresh.Addr, "metrics", a.metrics.Addr, "hosts", cfg.XMPP.Hosts)
	streams, closeStream := context.WithCancel(context.Background())
	defer closeStream()
	streamClosed := make(chan struct{})
	go func() {
		defer close(streamClosed)
		a.component.Run(streams, a.manager)
	}()
	for running := true; running; {
		select {
		case <-hangups:
			a.reload(file)
		case <-ctx.Done():
			running = false
		case err = <-a.failed:
			running = false
		}
	}
	log.Info("rosterd stops")
	a.stopHTTP()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		a.manager.Close()
	}()
	select {
	case <-answered:
	case <-time.After(answerStop): // the server does not read; the stream's end frees them
	}
	closeStream()
	<-streamClosed
	<-answered
	a.fetcher.Close()
	if failure := a.state.Close(); err == nil && failure != nil {
		err = failure
	}
	log.Info("rosterd has stopped")
	return err
}

// app is the program, wired. Its HTTP servers are running.
type app struct {
	cfg              config.Config // what holds now
	log              *slog.Logger
	level            *slog.LevelVar
	tokens           *refresh.Tokens
	certificates     *refresh.Certificates // nil: the endpoint has no TLS
	fetcher          *fetcher.Fetcher
	component        *component.Component
	manager          *roster.Manager
	state            state
	refresh, metrics *http.Server
	requests         context.Context // of every HTTP request
	cancelRequests   context.CancelFunc
	failed           chan error // receives why a listener failed
}

// assemble makes the parts, connects them, and begins to listen. If it fails,
// nothing is left running.
func assemble(cfg config.Config, log *slog.Logger) (*app, error) {
	a := &app{cfg: cfg, log: log, tokens: refresh.NewTokens(tokensOf(cfg.Refresh)...), failed: make(chan error, 2)}
	a.requests, a.cancelRequests = context.WithCancel(context.Background())
	if err := a.build(cfg, log); err != nil {
		a.cancelRequests()
		if a.manager != nil {
			a.manager.Close()
		}
		if a.state != nil {
			_ = a.state.Close() // nothing was put
		}
		return nil, err
	}
	return a, nil
}

func (a *app) build(cfg config.Config, log *slog.Logger) (err error) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	if a.fetcher, err = newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, m); err != nil {
		return err
	}
	if a.state, err = openState(cfg.State.Path, log, m); err != nil {
		return err
	}
	sessions, err := session.Load(a.state)
	if err != nil {
		return err
	}
	metrics.RegisterSessions(registry, sessions.Counts)
	secured, err := cfg.XMPP.TLS.Client()
	if err != nil {
		return err
	}
	a.component = component.New(component.Options{
		Address: string(cfg.XMPP.Address), TLS: secured, Domain: cfg.XMPP.Domain, Secret: cfg.XMPP.Secret.Reveal(), Hosts: cfg.XMPP.Hosts,
		Unrestricted: cfg.XMPP.Unrestricted, Presence: cfg.XMPP.Presence, MaxStanza: cfg.XMPP.MaxStanzaBytes,
		QueriesBurst: cfg.Limits.QueriesBurst, QueriesPerSecond: cfg.Limits.QueriesPerSecond,
		Version: version, Logger: log, Metrics: m,
	}, sessions)
	a.manager, err = roster.NewManager(roster.Options{
		Source: a.fetcher, Sessions: sessions, Pusher: a.component, Store: a.state, Logger: log,
		Rules:  roster.Rules{MaxStale: cfg.Contacts.MaxStale, MaxRemoved: cfg.Contacts.MaxRemoved, ConfirmAfter: cfg.Contacts.ConfirmAfter, MaxAge: cfg.Contacts.MaxAge},
		Limits: roster.Limits{Background: background(cfg.Contacts, cfg.XMPP.Hosts), Resync: cfg.Contacts.ResyncRate},
	})
	if err != nil {
		return err
	}
	a.fetcher.Recovered(a.manager.Hasten)
	metrics.RegisterRosters(registry, func() metrics.Rosters {
		c := a.manager.Counts()
		return metrics.Rosters{Marked: c.Marked, Resync: c.Resync, Retries: c.Retries, Held: c.Held}
	})
	if cfg.XMPP.Unrestricted && cfg.XMPP.Presence != "off" {
		hub := presence.New(cfg.XMPP.Hosts, a.manager, presence.Limits{})
		hub.Recall(sessions.Shown())
		a.manager.Watch(hub)
		a.component.Relay(hub)
	}

	if t := cfg.Refresh.TLS; t.Enabled() {
		if a.certificates, err = refresh.LoadCertificates(t.Cert, t.Key, t.ClientCA, log); err != nil {
			return err
		}
	}
	refreshListener, err := net.Listen("tcp", string(cfg.Refresh.Listen))
	if err != nil {
		return fmt.Errorf("refresh.listen: %w", err)
	}
	metricsListener, err := net.Listen("tcp", string(cfg.Metrics.Listen))
	if err != nil {
		refreshListener.Close()
		return fmt.Errorf("metrics.listen: %w", err)
	}
	endpoint := refresh.Options{
		Hosts: cfg.XMPP.Hosts, Tokens: a.tokens, MaxBytes: cfg.Refresh.MaxBytes, Certificates: a.certificates,
		Logger: log, Requests: m.RefreshRequests, Users: m.RefreshedUsers,
	}
	a.refresh = a.startHTTP(refreshListener, log, refresh.Handler(endpoint, a.manager), func(server *http.Server, l net.Listener) net.Listener {
		return refresh.Protect(server, l, endpoint)
	})
	metrics.RegisterWays(registry, func() []metrics.Way { return waysOf(a.component.Status()) })
	a.metrics = a.startHTTP(metricsListener, log, metrics.Handler(registry, a.component.Ready, func() any { return a.status() }), nil)
	return nil
}

// status is what rosterd tells of itself.
func (a *app) status() any {
	s := struct {
		component.Status
		State string `json:"state,omitempty"` // why it is not being written
	}{Status: a.component.Status()}
	if err := a.state.Err(); err != nil {
		s.State = err.Error()
	}
	return s
}

// state is a store that is closed at the end.
type state interface {
	roster.Store
	Err() error
	Close() error
}

// openState opens the store at path, or one in memory if that is empty.
func openState(path string, log *slog.Logger, m *metrics.Metrics) (state, error) {
	if path == "" {
		return store.NewMemory(), nil
	}
	s, err := store.Open(path, store.Options{Logger: log, Errors: m.StateErrors})
	if err != nil {
		return nil, fmt.Errorf("state.path: %w", err)
	}
	return s, nil
}

func waysOf(status component.Status) []metrics.Way {
	var ways []metrics.Way
	for _, w := range status.Hosts {
		ways = append(ways, metrics.Way{Host: w.Host, Query: w.Query, Push: w.Push, Presence: w.Presence})
	}
	return ways
}

// newMetrics makes the collectors and lets every known label begin at 0.
func newMetrics(registry *prometheus.Registry) *metrics.Metrics {
	m := metrics.New(registry)
	metrics.RegisterBuildInfo(registry, version, buildCommit())
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.Queries: component.QueryResults, m.Fetches: fetcher.Results, m.ItemsSkipped: fetcher.SkipReasons, m.FieldsIgnored: fetcher.Fields, m.BulkFetches: fetcher.BulkResults,
		m.RefreshRequests: refresh.Codes, m.RefreshedUsers: refresh.Results,
	} {
		for _, value := range values {
			vec.WithLabelValues(value)
		}
	}
	for _, action := range component.Actions {
		for _, result := range component.PushResults {
			m.Pushes.WithLabelValues(action, result)
		}
	}
	return m
}

func newFetcher(c config.Contacts, hosts []string, log *slog.Logger, m *metrics.Metrics) (*fetcher.Fetcher, error) {
	templates := make(map[string]config.URLTemplate, len(hosts))
	for _, host := range hosts {
		template, err := c.TemplateFor(host)
		if err != nil {
			return nil, err
		}
		templates[host] = template
	}
	bulk, err := bulkURLs(c, hosts)
	if err != nil {
		return nil, err
	}
	authorities, err := c.TLS.Client()
	if err != nil {
		return nil, err
	}
	options := fetcher.Options{
		URL: func(user jid.JID) (string, error) {
			return templates[user.Domain()].Expand(user.Local(), user.Domain())
		},
		Timeout: c.Timeout, MaxInFlight: c.MaxInFlight, MaxBytes: c.MaxBytes, NotFoundEmpty: c.NotFound == "empty",
		Header: headerOf(c), UserAgent: "rosterd/" + version, TLS: authorities, Logger: log,
		Metrics: fetcher.Metrics{Fetches: m.Fetches, Duration: m.FetchDuration, InFlight: m.FetchInFlight, Skipped: m.ItemsSkipped, Ignored: m.FieldsIgnored,
			CircuitsOpen: m.CircuitsOpen, BulkFetches: m.BulkFetches},
	}
	if len(bulk) > 0 {
		options.BulkSize = c.BulkSize
		options.BulkURL = func(domain string) (string, bool) { url, ok := bulk[domain]; return url, ok }
	}
	return fetcher.New(options), nil
}

// bulkURLs are where many users at once are asked for, by domain.
func bulkURLs(c config.Contacts, hosts []string) (map[string]string, error) {
	urls := make(map[string]string)
	for _, host := range hosts {
		url, err := c.BulkURLFor(host)
		if err != nil {
			return nil, err
		}
		if url != "" {
			urls[host] = url
		}
	}
	return urls, nil
}

// background is how many users are fetched at once that no query waits for:
// three quarters of the fetches at most, so that a client that logs in never waits
// behind all of them. Where users are asked for together, the fetcher sees to
// that, and needs as many as fill its requests.
func background(c config.Contacts, hosts []string) int {
	n := max(1, c.MaxInFlight*3/4)
	if bulk, err := bulkURLs(c, hosts); err == nil && len(bulk) > 0 && c.BulkSize > 1 {
		n += fetcher.BulkRequests * c.BulkSize
	}
	return n
}

// headerOf is what every fetch is sent with.
func headerOf(c config.Contacts) http.Header {
	header := make(http.Header)
	for name, value := range c.Headers {
		header.Set(name, value.Reveal())
	}
	if token := c.Token.Reveal(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// tokensOf are what callers of the refresh endpoint may send.
func tokensOf(c config.Refresh) []string {
	list := []string{c.Token.Reveal()}
	for _, token := range c.Tokens {
		list = append(list, token.Reveal())
	}
	return list
}

// startHTTP serves h on l until [app.stopHTTP]. Headers and bodies that come
// too slowly end their connection; an answer may take as long as the work does.
// protect, unless nil, sets the server up in its own way.
func (a *app) startHTTP(l net.Listener, log *slog.Logger, h http.Handler, protect func(*http.Server, net.Listener) net.Listener) *http.Server {
	server := &http.Server{
		Addr: l.Addr().String(), Handler: h, MaxHeaderBytes: 64 << 10,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return a.requests },
	}
	if protect != nil {
		l = protect(server, l)
	}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("listening on %s: %w", server.Addr, err)
		}
	}()
	return server
}

// stopHTTP lets requests under way end, then ends them, and waits for that.
func (a *app) stopHTTP() {
	timer := time.AfterFunc(httpWork, a.cancelRequests)
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), httpWork+httpStop)
	defer cancel()
	for _, server := range []*http.Server{a.refresh, a.metrics} {
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}
}

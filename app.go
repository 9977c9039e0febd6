package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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
)

// How long each step of a stop may take. Closing the stream takes 3 s at most,
// and all together stay below 10 s.
const (
	httpWork   = 4 * time.Second // requests under way; then they are answered with what there is
	httpStop   = time.Second     // those answers
	answerStop = time.Second     // answers to the queries that wait
)

// serve runs rosterd with the configuration in file until ctx ends, or a
// listener fails, then stops in order: HTTP, what is under way, the stream.
func serve(ctx context.Context, file string, logs io.Writer) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	log := newLogger(cfg.Log, logs)
	a, err := assemble(cfg, log)
	if err != nil {
		return err
	}
	log.Info("rosterd starts", "version", version, "commit", buildCommit(),
		"refresh", a.refresh.Addr, "metrics", a.metrics.Addr, "hosts", cfg.XMPP.Hosts)
	streams, closeStream := context.WithCancel(context.Background())
	defer closeStream()
	streamClosed := make(chan struct{})
	go func() {
		defer close(streamClosed)
		a.component.Run(streams, a.manager)
	}()
	select {
	case <-ctx.Done():
	case err = <-a.failed:
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
	log.Info("rosterd has stopped")
	return err
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // validated by config
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// app is the program, wired. Its HTTP servers are running.
type app struct {
	fetcher          *fetcher.Fetcher
	component        *component.Component
	manager          *roster.Manager
	refresh, metrics *http.Server
	requests         context.Context // of every HTTP request
	cancelRequests   context.CancelFunc
	failed           chan error // receives why a listener failed
}

// assemble makes the parts, connects them, and begins to listen.
func assemble(cfg config.Config, log *slog.Logger) (*app, error) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	a := &app{failed: make(chan error, 2)}
	a.requests, a.cancelRequests = context.WithCancel(context.Background())
	var err error
	if a.fetcher, err = newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, m); err != nil {
		return nil, err
	}
	sessions := session.NewTable()
	metrics.RegisterSessions(registry, sessions.Counts)
	a.component = component.New(component.Options{
		Address: cfg.XMPP.Address, Domain: cfg.XMPP.Domain, Secret: cfg.XMPP.Secret.Reveal(), Hosts: cfg.XMPP.Hosts,
		Unrestricted: cfg.XMPP.Unrestricted, Presence: cfg.XMPP.Presence,
		Version: version, Logger: log, Metrics: m,
	}, sessions)
	// Three quarters of the fetches at most are for refreshes: a client that
	// logs in never waits behind all of them.
	a.manager = roster.NewManager(a.fetcher, sessions, a.component, roster.Limits{Background: max(1, cfg.Contacts.MaxInFlight*3/4)})
	if cfg.XMPP.Unrestricted && cfg.XMPP.Presence != "off" {
		hub := presence.New(cfg.XMPP.Hosts, a.manager, presence.Limits{})
		a.manager.Watch(hub)
		a.component.Relay(hub)
	}

	refreshListener, err := net.Listen("tcp", cfg.Refresh.Listen)
	if err != nil {
		return nil, fmt.Errorf("refresh.listen: %w", err)
	}
	metricsListener, err := net.Listen("tcp", cfg.Metrics.Listen)
	if err != nil {
		refreshListener.Close()
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	a.refresh = a.startHTTP(refreshListener, log, refresh.Handler(refresh.Options{
		Hosts: cfg.XMPP.Hosts, Token: cfg.Refresh.Token.Reveal(), MaxBytes: cfg.Refresh.MaxBytes,
		Logger: log, Requests: m.RefreshRequests, Users: m.RefreshedUsers,
	}, a.manager))
	metrics.RegisterWays(registry, func() []metrics.Way { return waysOf(a.component.Status()) })
	a.metrics = a.startHTTP(metricsListener, log, metrics.Handler(registry, a.component.Ready, func() any { return a.component.Status() }))
	return a, nil
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
		m.Queries: component.QueryResults, m.Fetches: fetcher.Results, m.ItemsSkipped: fetcher.SkipReasons,
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
	header := make(http.Header)
	for name, value := range c.Headers {
		header.Set(name, value.Reveal())
	}
	if token := c.Token.Reveal(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return fetcher.New(fetcher.Options{
		URL: func(user jid.JID) (string, error) {
			return templates[user.Domain()].Expand(user.Local(), user.Domain())
		},
		Timeout: c.Timeout, MaxInFlight: c.MaxInFlight, MaxBytes: c.MaxBytes,
		Header: header, UserAgent: "rosterd/" + version, Logger: log,
		Metrics: fetcher.Metrics{Fetches: m.Fetches, Duration: m.FetchDuration, InFlight: m.FetchInFlight, Skipped: m.ItemsSkipped},
	}), nil
}

// startHTTP serves h on l until [app.stopHTTP]. Headers and bodies that come
// too slowly end their connection; an answer may take as long as the work does.
func (a *app) startHTTP(l net.Listener, log *slog.Logger, h http.Handler) *http.Server {
	server := &http.Server{
		Addr: l.Addr().String(), Handler: h, MaxHeaderBytes: 64 << 10,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return a.requests },
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

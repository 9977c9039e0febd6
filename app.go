package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"rosterd/admin"
	"rosterd/component"
	"rosterd/config"
	"rosterd/fetcher"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/presence"
	"rosterd/refresh"
	"rosterd/roster"
	"rosterd/serverroster"
	"rosterd/session"
	"rosterd/store"
	"rosterd/users"
)

// How long each step of a stop may take. Closing the stream takes 3 s at most, what is
// being written to the server's own rosters 0.5 s, and all together stay below 10 s. A pair's
// database is given up meanwhile if it does not answer, see [store.Pair.End].
const (
	httpWork   = 4 * time.Second // requests in flight; then they are answered with what there is
	httpStop   = time.Second     // those answers
	answerStop = time.Second     // answers to the queries that wait
)

// serve runs rosterd with the configuration in file until ctx ends or a listener
// fails, then stops it in order. At each of hangups, it reads the configuration
// again.
func serve(ctx context.Context, hangups <-chan os.Signal, file string, logs io.Writer) (err error) {
	cfg, warnings, err := config.Load(file)
	if err != nil {
		return err
	}
	events := new(metrics.Events)
	log, level := newLogger(cfg.Log, logs, events)
	warn(log, warnings)
	a, err := assemble(cfg, log, events)
	if err != nil {
		return err
	}
	a.level = level
	log.Info("rosterd starts", "version", version, "commit", buildCommit(),
		"refresh", a.refresh.Addr, "metrics", a.metrics.Addr, "hosts", cfg.XMPP.Hosts)
	if a.pair == nil {
		a.run()
	} else {
		a.pair.stand()
		defer context.AfterFunc(ctx, a.pair.leave)() // it may be taking over
	}
	tellSystemd(log, daemon.SdNotifyReady)
	beats, endBeats := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() { watchdog(beats, log, a.alive) })
	defer func() { endBeats(); beating.Wait() }()
	for running := true; running; {
		select {
		case <-hangups:
			a.reload(file)
		case <-ctx.Done():
			running = false
		case err = <-a.failed:
			running = false
		case lease := <-a.pair.active(): // never, if there is no pair
			err = a.takeOver(lease)
			running = err == nil
		case <-a.pair.over():
			a.giveUp()
			err, running = a.pair.lease.Err(), false
		}
	}
	log.Info("rosterd stops")
	tellSystemd(log, daemon.SdNotifyStopping)
	if failure := a.stop(); err == nil {
		err = failure
	}
	log.Info("rosterd has stopped")
	return err
}

// app is the program, wired. Its HTTP servers are running. What is made by work is there
// while working: an instance of a pair that stands by has none of it.
type app struct {
	cfg              atomic.Pointer[config.Config] // in effect: what it points to is never modified
	log              *slog.Logger
	level            *slog.LevelVar
	tokens           *refresh.Tokens
	certificates     *refresh.Certificates // nil: the endpoint has no TLS
	fetcher          *fetcher.Fetcher
	component        *component.Component
	manager          *users.Manager
	ejabberd         *serverroster.Ejabberd // nil: its API is not used
	serverRosters    *serverroster.Keeper   // nil: they are not kept
	state            *store.Store
	sessions         *session.Table
	registry         *prometheus.Registry
	counters         *metrics.Metrics
	domain, address  string // of the component, and of the server
	pair             *pair  // nil: there is none
	working          atomic.Bool
	events           *metrics.Events
	started          time.Time
	refresh, metrics *http.Server
	admin            *http.Server // nil: there is no socket

	requests    context.Context // of all HTTP requests
	endRequests context.CancelFunc
	streams     context.Context // of the component
	endStreams  context.CancelFunc
	stream      sync.WaitGroup // of the component, once it runs
	failed      chan error     // receives why a listener failed
	stops       []func()       // of what was made, see stop
}

// assemble makes the parts, connects them, and begins to listen. If it fails,
// nothing is left running.
func assemble(cfg config.Config, log *slog.Logger, events *metrics.Events) (*app, error) {
	a := &app{domain: cfg.XMPP.Domain, address: cfg.XMPP.Address, log: log, events: events, started: time.Now(), tokens: refresh.NewTokens(tokensOf(cfg.Refresh)...), failed: make(chan error, 2)}
	a.cfg.Store(&cfg)
	a.requests, a.endRequests = context.WithCancel(context.Background())
	a.streams, a.endStreams = context.WithCancel(context.Background())
	a.stops = append(a.stops, a.endRequests, a.endStreams)
	if err := a.build(cfg, log); err != nil {
		_ = a.stop() // err is the cause
		return nil, err
	}
	return a, nil
}

// stop ends what was made, be it the whole program or a part of it: requests first, then
// what was made last, and uses the rest. The state is closed at the end.
func (a *app) stop() (err error) {
	a.pair.leave()
	if a.pair != nil && a.working.Load() {
		if a.state.Err() != nil {
			a.endStreams() // what is told from now on nobody would know
		}
		stopped := make(chan struct{})
		defer close(stopped)
		go func() {
			select {
			case <-a.pair.lease.Lost():
				a.cease()
			case <-stopped:
			}
		}()
	}
	if a.refresh != nil && a.metrics != nil {
		a.stopHTTP()
	}
	for _, stop := range slices.Backward(a.stops) {
		stop()
	}
	if a.state != nil {
		err = a.state.Close()
	}
	a.pair.close(a.state != nil && err == nil)
	return err
}

// build makes the parts and begins to listen. An instance of a pair begins to stand by.
func (a *app) build(cfg config.Config, log *slog.Logger) (err error) {
	a.registry = prometheus.NewRegistry()
	a.counters = newMetrics(a.registry)
	metrics.RegisterComponent(a.registry, cfg.XMPP.Domain)
	if a.fetcher, err = newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, a.counters); err != nil {
		return err
	}
	a.stops = append(a.stops, a.fetcher.Close)
	if _, err := cfg.XMPP.TLS.Client(); err != nil {
		return err
	}
	if t := cfg.Refresh.TLS; t.Enabled() {
		if a.certificates, err = refresh.LoadCertificates(t.Cert, t.Key, t.ClientCA, log); err != nil {
			return err
		}
	}
	if cfg.State.URL != "" {
		if a.pair, err = a.newPair(cfg, log); err != nil {
			return err
		}
	} else {
		a.state, err = store.Open(cfg.State.Path, a.storeOptions(cfg, log))
		if err != nil {
			return fmt.Errorf("state.path: %w", err)
		}
		if err = a.work(cfg, log); err != nil {
			return err
		}
	}
	return a.startHTTP(cfg, log)
}

func (a *app) storeOptions(cfg config.Config, log *slog.Logger) store.Options {
	return store.Options{Logger: log, Errors: a.counters.StateErrors, ForgetAfter: cfg.State.ForgetAfter}
}

// run has the component connect.
func (a *app) run() {
	a.stream.Go(func() { a.component.Run(a.streams, a.manager) })
}

// work makes what needs the state, which is open. It reads first: until that has succeeded
// nothing is made that would have to be stopped.
func (a *app) work(cfg config.Config, log *slog.Logger) (err error) {
	registry, m := a.registry, a.counters
	if a.sessions, err = session.Load(a.state); err != nil {
		return err
	}
	sessions := a.sessions
	secured, err := cfg.XMPP.TLS.Client()
	if err != nil {
		return err
	}
	api, err := a.newEjabberd(cfg, log)
	if err != nil {
		return err
	}
	a.component = component.New(component.Options{
		Address: cfg.XMPP.Address, TLS: secured, Domain: cfg.XMPP.Domain, Secret: cfg.XMPP.Secret.Reveal(), Hosts: cfg.XMPP.Hosts,
		Unrestricted: cfg.XMPP.Unrestricted, Presence: cfg.XMPP.Presence, ServerRoster: cfg.XMPP.ServerRoster, MaxStanza: cfg.XMPP.MaxStanzaBytes, Edits: cfg.Contacts.TakesEdits,
		QueriesBurst: cfg.Limits.QueriesBurst, QueriesPerSecond: cfg.Limits.QueriesPerSecond,
		API: api, ServerPush: func(user jid.JID, contacts []jid.JID, settled func([]jid.JID, error)) {
			a.serverRosters.Push(user, contacts, settled)
		},
		ServerRosterReady: func(host string) { a.serverRosters.Resume(host) }, ServerRosterNone: a.noServerRosters,
		Pair: a.pair != nil, Confirm: a.pair.confirm(), Version: version, Logger: log, Metrics: m,
	}, sessions)
	a.manager, err = users.NewManager(users.Options{
		Source: a.fetcher, Editor: a.fetcher, Sessions: sessions, Pusher: a.component, Store: a.state, Logger: log,
		Rules: users.Rules{MaxStale: cfg.Contacts.MaxStale, MaxRemoved: cfg.Contacts.MaxRemoved, ConfirmAfter: time.Duration(cfg.Contacts.ConfirmAfter), MaxAge: cfg.Contacts.MaxAge},
		// A client that logs in never waits behind all other fetches.
		Limits: users.Limits{Background: max(1, cfg.Contacts.MaxInFlight*3/4), Resync: cfg.Contacts.ResyncRate},
	})
	if err != nil {
		return err
	}
	metrics.RegisterSessions(registry, sessions.Counts)
	a.stops = append(a.stops, a.stopStream)
	a.fetcher.Recovered(a.manager.Hasten)
	var hub *presence.Hub // nil: no presence is relayed
	if cfg.XMPP.Unrestricted && cfg.XMPP.Presence != "off" {
		hub = presence.New(cfg.XMPP.Hosts, a.manager, presence.Limits{})
		hub.Recall(sessions.Shown())
		hub.Barrier(func() {
			kept := make(chan struct{})
			a.state.Sync(func() { close(kept) })
			<-kept
		})
		a.manager.Watch(hub)
		a.component.Relay(hub)
	}
	if cfg.XMPP.ServerRoster != "off" {
		a.keepServerRosters(cfg, log, m, sessions, hub)
	}
	metrics.RegisterRosters(registry, func() metrics.Rosters {
		c := a.manager.Counts()
		return metrics.Rosters{Marked: c.Marked, Resync: c.Resync, Retries: c.Retries, Held: c.Held, Waiting: c.Waiting}
	})
	metrics.RegisterWays(registry, func(add func(host, query, push, presence, serverRoster string)) {
		for _, w := range a.component.Status().Hosts {
			add(w.Host, w.Query, w.Push, w.Presence, w.ServerRoster)
		}
	})
	a.working.Store(true)
	m.Active.Set(1)
	return nil
}

// newEjabberd makes what calls ejabberd's API; nil: nothing does.
func (a *app) newEjabberd(cfg config.Config, log *slog.Logger) (component.API, error) {
	c := cfg.Ejabberd.API
	if c.URL == "" || cfg.XMPP.ServerRoster == "off" {
		return nil, nil
	}
	url, err := c.BaseURL()
	if err != nil {
		return nil, err
	}
	a.ejabberd, err = serverroster.NewEjabberd(serverroster.EjabberdOptions{
		URL: url, Login: loginOf(c), Hosts: cfg.XMPP.Hosts, Logger: log, Confirm: a.pair.confirm(),
		Changed: func(host string) {
			if a.ejabberd.Way(host) != nil {
				a.serverRosters.Resume(host)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return trustedAPI{a.ejabberd, func(host string) string { return a.serverRosters.WhyBroken(host) }}, nil
}

// trustedAPI is ejabberd's API, which does not work where it was found out that it does not do
// what it says: nothing is pushed by it there, nor shown as kept by it.
type trustedAPI struct {
	component.API
	broken func(host string) (why string)
}

func (t trustedAPI) State(host string) (works bool, why string) {
	if works, why = t.API.State(host); !works {
		return false, why
	}
	why = t.broken(host)
	return why == "", why
}

// loginOf is how ejabberd is shown who calls its API.
func loginOf(c config.EjabberdAPI) serverroster.EjabberdLogin {
	return serverroster.EjabberdLogin{Token: c.Token.Reveal(), User: c.User, Password: c.Password.Reveal()}
}

// keepServerRosters has the server's own rosters kept in step. hub relays what the server
// does not do by them; it may be nil.
func (a *app) keepServerRosters(cfg config.Config, log *slog.Logger, m *metrics.Metrics, sessions *session.Table, hub *presence.Hub) {
	options := serverroster.Options{
		Hosts: cfg.XMPP.Hosts, Ways: a.serverRosterWay, Rosters: a.manager, Store: a.state, Broken: func(host, why string) {
			if _, name := a.serverRosterWay(host); name == component.ServerRosterPrivilege {
				a.component.BrokenOwnRosters(host, why)
			}
		},
		Pushed: func(user jid.JID, contacts []jid.JID) {
			if !a.component.PushesByServer(user.Domain()) { // or it would push the same again
				a.manager.Pushed(user, contacts)
			}
		},
		Rate: cfg.Contacts.ResyncRate, Logger: log,
		Metrics: serverroster.Metrics{Items: m.ServerRosterItems, Waiting: m.ServerRosterWaiting, Seconds: m.ServerRosterSeconds},
	}
	if hub != nil {
		options.Watcher = hub
	} else {
		options.Online = sessions.HasAvailable
	}
	a.serverRosters = serverroster.New(options)
	if hub != nil {
		hub.Keeper(a.serverRosters)
	}
	a.manager.KeepServerRosters(a.serverRosters)
	a.stops = append(a.stops, a.serverRosters.Close)
	if a.ejabberd != nil {
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { a.ejabberd.Run(ctx) })
		a.stops = append(a.stops, func() { stop(); running.Wait() })
	}
}

// noServerRosters says that there is no way to the server's own rosters of a host.
func (a *app) noServerRosters(host string) {
	if a.serverRosters != nil {
		a.serverRosters.None(host)
	}
}

// serverRosterWay is the way to the server's own rosters of a host, and its name. Where
// ejabberd's API is to be used nothing stands in for it: by privilege ejabberd writes no
// subscriptions.
func (a *app) serverRosterWay(host string) (serverroster.Way, string) {
	if a.ejabberd != nil {
		return a.ejabberd.Way(host), component.ServerRosterAPI
	}
	return a.component.OwnRosters(host), component.ServerRosterPrivilege
}

// startHTTP begins to listen and to serve.
func (a *app) startHTTP(cfg config.Config, log *slog.Logger) (err error) {
	refreshListener, err := a.listen("refresh.listen", cfg.Refresh.Listen)
	if err != nil {
		return err
	}
	metricsListener, err := a.listen("metrics.listen", cfg.Metrics.Listen)
	if err != nil {
		return err
	}
	endpoint := refresh.Options{
		Hosts: cfg.XMPP.Hosts, Tokens: a.tokens, MaxBytes: cfg.Refresh.MaxBytes, Certificates: a.certificates,
		Logger: log, Requests: a.counters.RefreshRequests, Users: a.counters.RefreshedUsers,
	}
	if a.pair != nil {
		endpoint.Pass, endpoint.PassAll, endpoint.Told = a.pair.pass, a.pair.passAll, a.pair.told
	}
	a.refresh = a.newServer(refreshListener, refresh.Handler(endpoint, refresher{a}))
	history := metrics.NewHistory(a.registry)
	a.stops = append(a.stops, history.Close)
	page := metrics.Page{Overview: a.overview, History: history, Events: a.events}
	a.metrics = a.newServer(metricsListener, metrics.Handler(a.registry, a.ready, func() any { return a.status() }, page))
	if a.working.Load() {
		a.listenAdmin(cfg.State.Path)
	}
	a.serveHTTP(a.refresh, refresh.Protect(a.refresh, refreshListener, endpoint))
	a.serveHTTP(a.metrics, metricsListener)
	return nil
}

// listenAdmin lets those who may write the state file ask with rosterd user, approve and
// reject. Rosters are served without that, too.
func (a *app) listenAdmin(state string) {
	if state == "" {
		return
	}
	l, err := admin.Listen(admin.Path(state))
	if err != nil {
		a.log.Warn("rosterd user, approve and reject cannot ask this process", "err", err)
		return
	}
	a.stops = append(a.stops, func() { _ = l.Close() })
	a.admin = a.newServer(l, admin.Handler(a.manager, a.sessions, a.state))
	a.serveHTTP(a.admin, l)
}

// listen listens on the address that a key of the configuration has.
func (a *app) listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	a.stops = append(a.stops, func() { _ = l.Close() }) // if no server has done it
	return l, nil
}

// newServer makes a server that closes connections over which a header or a body
// comes too slowly. An answer may take as long as the work does.
func (a *app) newServer(l net.Listener, h http.Handler) *http.Server {
	return &http.Server{
		Addr: l.Addr().String(), Handler: h, MaxHeaderBytes: 64 << 10,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return a.requests },
	}
}

// serveHTTP serves until [app.stopHTTP].
func (a *app) serveHTTP(server *http.Server, l net.Listener) {
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("listening on %s: %w", server.Addr, err)
		}
	}()
}

// refresher refreshes while working.
type refresher struct{ a *app }

func (r refresher) Refresh(ctx context.Context, users []jid.JID) (map[jid.JID]error, error) {
	if !r.a.working.Load() {
		return nil, roster.ErrNotConnected
	}
	failed, err := r.a.manager.Refresh(ctx, users)
	return failed, cmp.Or(r.a.pair.answers(ctx), err)
}

func (r refresher) RefreshLater(ctx context.Context, users []jid.JID) error {
	if !r.a.working.Load() {
		return roster.ErrNotConnected
	}
	err := r.a.manager.RefreshLater(ctx, users)
	return cmp.Or(r.a.pair.answers(ctx), err)
}

func (r refresher) RefreshAll(ctx context.Context, domain string) (int, error) {
	if !r.a.working.Load() {
		return 0, roster.ErrNotConnected
	}
	n, err := r.a.manager.RefreshAll(ctx, domain)
	return n, cmp.Or(r.a.pair.answers(ctx), err)
}

// stopHTTP lets requests in flight end, then ends them, and waits for that.
func (a *app) stopHTTP() {
	timer := time.AfterFunc(httpWork, a.endRequests)
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), httpWork+httpStop)
	defer cancel()
	for _, server := range []*http.Server{a.refresh, a.metrics, a.admin} {
		if server != nil && server.Shutdown(ctx) != nil {
			server.Close()
		}
	}
}

// stopStream answers the queries that wait, writes what the manager knows, and
// closes the stream.
func (a *app) stopStream() {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		a.manager.Close()
	}()
	select {
	case <-answered:
	case <-time.After(answerStop): // the server does not read; the end of the stream frees them
	}
	a.endStreams()
	a.stream.Wait()
	<-answered
}

// alive takes the locks that all work needs, and returns one line about the stream.
func (a *app) alive() string {
	if !a.working.Load() {
		return "standing by"
	}
	a.manager.Counts()
	a.sessions.Counts()
	if _, err := a.component.Ready(); err != nil {
		return err.Error()
	}
	return "connected to the XMPP server"
}

// newMetrics makes the collectors. Every known label begins at 0.
func newMetrics(registry *prometheus.Registry) *metrics.Metrics {
	m := metrics.New(registry)
	metrics.RegisterBuildInfo(registry, version, buildCommit())
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.Queries: component.QueryResults, m.Edits: component.EditResults, m.Fetches: fetcher.Results, m.ItemsSkipped: fetcher.SkipReasons, m.FieldsIgnored: fetcher.Fields, m.BulkFetches: fetcher.BulkResults,
		m.RefreshRequests: refresh.Codes, m.RefreshedUsers: refresh.Results, m.ServerRosterItems: serverroster.Results,
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

func newFetcher(c config.Contacts, hosts []string, log *slog.Logger, m *metrics.Metrics) (f *fetcher.Fetcher, err error) {
	templates, bulk, edit := make(map[string]config.URLTemplate), make(map[string]string), make(map[string]string)
	for _, host := range hosts {
		if templates[host], err = c.TemplateFor(host); err != nil {
			return nil, err
		}
		if bulk[host], err = c.BulkURLFor(host); err != nil {
			return nil, err
		}
		if edit[host], err = c.EditURLFor(host); err != nil {
			return nil, err
		}
	}
	authorities, err := c.TLS.Client()
	if err != nil {
		return nil, err
	}
	options := fetcher.Options{
		URL: func(user jid.JID) (string, error) {
			return templates[user.Domain()].Expand(user.Local(), user.Domain())
		},
		EditURL: func(domain string) (string, bool) { url := edit[domain]; return url, url != "" },
		Timeout: c.Timeout, MaxInFlight: c.MaxInFlight, MaxBytes: c.MaxBytes, NotFoundEmpty: c.NotFound == "empty",
		Header: headerOf(c), UserAgent: "rosterd/" + version, TLS: authorities, Logger: log,
		Metrics: fetcher.Metrics{Fetches: m.Fetches, Duration: m.FetchDuration, InFlight: m.FetchInFlight, Skipped: m.ItemsSkipped, Ignored: m.FieldsIgnored,
			CircuitsOpen: m.CircuitsOpen, BulkFetches: m.BulkFetches},
	}
	if slices.ContainsFunc(hosts, func(host string) bool { return bulk[host] != "" }) {
		options.BulkSize = c.BulkSize
		options.BulkURL = func(domain string) (string, bool) { url := bulk[domain]; return url, url != "" }
	}
	return fetcher.New(options), nil
}

// headerOf is the header of every fetch.
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
func tokensOf(c config.Refresh) (list []string) {
	for _, token := range append([]config.Secret{c.Token}, c.Tokens...) {
		list = append(list, token.Reveal())
	}
	return list
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"rosterd/check"
	"rosterd/component"
	"rosterd/fetcher"
	"rosterd/metrics"
	"rosterd/serverroster"
	"rosterd/store"
	"rosterd/users"
)

// status is the answer of /status.
type status struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Started time.Time `json:"started"`
	Uptime  float64   `json:"uptime_seconds"`
	component.Status
	Counts        counts                `json:"counts"`
	Backends      []fetcher.Backend     `json:"backends,omitempty"`
	State         string                `json:"state,omitempty"` // why it is not being written
	Pair          *pairStatus           `json:"pair,omitempty"`
	ServerRosters []serverroster.Status `json:"server_rosters,omitempty"`
}

// counts are resources and users.
type counts struct {
	Connected  int            `json:"connected_resources"`
	Interested int            `json:"interested_resources"`
	Marked     int            `json:"marked_users"`
	MarkedFor  map[string]int `json:"marked_for"` // by what failed
	Resync     int            `json:"resync_users"`
}

func (a *app) status() status {
	s := status{Version: version, Commit: buildCommit(), Started: a.started, Uptime: time.Since(a.started).Seconds(), Backends: a.fetcher.Backends()}
	if a.pair != nil {
		s.Pair = a.pair.status()
	}
	if !a.working.Load() {
		s.Status, s.Counts.MarkedFor = component.Status{Domain: a.domain, Address: a.address, Reason: reasonStandby}, map[string]int{}
		return s
	}
	s.Status = a.component.Status()
	s.Counts.Connected, s.Counts.Interested = a.sessions.Counts()
	c := a.manager.Counts()
	s.Counts.Marked, s.Counts.MarkedFor, s.Counts.Resync = c.Marked, c.MarkedFor, c.Resync
	if a.serverRosters != nil {
		s.ServerRosters = a.serverRosters.Status()
	}
	if err := a.state.Err(); err != nil {
		s.State = err.Error()
	}
	return s
}

// pairStatus is what an instance of a pair says of it.
type pairStatus struct {
	Role   string    `json:"role"`             // "active" or "standby"
	Since  time.Time `json:"since"`            // of the role
	Term   int64     `json:"term,omitempty"`   // of the active one
	Active string    `json:"active,omitempty"` // how it is reached: its refresh.advertise; "": nobody is known
	Error  string    `json:"error,omitempty"`  // why the database cannot be reached
}

const (
	reasonStandby = "standing by for the active instance"
	askWithin     = time.Second
)

func (p *pair) status() *pairStatus {
	s := &pairStatus{Role: "standby", Since: p.started}
	err := p.db.Err()
	if p.working.Load() {
		s.Role, s.Since, s.Term, s.Active, err = "active", p.lease.Since, p.lease.Term, p.advertise, p.lease.Err()
	} else if err == nil {
		ctx, cancel := context.WithTimeout(p.ends, askWithin)
		defer cancel()
		var active store.Term
		if active, err = p.db.Active(ctx); err == nil && !active.Ended {
			s.Term, s.Active = active.Term, active.URL
		}
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

// ready is the answer of /readyz.
func (a *app) ready() (state string, notes []string, err error) {
	if a.working.Load() {
		notes, err = a.component.Ready()
		if a.pair != nil && err == nil && a.pair.lease.Err() != nil {
			notes = append(notes, a.pair.lease.Err().Error())
		}
		return "ok", notes, err
	}
	if err := a.pair.db.Err(); err != nil {
		return "", nil, fmt.Errorf("standby, but it cannot take over: %w", err)
	}
	return "standby", nil, nil
}

// kinds are those of [users.Kinds], in words.
var kinds = map[string]string{
	users.MarkedBackend: "marked: their contacts could not be fetched",
	users.MarkedGuard:   "held by the removal guard: the backend removes most of their contacts",
	users.MarkedClient:  "in doubt: a client may have missed a push or its roster",
	users.MarkedStream:  "marked: there was no stream to the server",
	users.MarkedState:   "marked: what is kept of them could not be read",
	users.MarkedBefore:  "marked before rosterd started",
}

// overview is what the status page says.
func (a *app) overview() metrics.Overview {
	s, cfg := a.status(), *a.cfg.Load()
	o := metrics.Overview{Version: s.Version, Commit: s.Commit, Started: s.Started, Connected: s.Connected, Reason: s.Reason,
		Domain: s.Domain, Address: s.Address, State: cfg.State.Path, StateError: s.State}
	if s.Pair != nil {
		o.Role, o.Since, o.State, o.StateError = s.Pair.Role, s.Pair.Since, a.pair.db.String(), cmp.Or(s.State, s.Pair.Error)
	}
	for _, host := range s.Hosts {
		o.Hosts = append(o.Hosts, check.Overview(cfg, host, s.Status))
	}
	for _, b := range s.Backends {
		o.Backends = append(o.Backends, metrics.Backend(b))
	}
	for _, r := range s.ServerRosters {
		why := r.Error
		if r.Broken != "" {
			why = r.Broken
		}
		o.ServerRosters = append(o.ServerRosters, metrics.RosterProgress{Host: r.Host, Waiting: r.Waiting, Written: r.Written, Removed: r.Removed, Busy: r.Busy, Error: why})
	}
	for _, kind := range users.Kinds {
		o.Users = append(o.Users, metrics.Count{What: kinds[kind], Count: s.Counts.MarkedFor[kind]})
	}
	o.Users = append(o.Users, metrics.Count{What: "to be looked at after a restart, a lost stream or a report while offline", Count: s.Counts.Resync})
	return o
}

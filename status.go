package main

import (
	"time"

	"rosterd/check"
	"rosterd/component"
	"rosterd/fetcher"
	"rosterd/metrics"
	"rosterd/serverroster"
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
	s := status{Version: version, Commit: buildCommit(), Started: a.started, Uptime: time.Since(a.started).Seconds(),
		Status: a.component.Status(), Backends: a.fetcher.Backends()}
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

// kinds are those of [users.Kinds], in words.
var kinds = map[string]string{
	users.MarkedBackend: "marked: their contacts could not be fetched",
	users.MarkedGuard:   "held by the removal guard: the backend removes most of their contacts",
	users.MarkedClient:  "in doubt: a client may have missed a push or its roster",
	users.MarkedStream:  "marked: there was no stream to the server",
	users.MarkedBefore:  "marked before rosterd started",
}

// overview is what the status page says.
func (a *app) overview() metrics.Overview {
	s := a.status()
	o := metrics.Overview{Version: s.Version, Commit: s.Commit, Started: s.Started, Connected: s.Connected, Reason: s.Reason,
		Domain: s.Domain, Address: s.Address, State: a.cfg.State.Path, StateError: s.State}
	for _, host := range s.Hosts {
		o.Hosts = append(o.Hosts, check.Overview(a.cfg, host, s.Status))
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
	o.Users = append(o.Users, metrics.Count{What: "to be looked at after a restart or a lost stream", Count: s.Counts.Resync})
	return o
}

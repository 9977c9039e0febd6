package check

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
)

const (
	maxAsked = 20              // hosts of which the server is asked whether it has them
	askWait  = 5 * time.Second // for all answers together
)

// connect connects as the component, as rosterd would, until the server has
// announced what there is to announce, and leaves in order.
func (c *checker) connect(ctx context.Context) {
	timing := c.Timing
	timing.MinRetry, timing.MaxRetry = time.Second, time.Second // of which one is needed, see observe
	link := component.New(component.Options{
		Address: string(c.cfg.XMPP.Address), TLS: c.tls, Domain: c.cfg.XMPP.Domain, Secret: c.cfg.XMPP.Secret.Reveal(), Hosts: c.cfg.XMPP.Hosts,
		Unrestricted: c.cfg.XMPP.Unrestricted, Presence: c.cfg.XMPP.Presence, MaxStanza: c.cfg.XMPP.MaxStanzaBytes,
		Version: c.Version, Timing: timing, Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()),
	}, session.NewTable())
	streams, closeStream := context.WithCancel(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		link.Run(streams, absent{})
	}()
	status := observe(ctx, link, c.Timing.Announce)
	lacking := c.lacking(ctx, link, status)
	closeStream()
	<-left
	if ctx.Err() != nil {
		return
	}
	c.judge(status, func(host string) bool { return lacking[host] })
}

// observe waits until the handshake has failed, or every host has announced
// everything, or nothing will come any more. After a stream that the server ended
// because of an address, it waits for the next one, as rosterd would.
func observe(ctx context.Context, link *component.Component, patience time.Duration) component.Status {
	var connected, refused time.Time
	status := link.Status()
	wait(ctx, func() bool {
		status = link.Status()
		if !status.Connected {
			if refused.IsZero() && status.Any == component.AnyRefused {
				refused = time.Now()
			}
			return !comesSoon(status) || !refused.IsZero() && time.Since(refused) > patience+localWait
		}
		if connected.IsZero() {
			connected = time.Now()
		}
		return time.Since(connected) > patience || !hasUnknown(status) && status.Any != component.AnyUnproven
	})
	return status
}

// comesSoon reports whether a component without a stream is about to have one.
func comesSoon(status component.Status) bool {
	return status.Reason == component.ReasonConnecting || status.Any == component.AnyRefused && status.Condition == "invalid-from"
}

// hasUnknown reports whether a host has something left to announce.
func hasUnknown(status component.Status) bool {
	for _, w := range status.Hosts {
		if !w.Delegation || w.Privileges == "" {
			return true
		}
	}
	return false
}

// lacking are those of the hosts that announced nothing which the server says
// it does not have.
func (c *checker) lacking(ctx context.Context, link *component.Component, status component.Status) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var (
		work    sync.WaitGroup
		mu      sync.Mutex
		lacking = make(map[string]bool)
	)
	asked := 0
	for _, w := range status.Hosts {
		if w.Delegation || w.Privileges != "" || asked == maxAsked {
			continue
		}
		asked++
		work.Go(func() {
			if link.Lacks(ctx, w.Host) {
				mu.Lock()
				lacking[w.Host] = true
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return lacking
}

// absent is the [component.Rosters] of a rosterd that is not really there: who
// asks is told to try again, and keeps the roster he has.
type absent struct{}

func (absent) Get(jid.JID, *string, roster.Reply) (bool, error) { return false, roster.ErrStopping }
func (absent) Refused(jid.JID, []jid.JID)                       {}
func (absent) Undelivered(jid.JID)                              {}
func (absent) Unasked(jid.JID)                                  {}
func (absent) Gone(jid.JID)                                     {}
func (absent) Resume(string)                                    {}

package component

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
)

const (
	askEvery = 2 * time.Second  // how often is looked for resources to ask
	askAfter = 90 * time.Second // silence after which a resource is asked
	askRate  = 200              // resources asked per second at most
	reported = 5 * time.Second  // how long a server may take to report who is there
)

// askAll asks the connected resources that were not heard of for a while whether
// they are still there: COMPAT ejabberd, which does not report the end of a
// session whose connection is cut. It returns when ctx ends.
func (c *Component) askAll(ctx context.Context, s *stream) {
	look := time.NewTicker(c.opts.Timing.Ask)
	defer look.Stop()
	next := time.NewTicker(time.Second / askRate)
	defer next.Stop()
	report := time.NewTimer(c.opts.Timing.Report)
	defer report.Stop()
	asked := make(map[jid.JID]time.Time) // bounded: by those connected within Silent
	for {
		select {
		case <-ctx.Done():
			return
		case <-report.C:
			c.vanished(s)
		case now := <-look.C:
			for full, at := range asked {
				if now.Sub(at) > c.opts.Timing.Silent {
					delete(asked, full)
				}
			}
			since := now.Add(-c.opts.Timing.Silent)
			if since.Before(s.began) {
				since = s.began // those who were there before may have left with the stream
			}
			for _, full := range c.sessions.Unheard(since) {
				if _, already := asked[full]; already || !c.asks(full.Domain()) {
					continue
				}
				asked[full] = now
				select {
				case <-next.C:
				case <-ctx.Done():
					return
				}
				c.ask(s, full)
			}
		}
	}
}

// asks reports whether a host's resources are worth asking: only where a
// server's error can be told from a client's, see [Component.learn].
func (c *Component) asks(host string) bool {
	tells, _ := c.tells.Load(host)
	return tells == true
}

// vanished are the available resources that a server has not reported on a
// stream whose beginning is a while ago: one that reports the ends of sessions
// also reports at once, on a new stream, who is there.
func (c *Component) vanished(s *stream) {
	if c.hub == nil {
		return
	}
	for _, full := range c.hub.Unheard(s.began) {
		tells, known := c.tells.Load(full.Domain())
		if known && tells == false && s.grants.of(full.Domain()).presence {
			c.presences.Unavailable(full, nil) // it may be connected without being available
		}
	}
}

// ask asks a resource for a sign of life (XEP-0199). Any answer but the
// server's own is one.
func (c *Component) ask(s *stream, full jid.JID) {
	c.sendPing(s, full.String(), func(a answer) {
		switch {
		case a.iq == nil: // it may sleep, or was not asked
		case serverSaysGone(a.iq):
			c.gone(full)
		default:
			c.sessions.Heard(full)
			c.presences.Alive(full)
		}
	})
}

// learn finds out how a server answers for a resource that is not there. Where
// its error has a text, as ejabberd's has, it can be told from what clients
// answer who do not know XEP-0199.
func (c *Component) learn(s *stream, host string) {
	if _, known := c.tells.Load(host); known {
		return
	}
	c.sendPing(s, "rosterd-asks-for-nobody-"+strings.ToLower(rand.Text())+"@"+host+"/nowhere", func(a answer) {
		if a.iq != nil {
			c.tells.Store(host, serverSaysGone(a.iq))
		}
	})
}

// sendPing asks for a sign of life and does not block: where the server takes
// nothing now, nobody is asked.
func (c *Component) sendPing(s *stream, to string, callback func(answer)) {
	id, ok := s.iqs.register(to, callback)
	if !ok {
		return
	}
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: c.opts.Domain, To: to})
	if !s.out.offer(append(b, "<ping xmlns='"+nsPing+"'/></iq>"...)) && s.iqs.forget(id) {
		callback(answer{lost: true})
	}
}

// serverSaysGone reports whether an answer is a server's, for a resource that
// is not there. The request had no language, nor has then the server's own
// error, while what a client sends is stamped with one.
func serverSaysGone(iq *element) bool {
	if iq.get("type") != string(stanza.IQTypeError) || iq.lang() {
		return false
	}
	e := iq.child(stanza.NSComponent, "error")
	return e != nil && condition(e, nsStanzas) == "service-unavailable" && e.child(nsStanzas, "text") != nil
}

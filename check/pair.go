package check

import (
	"context"
	"log/slog"
	"time"

	"rosterd/store"
)

// pair looks into the database of a pair, and says what this instance is, or would be.
func (c *checker) pair(ctx context.Context) finding {
	if c.cfg.State.URL == "" {
		return finding{}
	}
	db, err := store.NewPair(c.cfg.State.URL.Reveal(), c.cfg.XMPP.Domain, c.cfg.Refresh.Advertise, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail("state.url: %s", err).mend("it has to be as in postgres://rosterd@db.example.org/rosterd?sslmode=verify-full")
	}
	defer db.Close()
	view, err := db.Look(ctx)
	since := view.Last.Since.UTC().Format(time.DateTime) + " UTC"
	switch {
	case err != nil:
		return fail("state.url: %s", err).mend("is PostgreSQL running, does it take connections from this machine (pg_hba.conf), and are user, password and sslmode right?",
			"until it is reached, this instance stands by and cannot take over")
	case !view.Made && !view.MayMake:
		return fail("state.url: %s has no tables of rosterd, and the role may not make them", db).mend("GRANT CREATE ON DATABASE to it, for the first start")
	case view.Held && view.Last.URL == c.cfg.Refresh.Advertise:
		return pass("state.url: %s: this instance is the active one since %s", db, since)
	case view.Held:
		c.elsewhere = view.Last.URL
		return pass("state.url: %s: %s is active since %s, this instance stands by, or would", db, view.Last.URL, since)
	}
	return pass("state.url: %s: no instance is active, this one would be", db)
}

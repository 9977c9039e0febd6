package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"time"

	"rosterd/store"
)

// pair looks into the database of a pair, and says what this instance is, or would be.
func (c *checker) pair(ctx context.Context) finding {
	if c.cfg.State.URL == "" {
		return finding{}
	}
	c.elsewhere = "the other instance may be" // unless the database says otherwise
	db, err := store.NewPair(c.cfg.State.URL.Reveal(), c.cfg.XMPP.Domain, c.cfg.Refresh.Advertise, slog.New(slog.DiscardHandler))
	if err != nil {
		mend := "it has to be as in postgres://rosterd@db.example.org/rosterd?sslmode=verify-full"
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			mend = "rosterd has to be able to read the file that sslrootcert, sslcert or sslkey names"
		}
		return fail("state.url: %s", err).mend(mend)
	}
	defer db.Close()
	view, err := db.Look(ctx)
	since := view.Last.Since.UTC().Format(time.DateTime) + " UTC"
	switch {
	case err != nil:
		return fail("state.url: %s", err).mend(mendDatabase(err)...)
	case !view.Made && !view.MayMake:
		return fail("state.url: %s has no tables of rosterd, and the role may not make them", db).mend("GRANT CREATE ON DATABASE to it, for the first start, or CREATE SCHEMA rosterd AUTHORIZATION it")
	case view.Held && view.Last.URL == c.cfg.Refresh.Advertise:
		c.elsewhere, c.here = "this instance, or one with the same refresh.advertise, is", true
		return pass("state.url: %s: this instance is the active one since %s", db, since)
	case view.Held:
		c.elsewhere = view.Last.URL + " is"
		if err := reach(ctx, view.Last.URL); err != nil {
			return warn("state.url: %s: %s is active since %s, and is not reached from here: %s", db, view.Last.URL, since, err).mend(
				"this instance could not pass refreshes on, nor tell it that it has taken over. There, is refresh.advertise right, refresh.listen not 127.0.0.1 alone, and the port open for this machine?")
		}
		return pass("state.url: %s: %s is active since %s, this instance stands by, or would", db, view.Last.URL, since)
	}
	c.elsewhere = ""
	return pass("state.url: %s: no instance is active, this one would be", db)
}

// reach reports why a refresh endpoint of the other instance does not answer. It is asked for
// nothing, and told nothing: what answers is not known to be the other instance.
func reach(ctx context.Context, endpoint string) error {
	at, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	port := cmp.Or(at.Port(), map[string]string{"http": "80", "https": "443"}[at.Scheme])
	_, _, shown, err := get(ctx, net.JoinHostPort(at.Hostname(), port), "/", at.Scheme == "https")
	if shown != nil {
		return nil // it may want a certificate
	}
	return err
}

// mendDatabase says what mends an error of the database.
func mendDatabase(err error) []string {
	const standsBy = "until then, this instance stands by and cannot take over"
	switch {
	case errors.Is(err, store.ErrNewer):
		return []string{"install that version here, too: this one ends at once"}
	case errors.Is(err, store.ErrReadOnly):
		return []string{"the URL has to name the primary: rosterd writes. It may name all servers, host1:5432,host2:5432, of which the one that can be written is taken", standsBy}
	case errors.Is(err, store.ErrPooled):
		return []string{"connect to PostgreSQL itself, or in session mode to a pooler that hands the parameter on", standsBy}
	case errors.Is(err, store.ErrTooOld):
		return []string{"PostgreSQL has to be upgraded", standsBy}
	case errors.Is(err, store.ErrForbidden):
		return []string{"the tables belong to the role that made them: both instances have to use the same one", standsBy}
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return []string{"is the host in the URL a name in its certificate? If the certificate is not of a public authority, add sslrootcert=FILE to the URL, with that of the authority", standsBy}
	}
	return []string{"is PostgreSQL running, does it take connections from this machine (pg_hba.conf), and are user, password and sslmode right?", standsBy}
}

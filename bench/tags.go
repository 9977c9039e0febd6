package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tagRows are the rows about long tags in what rosterd writes to a real server.
// There libexpat may wait for more to come behind such a tag, and all that
// follows waits with it. The clients here read with a parser that does not wait.
type tagRows struct {
	b    *bench
	n    int // rosters of each kind
	tags []tagRow
}

// tagRow is a roster whose answer has one tag of some length, and its rows.
// The first is the one that is short: the medians of the others stand beside its.
type tagRow struct {
	of user
	id string // of the query

	mid, slowest, roster *row
}

// longestWait is, in ms, how long anybody may wait for a roster.
const longestWait = 100

func (b *bench) tags() part {
	t := &tagRows{b: b, n: b.pick(100, 10)}
	add := func(what string, of user, id string) {
		const short = "10 bytes"
		t.tags = append(t.tags, tagRow{
			of: of, id: id,
			mid:     b.row(b.server+": another's query behind "+what, "ms", short, 0, false),
			slowest: b.row(fmt.Sprintf("  slowest of %d", t.n), "ms", fmt.Sprint(longestWait), 1, false),
			roster:  b.row("  the roster itself", "ms", short, 0, false),
		})
	}
	add("a name of 10 bytes", user{'n', 10, 0}, "id")
	add("a name of 20 kB", user{'n', 20_000, 0}, "id") // Prosody waits at 17 to 28 kB, not at 30
	add("a name of 30 kB", user{'n', 30_000, 0}, "id")
	add("a name of 5 kB, 32 kB as XML", user{'q', 5_400, 0}, "id")
	add("a query's id of 6 kB", user{'n', 10, 1}, strings.Repeat("i", 6_000))
	return part{name: "tags", run: t.run}
}

// waits are what one kind of roster gave, one for each.
type waits struct{ behind, roster []time.Duration }

func (t *tagRows) run(ctx context.Context) error {
	other := user{'u', 1, 0}
	accounts := append(users('e', 0, 0, 3), other)
	for _, tag := range t.tags {
		accounts = append(accounts, tag.of)
	}
	subject, err := t.b.startReal(ctx, variants[t.b.server][0], accounts)
	if err != nil {
		return err
	}
	defer subject.close()
	clients := make([]*client, len(t.tags))
	for i, tag := range t.tags {
		if clients[i], err = served(ctx, subject.server.ClientAddress(), tag.of); err != nil {
			return err
		}
		defer clients[i].close()
	}
	next, err := served(ctx, subject.server.ClientAddress(), other)
	if err != nil {
		return err
	}
	defer next.close()
	took := make([]waits, len(t.tags))
	for range t.n {
		for i, tag := range t.tags {
			behind, roster, err := behind(clients[i], tag.id, next)
			if err != nil {
				return fmt.Errorf("the roster of %s: %w", tag.of, err)
			}
			took[i].behind, took[i].roster = append(took[i].behind, behind), append(took[i].roster, roster)
		}
	}
	for i, tag := range t.tags {
		tag.mid.add(ms(median(took[0].behind)), ms(median(took[i].behind)))
		tag.slowest.add(longestWait, ms(slices.Max(took[i].behind)))
		tag.roster.add(ms(median(took[0].roster)), ms(median(took[i].roster)))
	}
	return nil
}

// served logs a user in as soon as rosterd serves the roster. Until then a
// server may answer with its own.
func served(ctx context.Context, address string, u user) (c *client, err error) {
	return c, retry(ctx, func() error {
		if c, err = login(ctx, address, u, nil); err != nil {
			return err
		}
		err := c.askRoster("served")
		if err == nil {
			err = c.awaitRoster("served")
		}
		if err != nil {
			c.close()
		}
		return err
	})
}

// behind has one client ask for its roster and another right behind it, over and
// over until the roster is there. It returns the longest wait of the other, and
// that for the roster.
func behind(one *client, id string, other *client) (longest, roster time.Duration, err error) {
	for _, c := range []*client{one, other} {
		_ = c.conn.SetDeadline(time.Now().Add(loginTime))
	}
	began := time.Now()
	if err := one.askRoster(id); err != nil {
		return 0, 0, err
	}
	arrived := make(chan error, 1)
	go func() {
		err := one.awaitRoster(id)
		roster = time.Since(began)
		arrived <- err
	}()
	for {
		asked := time.Now()
		err := other.askRoster("behind")
		if err == nil {
			err = other.awaitRoster("behind")
		}
		longest = max(longest, time.Since(asked))
		select {
		case failed := <-arrived:
			return longest, roster, errors.Join(err, failed)
		default:
		}
		if err != nil {
			return longest, roster, errors.Join(err, <-arrived)
		}
	}
}

// askRoster sends a query, and what lets libexpat read it at once.
func (c *client) askRoster(id string) error {
	return c.say("<iq type='get' id='" + id + "'><query xmlns='jabber:iq:roster'/></iq>" + strings.Repeat(" ", len(id)))
}

// awaitRoster waits for a roster, which has contacts.
func (c *client) awaitRoster(id string) error {
	s, err := c.answer(id)
	if err == nil && !bytes.Contains(s, []byte("<item ")) {
		err = fmt.Errorf("not rosterd's: %.400s", s)
	}
	return err
}

package main

import (
	"context"
	"fmt"
	"time"
)

// relayRows is the row about presence between contacts: what one stanza costs,
// with few contacts online and with many.
type relayRows struct {
	b     *bench
	users int // who change their presence
	cost  *row
}

func (b *bench) relays() part {
	p := &relayRows{b: b, users: b.pick(200, 50)}
	p.cost = b.row("processor time of relaying a presence, 1000 of 1000 contacts online", "µs", "100 online", 1.2, false)
	return part{name: "relays", run: p.run}
}

// settles is how long rosterd waits on a new stream for what the server
// reports. What comes before is relayed in another way, and slowly.
const settles = 12 * time.Second

// rounds is how often each user's presence changes: more often would be held
// back.
const rounds = 5

func (p *relayRows) run(ctx context.Context) error {
	r, err := p.b.startRosterd(ctx, settings{"xmpp.unrestricted": true, "xmpp.presence": "auto"})
	if err != nil {
		return err
	}
	defer r.close()
	select {
	case <-time.After(settles):
	case <-ctx.Done():
		return ctx.Err()
	}
	costs := make(map[int]float64)
	for stage, online := range []int{100, 1000} {
		before := []int{0, 100}[stage]
		// They ask first: nobody is fetched, or brought in line, behind this.
		if err := r.link.run(ctx, &flow{users: users('e', 0, before, online-before), window: 64}); err != nil {
			return err
		}
		if err := r.link.write(presences(users('e', 0, before, online-before), 0)); err != nil {
			return err
		}
		who := users('p', 1000, stage*p.users, p.users)
		if err := r.link.run(ctx, &flow{users: who, window: 16}); err != nil {
			return err
		}
		if costs[online], err = p.relay(ctx, r, who, online); err != nil {
			return fmt.Errorf("%d online: %w", online, err)
		}
		if err := r.link.write(presences(who, -1)); err != nil {
			return err
		}
	}
	p.cost.add(costs[100], costs[1000])
	return nil
}

// relay is what one relayed stanza costs, in µs of processor time.
func (p *relayRows) relay(ctx context.Context, r *rosterd, who []user, online int) (float64, error) {
	var before time.Duration
	for round := range 1 + rounds {
		if round == 1 { // after the initial presence
			before = cpu(r.pid())
		}
		wait := r.link.expect(&r.link.presences, len(who)*online)
		if err := r.link.write(presences(who, round)); err != nil {
			return 0, err
		}
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		_, err := wait(soon)
		cancel()
		if err != nil {
			return 0, err
		}
	}
	return micros(cpu(r.pid())-before) / float64(rounds*len(who)*online), nil
}

// presences are what a server reports of users: that they are available, say
// something for the n-th time, or with -1 have left.
func presences(who []user, n int) []byte {
	var b []byte
	for _, u := range who {
		b = append(appendFull(append(b, "<presence from='"...), u), "' to='"+domain+"'"...)
		if n < 0 {
			b = append(b, " type='unavailable'/>"...)
		} else {
			b = fmt.Appendf(b, "><status>%d</status></presence>", n)
		}
	}
	return b
}

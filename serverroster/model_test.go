package serverroster

import (
	"errors"
	flags "flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

var (
	modelSeed  = flags.Int("model.seed", -1, "the one seed that TestModel runs")
	modelSeeds = flags.Int("model.seeds", 100, "how many seeds TestModel runs")
)

// Whatever happens, and in whatever order: once it is quiet, the server's rosters are the
// last known ones, but for what the server makes of them, and nothing is written any more.
func TestModel(t *testing.T) {
	from, to := 0, *modelSeeds
	if testing.Short() {
		to = min(to, 20)
	}
	if *modelSeed >= 0 {
		from, to = *modelSeed, *modelSeed+1
	}
	for seed := from; seed < to; seed++ {
		path := ""
		if seed%10 == 0 {
			path = filepath.Join(t.TempDir(), "rosterd.db")
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, path, func(w *world) { newModel(w, uint64(seed)).run() })
		})
	}
}

type model struct {
	*world
	r       *rand.Rand
	users   []jid.JID
	refused jid.JID // a contact whom the server does not take; zero: none
	failing bool
	edits   int
	history []string
}

func newModel(w *world, seed uint64) *model {
	m := &model{world: w, r: rand.New(rand.NewPCG(seed, 1))}
	for n := range 5 {
		m.users = append(m.users, mustJID(fmt.Sprintf("user%d@example.org", n)))
	}
	s := w.server
	if m.r.IntN(2) == 0 {
		s.do(func() { w.name = "api" })
	}
	s.each = []time.Duration{0, time.Millisecond, 30 * time.Millisecond}[m.r.IntN(3)]
	if m.r.IntN(3) == 0 {
		s.prepare = func(j jid.JID) jid.JID { return mustJID(strings.ReplaceAll(j.String(), "contact1", "contract1")) }
	}
	if m.r.IntN(3) == 0 {
		s.store = func(i roster.Item) roster.Item {
			if len(i.Name) > 7 {
				i.Name = i.Name[:7]
			}
			return i
		}
	}
	if m.r.IntN(3) == 0 {
		m.refused = mustJID("contact3@example.net")
		s.refuses[m.refused] = true
	}
	// Before the first write, the next process knows of it.
	s.onSet = func(user jid.JID) {
		w.rosters.mu.Lock()
		if w.name == "api" && w.rosters.locked != 1 {
			m.t.Errorf("%s is written with %d locks", user, w.rosters.locked)
		}
		w.rosters.mu.Unlock()
		if kept, is := w.store.(*memory); is {
			kept.mu.Lock()
			defer kept.mu.Unlock()
			if !kept.kept.rows[user.String()].Writing {
				m.t.Errorf("%s is written, and a kill would lose that", user)
			}
		}
	}
	failures := rand.New(rand.NewPCG(seed, 2)) // guarded by the server's mutex
	s.fails = func(jid.JID, string) error {
		if m.failing && failures.IntN(4) == 0 {
			return errors.New("internal-server-error")
		}
		return nil
	}
	return m
}

// some is a roster of contacts at random.
func (m *model) some() *roster.Roster {
	var items []roster.Item
	n := 8
	if m.r.IntN(4) == 0 {
		n = 40
	}
	for i := range n {
		if m.r.IntN(2) == 0 {
			continue
		}
		item := roster.Item{JID: mustJID(fmt.Sprintf("contact%d@example.net", i)), Subscription: []roster.Subscription{"both", "to", "from", "none"}[m.r.IntN(4)]}
		if m.r.IntN(2) == 0 {
			item.Name = fmt.Sprintf("Name%05d", m.r.IntN(3))
		}
		if m.r.IntN(3) == 0 {
			item.Groups = []string{"Friends", "Work"}[m.r.IntN(2):]
		}
		items = append(items, item)
	}
	return roster.New(items)
}

// edit changes what the server has, as nobody did before.
func (m *model) edit(user jid.JID) {
	m.edits++
	contact := mustJID(fmt.Sprintf("contact%d@example.net", m.r.IntN(10)))
	m.server.do(func() {
		if m.server.rosters[user] == nil {
			m.server.rosters[user] = make(map[jid.JID]roster.Item)
		}
		if m.server.prepare != nil {
			contact = m.server.prepare(contact)
		}
		if contact != m.refused {
			m.server.rosters[user][contact] = roster.Item{JID: contact, Subscription: "none", Name: fmt.Sprint("E", m.edits)}
		}
	})
}

// tell has the clients of a user told something, or ends that.
func (m *model) tell(user jid.JID) (now bool) {
	m.rosters.mu.Lock()
	defer m.rosters.mu.Unlock()
	if m.rosters.telling == nil {
		m.rosters.telling = make(map[jid.JID]bool)
	}
	m.rosters.telling[user] = !m.rosters.telling[user]
	return m.rosters.telling[user]
}

func (m *model) step() {
	user := m.users[m.r.IntN(len(m.users))]
	what := ""
	switch m.r.IntN(19) {
	case 0, 1, 2:
		what = "refresh " + user.Local()
		m.keep(user, m.some())
	case 3, 4:
		what = "query " + user.Local()
		if took := m.query(user, m.some()); took > queryWaits {
			m.t.Errorf("a query waited for %v", took)
		}
	case 5:
		what = "kill"
		m.kill()
	case 6:
		what = "restart"
		m.again()
	case 7:
		what = "stream lost"
		m.server.do(func() { m.server.gone = true })
		time.Sleep(time.Duration(m.r.IntN(3000)) * time.Millisecond)
		if m.r.IntN(2) == 0 {
			m.know(user, m.some())
			m.keeper.Keep(user, nil)
		}
		m.server.do(func() { m.server.gone = false })
		m.keeper.Resume("example.org")
	case 8:
		what = "server restarted " + user.Local()
		m.server.do(func() { m.server.gone = true })
		time.Sleep(time.Duration(m.r.IntN(1000)) * time.Millisecond)
		if m.edit(user); m.r.IntN(3) == 0 {
			m.server.put(user, roster.New(nil))
		}
		m.server.do(func() { m.server.gone = false })
		m.keeper.Resume("example.org")
	case 9:
		m.server.do(func() { m.failing = !m.failing })
		what = fmt.Sprint("failing ", m.failing)
	case 10, 11:
		what = "edit " + user.Local()
		m.edit(user)
	case 13:
		m.server.do(func() { m.server.silent = !m.server.silent })
		what = "silent"
	case 14:
		what = "doubt " + user.Local()
		m.rosters.mu.Lock()
		if m.rosters.doubt == nil {
			m.rosters.doubt = make(map[jid.JID]bool)
		}
		m.rosters.doubt[user] = !m.rosters.doubt[user]
		doubt := m.rosters.doubt[user]
		m.rosters.mu.Unlock()
		if !doubt {
			m.keeper.Keep(user, nil)
		}
	case 15:
		what = "telling " + user.Local()
		if !m.tell(user) {
			m.keeper.Keep(user, nil)
		}
	case 12:
		what = "no account"
		m.server.do(func() { m.server.none[user] = !m.server.none[user] })
	default:
		d := time.Duration(m.r.IntN(1<<(4+m.r.IntN(9)))) * time.Millisecond
		what = "sleep " + d.String()
		time.Sleep(d)
	}
	m.history = append(m.history, what)
}

func (m *model) run() {
	defer func() {
		if m.t.Failed() {
			m.t.Log(strings.Join(m.history, "\n"))
		}
	}()
	for range 60 {
		m.step()
	}
	m.server.do(func() { m.failing, m.server.silent, m.server.none = false, false, make(map[jid.JID]bool) })
	m.rosters.mu.Lock()
	m.rosters.doubt, m.rosters.telling = nil, nil
	m.rosters.mu.Unlock()
	time.Sleep(time.Second)
	m.keeper.Resume("example.org")
	m.settle()
	m.right()
	m.quiet(func() {
		for _, user := range m.users {
			m.keeper.Keep(user, nil)
		}
	})
	time.Sleep(time.Second) // later than anybody was asked for
	m.again()               // what the server made of what was written last is seen now, and written once more
	m.settle()
	m.quiet(m.again)
	m.quiet(m.kill)
	m.right()
	if len(m.broken) > 0 {
		m.t.Errorf("broken: %q", m.broken)
	}
}

// right wants the server's rosters to be what it makes of the last known ones.
func (m *model) right() {
	m.t.Helper()
	s := m.server
	for _, user := range m.users {
		known, ok := m.rosters.Known(user)
		if !ok {
			continue
		}
		var items []roster.Item
		for _, item := range known.Items() {
			if item.JID == m.refused {
				continue
			}
			if s.prepare != nil {
				item.JID = s.prepare(item.JID)
			}
			if s.store != nil {
				item = s.store(item)
			}
			items = append(items, item)
		}
		var has []roster.Item
		for _, item := range s.has(user).Items() {
			if item.JID != m.refused {
				has = append(has, item)
			}
		}
		if got, want := roster.New(has), roster.New(items); !got.Equal(want) {
			row, _ := m.store.ServerRoster(user.String())
			m.t.Fatalf("the server has for %s %s\nwant %s\nkept %+v\n%s", user, got.XML(), want.XML(), store.ServerRoster{Version: row.Version, Residue: row.Residue, Checked: row.Checked, Writing: row.Writing}, strings.Join(m.history, "\n"))
		}
	}
}

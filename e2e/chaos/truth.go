package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Item is a contact as a client sees it (RFC 6121, section 2.1.2). Two that are
// equal look the same.
type Item struct {
	JID, Name, Subscription string
	Ask, Approved           bool
	Groups                  string // sorted, each with a line end
}

// items are a roster, by JID.
type items map[string]Item

// String is the same for equal rosters alone.
func (i items) String() string {
	var b strings.Builder
	for _, jid := range slices.Sorted(maps.Keys(i)) {
		fmt.Fprintf(&b, "%+q;", fmt.Sprint(i[jid]))
	}
	return b.String()
}

// truth is what the backend's database says, and has ever said. Its methods may
// be called by several goroutines.
//
// Whoever looks at a client later than it got something can tell by the truth
// what it may have got: a contact's name is another one with each change, and
// never comes again. A life of a contact is the time from when it was listed
// until it was taken off the list; listed again, it has another life. So a name
// tells the life that a client knows of, whatever way it came and however long
// that took, and the contact may vanish from that client only once that life is
// over.
type truth struct {
	mu       sync.Mutex
	accounts map[string]*account // by user; guarded by mu, with all that is in them
}

type account struct {
	now      items
	versions map[string]bool // rosters that there were, see items.String
	version  int
	few      time.Time       // when there were few contacts last
	revision int             // of the last change to an item
	lives    map[string]int  // of the contacts, so far
	life     map[string]int  // of each name
	items    map[string]Item // each that there ever was, by its name
}

// many is a number of contacts of which rosterd does not believe at once that all
// are gone: those that contacts.max_removed protects are 10 or more.
const many = 12

func newTruth() *truth { return &truth{accounts: map[string]*account{}} }

// add adds a user with the contacts that they have from the first on.
func (t *truth) add(user string, fill func(*account)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &account{now: items{}, versions: map[string]bool{}, lives: map[string]int{}, life: map[string]int{}, items: map[string]Item{}}
	t.accounts[user] = a
	fill(a)
	a.versioned()
}

// versioned notes the roster as it is now.
func (a *account) versioned() {
	a.version++
	if len(a.now) < many {
		a.few = time.Now()
	}
	a.versions[a.now.String()] = true
}

// put lists a contact, or changes it, to something that it never was.
func (a *account) put(user, contact string, rng *rand.Rand) {
	if _, listed := a.now[contact]; !listed {
		a.lives[contact]++
	}
	a.revision++
	local, _, _ := strings.Cut(contact, "@")
	item := Item{JID: contact, Name: fmt.Sprintf("%s of %s #%d", local, user, a.revision), Subscription: "both"}
	if rng.IntN(4) == 0 {
		item.Subscription = []string{"none", "to", "from"}[rng.IntN(3)]
		item.Ask = rng.IntN(2) == 0
		item.Approved = rng.IntN(3) == 0
	}
	var groups []string
	for _, group := range []string{"Friends", "Verona", "R&D <1>"} {
		if rng.IntN(3) == 0 {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	for _, group := range groups {
		item.Groups += group + "\n"
	}
	a.now[contact], a.items[item.Name], a.life[item.Name] = item, item, a.lives[contact]
}

// change changes a user's contacts at once, and says how in a few words.
func (t *truth) change(user string, f func(a *account) string) (what string, version int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[user]
	what = f(a)
	a.versioned()
	return what, a.version
}

// answer is what the backend answers for a user, and which version that is.
func (t *truth) answer(user string) (body []byte, contacts, version int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[user]
	if a == nil {
		return nil, 0, 0
	}
	return a.now.json(), len(a.now), a.version
}

func (i items) json() []byte {
	object := make(map[string]map[string]any, len(i))
	for jid, item := range i {
		groups := map[string]bool{}
		for group := range strings.Lines(item.Groups) {
			groups[strings.TrimSuffix(group, "\n")] = true
		}
		object[jid] = map[string]any{"name": item.Name, "subscription": item.Subscription,
			"ask": item.Ask, "approved": item.Approved, "groups": groups}
	}
	body, err := json.Marshal(object)
	if err != nil {
		panic(err) // strings and booleans: cannot be
	}
	return body
}

// wants says how a client's roster differs from the backend's, in one line that
// is empty if it does not.
func (t *truth) wants(user string, has items) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return differs(t.accounts[user].now, has)
}

// has says whether a client's roster has all that the backend's has.
func (t *truth) has(user string, roster items) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for jid, item := range t.accounts[user].now {
		if roster[jid] != item {
			return false
		}
	}
	return true
}

func differs(want, has items) string {
	var differs []string
	for jid, item := range want {
		if got, ok := has[jid]; !ok {
			differs = append(differs, fmt.Sprintf("lacks %q", item.Name))
		} else if got != item {
			differs = append(differs, fmt.Sprintf("has %q, not %q", got.Name, item.Name))
		}
	}
	for jid, item := range has {
		if _, ok := want[jid]; !ok {
			differs = append(differs, fmt.Sprintf("still has %q", item.Name))
		}
	}
	slices.Sort(differs)
	if more := len(differs) - 5; more > 0 {
		differs = append(differs[:5], fmt.Sprint("and ", more, " more"))
	}
	return strings.Join(differs, ", ")
}

// was says whether a roster was a user's at any time.
func (t *truth) was(user string, roster items) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accounts[user].versions[roster.String()]
}

// wasItem says whether an item was in a user's roster at any time.
func (t *truth) wasItem(user string, item Item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return item.Name != "" && t.accounts[user].items[item.Name] == item
}

// hasMany says whether a user has many contacts, and has had many for a while.
func (t *truth) hasMany(user string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[user]
	return len(a.now) >= many && time.Since(a.few) > time.Second
}

// listedSince says whether a contact is listed now and was so since an item of
// it that a client knows.
func (t *truth) listedSince(user string, known Item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[user]
	_, listed := a.now[known.JID]
	return listed && a.lives[known.JID] == a.life[known.Name]
}

package users

import (
	"strings"
	"testing"

	"rosterd/jid"
	"rosterd/roster"
)

func mustJID(t testing.TB, s string) jid.JID {
	t.Helper()
	j, err := jid.Parse(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return j
}

// contacts makes a roster from lines like "romeo@example.org Romeo Friends,Work".
func contacts(t testing.TB, lines ...string) *roster.Roster {
	t.Helper()
	var items []roster.Item
	for _, line := range lines {
		f := strings.Fields(line)
		item := roster.Item{JID: mustJID(t, f[0]), Subscription: roster.SubscriptionBoth}
		if len(f) > 1 {
			item.Name = f[1]
		}
		if len(f) > 2 {
			item.Groups = strings.Split(f[2], ",")
		}
		items = append(items, item)
	}
	return roster.New(items)
}

package e2e

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// view is what a client has after the answers and pushes that it has received,
// in the order of their arrival: names by JID.
type view struct {
	client harness.Client
	names  map[string]string
	read   int // stanzas
}

// update takes what has arrived since.
func (v *view) update(t *testing.T) map[string]string {
	t.Helper()
	stanzas := v.client.Stanzas()
	for _, s := range stanzas[v.read:] {
		if s.Name != "iq" || s.Payload.Space != "jabber:iq:roster" || s.Type != "result" && s.Type != "set" {
			continue
		}
		var query struct {
			Items []struct {
				JID          string `xml:"jid,attr"`
				Name         string `xml:"name,attr"`
				Subscription string `xml:"subscription,attr"`
			} `xml:"jabber:iq:roster query>item"`
		}
		if err := xml.Unmarshal([]byte(s.XML), &query); err != nil {
			t.Errorf("%v: %s", err, s.XML)
		}
		if s.Type == "result" {
			clear(v.names)
		}
		for _, it := range query.Items {
			if v.names[it.JID] = it.Name; it.Subscription == "remove" {
				delete(v.names, it.JID)
			}
		}
	}
	v.read = len(stanzas)
	return v.names
}

// However an answer, and the pushes of what has changed since, are sent close to
// each other, a client ends up with the backend's last word. On ejabberd an
// answer takes a longer way than a push.
func TestPushBehindAnswer(t *testing.T) { onServers(t, testPushBehindAnswer) }

func testPushBehindAnswer(t *testing.T, srv server) {
	const rounds = 10
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	many := make([]string, 300) // an answer that takes its time
	for i := range many {
		many[i] = fmt.Sprintf("Contact%d", i)
	}
	var work sync.WaitGroup
	for i := range 10 {
		user := fmt.Sprint("user", i)
		client := w.login(ctx, t, gosrc, user+"@example.org/home")
		work.Go(func() {
			has := &view{client: client, names: map[string]string{}}
			for round := range rounds {
				if !w.changeDuringQuery(ctx, t, has, user, fmt.Sprint("round", round), many[:i*30]) {
					return
				}
			}
		})
	}
	work.Wait()
	wantOneStream(ctx, t, w)
}

// changeDuringQuery has a client ask while a change is reported, and says
// whether he got both.
func (w *world) changeDuringQuery(ctx context.Context, t *testing.T, has *view, user, round string, many []string) bool {
	list := func(name string) harness.Contacts {
		all := contacts(many...)
		all["nurse@example.org"] = harness.Contact{Name: name}
		all[round+"@example.org"] = harness.Contact{Name: name}
		return all
	}
	w.backend.Set(user, list(round+" before"))
	if err := has.client.SendRaw(iq("get", round, "", rosterQuery)); err != nil {
		t.Error(err)
		return false
	}
	last := list(round + " after")
	w.backend.Set(user, last)
	if answer, err := w.post(ctx, user); err != nil || answer.Updated != 1 {
		t.Errorf("answer %+v, %v", answer, err)
		return false
	}
	_, err := has.client.WaitStanza(ctx, func(s harness.Stanza) bool { return s.Name == "iq" && s.ID == round && s.Type == "result" })
	if err != nil {
		t.Error(err)
		return false
	}
	want := map[string]string{}
	for jid, contact := range last {
		want[jid] = contact.Name
	}
	// What has been put right later on has been put right, too.
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for soon.Err() == nil && !maps.Equal(has.update(t), want) {
		select {
		case <-retry.C:
		case <-soon.Done():
		}
	}
	if got := has.update(t); !maps.Equal(got, want) {
		t.Errorf("%s, %s: has %d contacts, the nurse is %q", user, round, len(got), got["nurse@example.org"])
		return false
	}
	return true
}

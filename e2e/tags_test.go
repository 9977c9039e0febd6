package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// A tag of any length that rosterd writes delays nobody: neither whom it is for
// nor who asks next, though nothing else is written to the server, whose XML
// parser may wait for more (see [harness.ClientOptions]).
func TestLongTags(t *testing.T) { onBothWays(t, testLongTags) }

// atOnce bounds what is to happen at once. Where it waits for what else rosterd
// will write, it takes a minute.
const atOnce = 15 * time.Second

func testLongTags(t *testing.T, srv server) {
	long := strings.Repeat("Wherefore art thou? ", 1000)
	named := func(name string) harness.Contacts { return harness.Contacts{"romeo@example.org": {Name: name}} }
	want := func(name string) harness.Item {
		return harness.Item{JID: "romeo@example.org", Name: name, Subscription: "both"}
	}
	for name, provoke := range map[string]func(ctx context.Context, t *testing.T, w *world, juliet, romeo harness.Client){
		"a contact's name in an answer": func(ctx context.Context, t *testing.T, w *world, juliet, _ harness.Client) {
			w.backend.Set("juliet", named(long))
			wantRoster(ctx, t, juliet, want(long))
		},
		"a contact's name in a push": func(ctx context.Context, t *testing.T, w *world, juliet, _ harness.Client) {
			w.backend.Set("juliet", named("!"+long))
			w.refresh(ctx, t, "juliet")
			waitBrought(ctx, t, juliet, want("!"+long))
		},
		"an attribute in a presence": func(ctx context.Context, t *testing.T, _ *world, juliet, romeo harness.Client) {
			send(t, juliet, "<presence><show>dnd</show><x xmlns='urn:x' a='"+long+"'/></presence>")
			// What has the long tag is left out of what is relayed.
			if _, err := romeo.WaitStanza(ctx, func(s harness.Stanza) bool {
				return s.Name == "presence" && s.From == "juliet@example.org/balcony" && strings.Contains(s.XML, ">dnd<")
			}); err != nil {
				t.Fatal(err)
			}
		},
		"the ids of queries": func(ctx context.Context, t *testing.T, w *world, juliet, _ harness.Client) {
			w.backend.Set("juliet", contacts("Romeo"))
			var ids []string
			var queries strings.Builder
			for i := range 5 {
				ids = append(ids, fmt.Sprintf("%d-%s", i, strings.Repeat("i", 5000)))
				queries.WriteString(iq("get", ids[i], "", rosterQuery))
			}
			send(t, juliet, queries.String())
			for _, id := range ids {
				if answer := answerTo(ctx, t, juliet, id); answer.Type != "result" {
					t.Errorf("answer %.80s", answer.XML)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv})
			w.backend.Set("juliet", contacts("Romeo"))
			w.backend.Set("romeo", contacts("Juliet"))
			w.backend.Set("nurse", contacts("Juliet"))
			w.inStep(ctx, t, "juliet", "romeo", "nurse")
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			wantRoster(ctx, t, juliet, item("Romeo"))
			romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
			wantRoster(ctx, t, romeo, item("Juliet"))
			waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "available")
			nurse := w.login(ctx, t, slixmpp, "nurse@example.org/kitchen")
			wantRoster(ctx, t, nurse, item("Juliet"))

			soon, cancel := context.WithTimeout(ctx, atOnce)
			defer cancel()
			provoke(soon, t, w, juliet, romeo)
			next, cancel := context.WithTimeout(ctx, atOnce)
			defer cancel()
			wantRoster(next, t, nurse, item("Juliet"))
			wantOneStream(ctx, t, w)
		})
	}
}

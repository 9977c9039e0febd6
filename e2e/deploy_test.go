package e2e

import (
	"os"
	"testing"

	"rosterd/e2e/harness"
)

// What an administrator installs works: deploy/prosody.cfg.lua as it is.
func TestDeployedFiles(t *testing.T) {
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	snippet, err := os.ReadFile("../deploy/prosody.cfg.lua")
	if err != nil {
		t.Fatal(err)
	}
	prosody, err := harness.StartProsody(ctx, harness.ProsodyOptions{
		Host:      "unused.example", // the harness wants one; the snippet brings example.org
		GlobalLua: string(snippet),
		Users:     map[string]string{"juliet@example.org": password},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prosody.Close)
	backend, err := harness.StartBackend()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Romeo"}})
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	rosterd, err := harness.StartRosterd(harness.RosterdOptions{
		Binary: file, Prosody: prosody, ContactsURL: backend.URL(),
		Settings: map[string]any{"xmpp.domain": "contacts.example.org", "xmpp.secret": "change-me", "xmpp.hosts": []string{"example.org"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rosterd.Close)
	if err := rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := harness.NewGosrcClient(harness.ClientOptions{Address: prosody.ClientAddress(), JID: "juliet@example.org/balcony", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Login(ctx); err != nil {
		t.Fatal(err)
	}
	if items, err := client.Roster(ctx); err != nil || len(items) != 1 {
		t.Fatalf("roster %+v, %v", items, err)
	}
	backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Montague"}})
	if answer, err := rosterd.PostRefresh(ctx, `["juliet"]`); err != nil || answer.Updated != 1 {
		t.Fatalf("answer %+v, %v", answer, err)
	}
	if item, err := client.WaitPush(ctx); err != nil || item.Name != "Montague" {
		t.Fatalf("push %+v, %v", item, err)
	}
}

package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"rosterd/internal/contract"
)

// What an instance that stands by says is as openapi.yaml says, also while it does not reach
// the database. Neither /status nor the page has the password of that.
func TestStatusStandingBy(t *testing.T) {
	file := configured(t, `
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
refresh: {listen: "127.0.0.1:0", advertise: "http://127.0.0.1:1"}
metrics: {listen: "127.0.0.1:0"}
state: {url: "postgres://rosterd:hunter3@127.0.0.1:1/rosterd"}
`)
	a := assembled(t, file, slog.DiscardHandler)
	defer a.stop()
	text, err := json.Marshal(a.status())
	if err != nil {
		t.Fatal(err)
	}
	contract.Load(t, ".").CheckSchema(t, "Status", text)
	page, err := json.Marshal(a.overview())
	if err != nil || strings.Contains(string(text)+string(page), "hunter") || !strings.Contains(string(page), "standby") {
		t.Errorf("%s, %s, %v", text, page, err)
	}
}

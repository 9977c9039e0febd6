package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"rosterd/e2e/harness"
	"rosterd/internal/contract"
)

// What rosterd sends and answers is as docs/openapi.yaml says.
func TestContract(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	c := contract.Load(t, "..")
	asked := make(chan []byte, 100)
	bulk := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- body
		w.WriteHeader(http.StatusMethodNotAllowed)
	}))
	t.Cleanup(bulk.Close)
	w := editing(t, prosody, map[string]any{"contacts.bulk_url": bulk.URL})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Juliet"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "romeo@example.org/street"), item("Juliet"))

	refresh := func(method, path, body string, want int, prefer ...string) {
		t.Helper()
		call := w.rosterd.Refresh(path)
		call.Header["Prefer"] = prefer
		call.Method, call.Body = method, []byte(body)
		answer, err := call.Do(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != want {
			t.Errorf("%s %s %s: %d, %s", method, path, body, answer.Status, answer.Body)
		}
		c.CheckSchema(t, "Answer", answer.Body)
	}
	refresh(http.MethodPost, refreshPath, `["juliet", "romeo", "nobody", 7]`, http.StatusOK)
	c.CheckSchema(t, "Users", <-asked)
	refresh(http.MethodPost, refreshPath, `["juliet", "nurse@example.net", null]`, http.StatusOK)
	refresh(http.MethodGet, refreshPath+"/juliet", "", http.StatusOK)
	refresh(http.MethodPost, refreshPath, `["juliet", "mercutio"]`, http.StatusAccepted, "respond-async")
	refresh(http.MethodPost, refreshPath+"?all=example.org", ``, http.StatusAccepted)
	refresh(http.MethodPost, refreshPath, `{}`, http.StatusBadRequest)
	refresh(http.MethodPost, "/", `[]`, http.StatusNotFound)
	refresh(http.MethodGet, refreshPath, "", http.StatusMethodNotAllowed)
	w.backend.SetFault("juliet", harness.Fault{Status: http.StatusNotFound})
	refresh(http.MethodPost, refreshPath, `["juliet"]`, http.StatusInternalServerError)
	w.backend.ClearFault("juliet")

	for i, set := range []string{"<item jid='nurse@example.org' name='N'><group>G</group></item>", "<item jid='nurse@example.org' subscription='remove'/>"} {
		id := string(rune('a' + i))
		wantDone(t, request(ctx, t, juliet, id, edit(id, set)))
	}
	for _, r := range w.backend.Requests(harness.Edits) {
		c.CheckSchema(t, "Edit", []byte(r.Body))
	}

	status, err := w.rosterd.Metrics("/status").Get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.CheckSchema(t, "Status", status.Body)
	var said struct{ Hosts []json.RawMessage }
	if err := json.Unmarshal(status.Body, &said); err != nil || len(said.Hosts) != 1 {
		t.Errorf("%s: %v", status.Body, err)
	}
}

package docs

import (
	"encoding/json"
	"os"
	"testing"

	"rosterd/internal/contract"
)

// Each example of openapi.yaml is as the schema beside it says, and so is each contacts
// answer of the documents. What contacts.schema.json does not allow, it does not.
func TestContract(t *testing.T) {
	c := contract.Load(t, "..")
	if n := c.CheckExamples(t); n < 15 {
		t.Errorf("%d examples", n)
	}
	contacts := "/paths/~1contacts~1%7Buser%7D/get/responses/200/content/application~1json/schema"
	c.Check(t, contacts, []byte(`[]`))
	c.Check(t, contacts, []byte(`{"romeo@example.org": {"name": null, "groups": null, "more": 1}}`))
	for _, bad := range []string{`null`, `"x"`, `{"romeo@example.org/orchard": {}}`, `[{"name": "Romeo"}]`,
		`{"romeo@example.org": {"subscription": "friend"}}`, `{"romeo@example.org": {"groups": [1]}}`} {
		if !fails(t, func(t testing.TB) { c.Check(t, contacts, []byte(bad)) }) {
			t.Errorf("%s is let through", bad)
		}
	}
	// The schema alone is one, too, for those who take it without the rest.
	text, err := os.ReadFile("contacts.schema.json")
	if err != nil || !json.Valid(text) {
		t.Error(err)
	}
}

// recorder notes that a test would have failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func fails(t *testing.T, check func(testing.TB)) bool {
	r := &recorder{TB: t}
	check(r)
	return r.failed
}

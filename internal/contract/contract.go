// Package contract holds JSON to docs/openapi.yaml, in tests.
package contract

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Contract is docs/openapi.yaml.
type Contract struct {
	Document map[string]any
	compiler *jsonschema.Compiler
}

const document = "file:///docs/openapi.yaml"

// Load reads it. root is the folder of the project.
func Load(t testing.TB, root string) *Contract {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var fromYAML any
	if err := yaml.Unmarshal(read("openapi.yaml"), &fromYAML); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	c := &Contract{compiler: jsonschema.NewCompiler()}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.Document, _ = decode(t, text).(map[string]any)
	for url, resource := range map[string]any{document: c.Document, "file:///docs/contacts.schema.json": decode(t, read("contacts.schema.json"))} {
		if err := c.compiler.AddResource(url, resource); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func decode(t testing.TB, text []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}

// Check wants a JSON text to be as the schema at a JSON pointer into the document says.
func (c *Contract) Check(t testing.TB, pointer string, text []byte) {
	t.Helper()
	c.check(t, pointer, decode(t, text))
}

// CheckSchema does so with a schema of components.
func (c *Contract) CheckSchema(t testing.TB, name string, text []byte) {
	t.Helper()
	c.Check(t, "/components/schemas/"+name, text)
}

func (c *Contract) check(t testing.TB, pointer string, value any) {
	t.Helper()
	schema, err := c.compiler.Compile(document + "#" + pointer)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s: %v", pointer, err)
	}
}

// CheckExamples checks all examples that stand beside a schema, and returns how many these
// are.
func (c *Contract) CheckExamples(t testing.TB) int { return c.examples(t, "", c.Document) }

func (c *Contract) examples(t testing.TB, pointer string, value any) (n int) {
	t.Helper()
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			n += c.examples(t, "", element) // no schema with examples is in an array
		}
	case map[string]any:
		examples, _ := value["examples"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(examples)) {
			example, _ := examples[name].(map[string]any)
			c.check(t, pointer+"/schema", example["value"])
			n++
		}
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if name != "examples" {
				n += c.examples(t, pointer+"/"+escape(name), value[name])
			}
		}
	}
	return n
}

// escape is a name as a part of a JSON pointer in a URL (RFC 6901, sections 3 and 6).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name)
}

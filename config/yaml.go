package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document reads YAML, and JSON, which is YAML, too. It refuses what viper would take
// silently: an unknown key without a value, two keys that differ in case alone, a
// second document, anchors and tags. The last two happen by accident to a secret
// without quotes: "secret: !a b" would be "b".
type document struct {
	problems
	warnings []string // of secrets that a '#' may have cut off
}

// read returns the mapping in b, the value of key, which is for t; nil if b is empty.
func (d *document) read(b []byte, key string, t reflect.Type) (m map[string]any, err error) {
	stream := yaml.NewDecoder(bytes.NewReader(b))
	var root, second yaml.Node
	if err = stream.Decode(&root); err == nil {
		err = stream.Decode(&second)
	}
	switch {
	case err == nil:
		return nil, errors.New("wants one YAML document, has a second one")
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err)
	case root.IsZero():
		return nil, nil
	}
	if d.check(key, root.Content[0], t); d.first != nil {
		return nil, d.first
	}
	if err := root.Decode(&m); err != nil {
		return nil, syntaxError(err)
	}
	return m, nil
}

// check looks at the value of a key, and at the names below it. A value of the wrong
// kind is left to decodeHook, unless it should be a section.
func (d *document) check(key string, value *yaml.Node, t reflect.Type) {
	d.checkPlain(key, value)
	switch kind := t.Kind(); {
	case value.Kind == yaml.MappingNode && (kind == reflect.Struct || kind == reflect.Map):
		d.checkNames(key, value.Content, t)
	case value.Kind == yaml.SequenceNode && kind == reflect.Slice:
		for _, element := range value.Content {
			d.check(key, element, t.Elem())
		}
	case kind == reflect.Struct:
		d.want(value.ShortTag() == "!!null", cmp.Or(key, "the file"), "a mapping of keys to values", "")
	case (t == reflect.TypeFor[Secret]() || t == reflect.TypeFor[[]Secret]()) && value.Style == 0 && value.LineComment != "":
		d.warnings = append(d.warnings, fmt.Sprintf("%s: what stands behind the '#' in line %d is no part of it: "+
			"put the secret in quotes if it is meant to be", key, value.Line))
	}
}

// checkNames looks at the names and values, in turn, of a mapping for t: a section,
// which is a struct, or a map with free names. It makes the names lower case, and
// prepares those that are domains.
func (d *document) checkNames(section string, content []*yaml.Node, t reflect.Type) {
	seen := make(map[string]bool)
	for i := 0; i+1 < len(content); i += 2 {
		name, value := content[i], content[i+1]
		lower, shown := strings.ToLower(name.Value), join(section, showName(name.Value))
		key, field := shown, t
		var names []string // that there are
		if t.Kind() == reflect.Struct {
			field, names = fieldIn(t, lower)
			key = join(section, lower)
		} else if field = t.Elem(); field.Kind() == reflect.Struct {
			lower, shown = prepared(lower), join(section, showDomain(lower))
			key = shown
		}
		null, warnings := value.ShortTag() == "!!null", d.warnings
		if null {
			value.LineComment = name.LineComment // where the parser keeps it
		}
		d.checkPlain(section, name)
		switch {
		case name.ShortTag() != "!!str":
			d.add(problem(shown, "a key that is a text, in quotes if it looks like something else", ""))
		case names != nil && strings.Contains(lower, "."):
			d.add(&keyError{shown, "a dotted name is no key, wants a mapping inside a mapping"})
		case field == nil:
			d.add(&keyError{shown, "unknown key, there are " + strings.Join(names, ", ")})
		case seen[lower]:
			d.add(&keyError{shown, "stands twice"})
		case null && names == nil && field.Kind() == reflect.String: // {X} in place of X may be a whole secret
			d.add(problem(section, "a text behind each name", ""))
		default:
			d.check(key, value, field)
		}
		seen[lower], name.Value = true, lower
		if isSet(key) { // another value counts
			d.warnings = warnings
		}
	}
}

func (d *document) checkPlain(key string, n *yaml.Node) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.ShortTag() == "!!merge" {
		d.add(&keyError{cmp.Or(key, "the file"), "anchors and aliases cannot be used: put a value with '&' or '*' in quotes"})
	} else if n.Style&yaml.TaggedStyle != 0 {
		d.add(&keyError{cmp.Or(key, "the file"), "tags cannot be used: put a value with '!' in quotes"})
	}
}

var yamlLine = regexp.MustCompile(`line \d+`)

// syntaxError tells the line of an error of the parser, which may be that before the
// mistake. It does not tell the parser's text, which may quote the file.
func syntaxError(err error) error {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return errors.New("is not valid YAML, near " + line)
	}
	return errors.New("is not valid YAML: put values with characters such as & * ! : in quotes")
}

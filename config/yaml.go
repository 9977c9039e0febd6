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
	if err := d.check(key, root.Content[0], t); err != nil {
		return nil, err
	}
	if err := root.Decode(&m); err != nil {
		return nil, syntaxError(err)
	}
	return m, nil
}

// check looks at the value of a key, and at the names below it. A value of the wrong
// kind is left to decodeHook, unless it should be a section.
func (d *document) check(key string, value *yaml.Node, t reflect.Type) error {
	if err := checkPlain(key, value); err != nil {
		return err
	}
	switch kind := t.Kind(); {
	case value.Kind == yaml.MappingNode && (kind == reflect.Struct || kind == reflect.Map):
		return d.checkNames(key, value.Content, t)
	case value.Kind == yaml.SequenceNode && kind == reflect.Slice:
		for _, element := range value.Content {
			if err := d.check(key, element, t.Elem()); err != nil {
				return err
			}
		}
	case kind == reflect.Struct && value.ShortTag() != "!!null":
		return problem(cmp.Or(key, "the file"), "a mapping of keys to values", "")
	case (t == reflect.TypeFor[Secret]() || t == reflect.TypeFor[[]Secret]()) && value.Style == 0 && value.LineComment != "":
		d.warnings = append(d.warnings, fmt.Sprintf("%s: what stands behind the '#' in line %d is no part of it: put the secret in quotes if it is meant to be", key, value.Line))
	}
	return nil
}

// checkNames looks at the names and values, in turn, of a mapping for t: a section,
// which is a struct, or a map with free names. It makes the names lower case, and
// prepares those that are domains.
func (d *document) checkNames(section string, content []*yaml.Node, t reflect.Type) error {
	seen := make(map[string]bool)
	for i := 0; i+1 < len(content); i += 2 {
		name, value := content[i], content[i+1]
		if err := checkPlain(section, name); err != nil {
			return err
		}
		lower, shown := strings.ToLower(name.Value), join(section, showName(name.Value))
		key := shown
		var field reflect.Type
		var names []string // that there are
		if t.Kind() == reflect.Struct {
			field, names = fieldIn(t, lower)
			key = join(section, lower)
		} else if field = t.Elem(); field.Kind() == reflect.Struct {
			lower, shown = prepared(lower), join(section, showDomain(lower))
			key = shown
		}
		null := value.ShortTag() == "!!null"
		switch {
		case name.ShortTag() != "!!str":
			return problem(shown, "a key that is a text, in quotes if it looks like something else", "")
		case names != nil && strings.Contains(lower, "."):
			return &keyError{shown, "a dotted name is no key, wants a mapping inside a mapping"}
		case field == nil:
			return &keyError{shown, "unknown key, there are " + strings.Join(names, ", ")}
		case seen[lower]:
			return &keyError{shown, "stands twice"}
		case null && names == nil && field.Kind() == reflect.String: // {X} in place of X may be a whole secret
			return problem(section, "a text behind each name", "")
		case null:
			value.LineComment = name.LineComment // where the parser keeps it
		}
		seen[lower], name.Value = true, lower
		before := d.warnings
		if err := d.check(key, value, field); err != nil {
			return err
		}
		if isSet(key) { // another value counts
			d.warnings = before
		}
	}
	return nil
}

func checkPlain(key string, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.ShortTag() == "!!merge" {
		return &keyError{cmp.Or(key, "the file"), "anchors and aliases cannot be used: put a value with '&' or '*' in quotes"}
	} else if n.Style&yaml.TaggedStyle != 0 {
		return &keyError{cmp.Or(key, "the file"), "tags cannot be used: put a value with '!' in quotes"}
	}
	return nil
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

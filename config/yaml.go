package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// decoder reads YAML for viper. It differs from viper's own in that it refuses
// what that would take silently (unknown keys, a key that stands twice, a
// second document, aliases, tags), names the line, and never repeats a value.
type decoder struct {
	keys     []key
	warnings *[]string
}

// Decoder is d, whatever the format: there is one.
func (d decoder) Decoder(string) (viper.Decoder, error) { return d, nil }

// Decode puts what b contains into v.
func (d decoder) Decode(b []byte, v map[string]any) error {
	stream := yaml.NewDecoder(bytes.NewReader(b))
	var document, second yaml.Node
	switch err := stream.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil // empty, or comments alone
	case err != nil:
		return syntaxError(b, err)
	}
	switch err := stream.Decode(&second); {
	case err == nil:
		return atLine(second.Line, "a second YAML document: wants one")
	case !errors.Is(err, io.EOF):
		return syntaxError(b, err)
	}
	if len(document.Content) != 1 {
		return nil
	}
	root := document.Content[0]
	if err := checkPlain(root); err != nil {
		return err
	}
	if root.ShortTag() == "!!null" {
		return nil
	}
	if err := d.check(root, "", ""); err != nil {
		return err
	}
	if err := root.Decode(&v); err != nil {
		return errors.New("is not YAML that can be used") // checkPlain should leave nothing to happen here
	}
	return nil
}

// check reports the first key in n that is not among the keys. path is the
// dotted path of n, and shown is that path for an error, in which a domain
// stands for anyHost.
func (d decoder) check(n *yaml.Node, path, shown string) error {
	if n.Kind != yaml.MappingNode {
		if shown == "" {
			shown = "the file"
		}
		return atLine(n.Line, shown+": wants a mapping of keys to values")
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full, where := join(path, strings.ToLower(name.Value)), join(shown, showName(name.Value))
		if path == hostsKey {
			where = join(shown, showDomain(name.Value))
		}
		if seen[full] {
			return atLine(name.Line, where+": stands twice")
		}
		seen[full] = true
		switch {
		case path == headersKey:
			// Any name will do here; Validate looks at it.
			d.warn(headersKey, where, name, value)
		case path == hostsKey:
			// Here, too; the key's set makes a domain of it. An entry may be
			// empty, or all comments.
			if value.ShortTag() == "!!null" {
				continue
			}
			if err := d.check(value, join(path, anyHost), where); err != nil {
				return err
			}
		case strings.Contains(name.Value, "."):
			return atLine(name.Line, where+": a dotted name is no key, wants a mapping inside a mapping")
		case (full == headersKey || full == hostsKey) && value.Kind == yaml.MappingNode:
			if err := d.check(value, full, where); err != nil {
				return err
			}
		case isHostKey(full), slices.ContainsFunc(d.keys, func(k key) bool { return k.name == full }):
			// The key's set looks at the value.
			d.warn(full, full, name, value)
		case len(d.below(full)) > 0:
			if value.ShortTag() == "!!null" {
				continue // a section that is empty, or all comments
			}
			if err := d.check(value, full, where); err != nil {
				return err
			}
		default:
			return atLine(name.Line, where+": unknown key, there are "+strings.Join(d.below(path), ", "))
		}
	}
	return nil
}

// warn warns of a secret that may have been cut off, unless the environment has
// another one.
func (d decoder) warn(name, where string, n, value *yaml.Node) {
	if slices.ContainsFunc(d.keys, func(k key) bool { return k.name == name && k.isSecret() }) && !isSet(name) {
		*d.warnings = append(*d.warnings, cut(where, n, value)...)
	}
}

// below are the names of the keys and sections directly under path.
func (d decoder) below(path string) []string {
	if path == hostsKey+"."+anyHost {
		return hostKeys
	}
	var names []string
	for _, k := range d.keys {
		rest := k.name
		if path != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(k.name, path+"."); !ok {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// checkPlain refuses what YAML can do and a configuration does not need. Most
// of it happens by accident, to a secret without quotes: "secret: &a b" would
// be "b", and "secret: !a b", too.
func checkPlain(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.ShortTag() == "!!merge" {
		return atLine(n.Line, "anchors and aliases cannot be used: put a value with '&' or '*' in quotes")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return atLine(n.Line, "tags cannot be used: put a value with '!' in quotes")
	}
	for i, child := range n.Content {
		if err := checkPlain(child); err != nil {
			return err
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.ShortTag() != "!!str" {
			return atLine(child.Line, "wants a key that is a text, in quotes if it looks like something else")
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// lineError is an error about a line of the file, whose name Load adds.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return fmt.Sprintf("%s (line %d)", e.text, e.line) }

func atLine(line int, text string) error { return &lineError{line, text} }

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// yamlProblems are the texts of the parser that are passed on. Others are not,
// as a later version of it may put a piece of the file into one.
var yamlProblems = []string{
	"block sequence entries are not allowed in this context",
	"control characters are not allowed",
	"could not find expected ':'",
	"did not find expected alphabetic or numeric character",
	"found a tab character that violates indentation",
	"found character that cannot start any token",
	"found unexpected document indicator",
	"found unexpected end of stream",
	"found unknown escape character",
	"mapping keys are not allowed in this context",
	"mapping values are not allowed in this context",
}

// yamlBlockProblems are those, of which the parser names the line before: that
// of the mistake, or that where the block with the mistake begins.
var yamlBlockProblems = []string{
	"did not find expected ',' or ']'",
	"did not find expected ',' or '}'",
	"did not find expected '-' indicator",
	"did not find expected key",
	"did not find expected node content",
}

// syntaxError is err, an error of the YAML parser about b, without any text
// that is from b.
func syntaxError(b []byte, err error) error {
	const text = "is not valid YAML"
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return atLine(1, text)
	}
	if a := yamlAnchor.FindStringSubmatch(m[2]); a != nil {
		before, _, _ := bytes.Cut(b, []byte("*"+a[1]))
		return atLine(1+bytes.Count(before, []byte("\n")), text+": an alias without anchor, put a value with '*' in quotes")
	}
	line, err := strconv.Atoi(m[1])
	noLine := err != nil // the parser counts from 0, and does not name that
	switch {
	case slices.Contains(yamlBlockProblems, m[2]):
		return atLine(line+1, text+": "+m[2]+", here or in what begins here")
	case noLine:
		line = 1
	}
	if !slices.Contains(yamlProblems, m[2]) {
		return atLine(line, text)
	}
	return atLine(line, text+": "+m[2])
}

package config

import (
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// isSecret reports whether a key's value is one or more secrets.
func (k key) isSecret() bool { return k.secrets() != nil }

// secrets are the values of a key, by their names; nil if it is none of secrets.
func (k key) secrets() map[string][]Secret {
	switch field := k.field.(type) {
	case *Secret:
		return map[string][]Secret{k.name: {*field}}
	case *[]Secret:
		return map[string][]Secret{k.name: *field}
	case *map[string]Secret:
		named := make(map[string][]Secret, len(*field))
		for n, s := range *field {
			named[k.name+"."+showName(n)] = []Secret{s}
		}
		return named
	}
	return nil
}

// spaced are warnings of secrets that begin or end in what nobody sees. It is
// seldom meant; where it cannot be, Validate refuses it.
func spaced(keys []key) (warnings []string) {
	for _, k := range keys {
		named := k.secrets()
		for _, name := range sortedKeys(named) {
			for _, s := range named[name] {
				if strings.TrimFunc(s.Reveal(), isInvisible) != s.Reveal() {
					warnings = append(warnings, name+": begins or ends in white space, which counts")
				}
			}
		}
	}
	return warnings
}

// isInvisible reports whether c is white space, or the mark with which some editors
// begin a file.
func isInvisible(c rune) bool { return unicode.IsSpace(c) || c == '\uFEFF' }

// cut warns of a '#' in the line of a secret without quotes: what follows it is a
// comment to YAML. A comment behind no value is kept with the name.
func cut(where string, name, value *yaml.Node) (warnings []string) {
	switch {
	case value.Kind == yaml.SequenceNode:
		for _, item := range value.Content {
			warnings = append(warnings, cut(where, item, item)...)
		}
	case value.Kind == yaml.ScalarNode && value.Style == 0 && (value.LineComment != "" || value.ShortTag() == "!!null" && name.LineComment != ""):
		warnings = append(warnings, fmt.Sprintf("%s: what stands behind the '#' in line %d is no part of it: put the secret in quotes if it is meant to be",
			where, value.Line))
	}
	return warnings
}

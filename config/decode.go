package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"go.yaml.in/yaml/v3"
)

// parse returns the mapping in b, which is YAML, with the names of [Config]; nil if b
// is empty.
func parse(b []byte) (map[string]any, error) {
	stream := yaml.NewDecoder(bytes.NewReader(b))
	var root, second yaml.Node
	err := stream.Decode(&root)
	if err == nil {
		err = stream.Decode(&second)
	}
	switch line := marked(&root); {
	case err == nil:
		return nil, errors.New("wants one YAML document, has a second one")
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err)
	case line != 0:
		return nil, fmt.Errorf("anchors, aliases and tags cannot be used: put a value with '&', '*' or '!' in quotes, near line %d", line)
	case root.IsZero():
		return nil, nil
	}
	var value any
	if err := root.Decode(&value); err != nil {
		return nil, syntaxError(err)
	}
	value, err = checkNames("", value, reflect.TypeFor[Config]())
	m, _ := value.(map[string]any)
	return m, err
}

// marked is the line of an anchor, an alias or a tag; 0 if n has none. A secret
// without quotes would become empty by it: "token: !a" is "".
func marked(n *yaml.Node) (line int) {
	if n.Anchor != "" || n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return n.Line
	}
	for _, part := range n.Content {
		line = cmp.Or(line, marked(part))
	}
	return line
}

var yamlLine = regexp.MustCompile(`line \d+`)

// syntaxError tells the line of an error of the parser, which may be that before the
// mistake, and not its text, which may quote the file.
func syntaxError(err error) error {
	line := yamlLine.FindString(err.Error())
	if line != "" {
		line = ", near " + line
	}
	return errors.New("is not valid YAML" + line + ": put values with characters such as & * ! : in quotes")
}

// checkNames returns the value of a key, which is for t, with all names below it in
// lower case, and domains prepared. It refuses what viper would take silently: an
// unknown name, a secret without a value, one of two names that differ in case.
func checkNames(key string, value any, t reflect.Type) (any, error) {
	m, ok := value.(map[string]any)
	isSection := t.Kind() == reflect.Struct
	if !ok && isSection && value != nil {
		return nil, problem(cmp.Or(key, "the file"), "a mapping of keys to values", "")
	} else if !ok || !isSection && t.Kind() != reflect.Map {
		return value, nil // decodeHook knows what it wants
	}
	result := make(map[string]any, len(m))
	for _, name := range sortedKeys(m) {
		lower, field := strings.ToLower(name), t
		at := join(key, showName(lower))
		if isSection {
			var names []string
			if field, names = fieldIn(t, lower); field == nil {
				return nil, &keyError{at, "unknown key, there are " + strings.Join(names, ", ")}
			}
		} else if field = t.Elem(); field.Kind() == reflect.Struct {
			lower = prepared(lower)
		}
		if _, twice := result[lower]; twice {
			return nil, &keyError{at, "stands twice"}
		}
		if m[name] == nil && field == reflect.TypeFor[Secret]() && !isSet(at) {
			if !isSection {
				at = key // {X} in place of X: the name may be a secret
			}
			return nil, problem(at, "a text, in quotes if it begins with '#', or \"\"", "nothing")
		}
		checked, err := checkNames(at, m[name], field)
		if err != nil {
			return nil, err
		}
		result[lower] = checked
	}
	return result, nil
}

// decodeHook makes the value of a field from that in the file, as YAML has it, or in
// the environment, which is text. Both spell everything in the same ways. The errors
// leave the key to decodeError.
func decodeHook(from, to reflect.Value) (any, error) {
	value := from.Interface()
	text := fmt.Sprint(value) // of a number or a boolean, too
	_, ok := value.(string)
	wants, got := "", show(value)
	switch to.Interface().(type) {
	case string:
		wants = "a text"
	case Secret: // a number may not be what was written: 0123 is 83
		wants, got = "a text, in quotes if it looks like something else", ""
	case bool: // as YAML 1.2 has them: no yes and no on
		isTrue := slices.Contains([]string{"true", "True", "TRUE"}, text)
		value, ok, wants = isTrue, isTrue || slices.Contains([]string{"false", "False", "FALSE"}, text), "true or false"
	case int, int64:
		_, isFloat := value.(float64) // 1e3
		n, err := strconv.ParseInt(text, 10, 64)
		value, ok, wants = n, err == nil && !isFloat && !to.OverflowInt(n), "a whole number"
	case float64:
		f, err := strconv.ParseFloat(text, 64)
		value, ok, wants = f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0), "a number"
	case Patience:
		d, err := time.ParseDuration(text)
		if text == "never" {
			d, err = time.Duration(Never), nil
		}
		value, ok, wants = Patience(d), err == nil, "a time with its unit, such as 5s, or never"
	case time.Duration:
		d, err := time.ParseDuration(text)
		value, ok, wants = d, err == nil, "a time with its unit, such as 5s"
	case []string:
		value, ok = list(value)
		wants = "a list of domains"
	case []Secret:
		value, ok = list(value)
		wants, got = "a list of texts", ""
	case map[string]Secret:
		return mapping(value, headersKey, to.Type(), "header names to texts")
	case map[string]ContactsHost:
		return mapping(value, hostsKey, to.Type(), "domains to mappings with url, bulk_url and edit_url")
	default:
		return value, nil
	}
	if !ok {
		return nil, problem("", wants, got)
	}
	return value, nil
}

// list accepts a list, or the same with commas in one text.
func list(value any) (any, bool) {
	text, ok := value.(string)
	if !ok {
		list, ok := value.([]any)
		return list, ok
	}
	list := []string{}
	if strings.TrimSpace(text) != "" {
		for part := range strings.SplitSeq(text, ",") {
			list = append(list, strings.TrimSpace(part))
		}
	}
	return list, true
}

// mapping accepts a mapping, or the same as a JSON object in one text.
func mapping(value any, key string, t reflect.Type, wants string) (any, error) {
	m, ok := value.(map[string]any)
	if text, isText := value.(string); isText {
		ok = json.Unmarshal([]byte(text), &m) == nil && m != nil
	}
	if !ok {
		return nil, problem("", "a mapping (in the environment: a JSON object) of "+wants, "")
	}
	return checkNames(key, m, t)
}

// element matches an element of a list or mapping, as mapstructure names it:
// refresh.tokens[1], contacts.hosts[example.org].url.
var element = regexp.MustCompile(`\[.*\]`)

// decodeError is the first error of decodeHook, with its key. mapstructure's own texts
// are not passed on: they may have names of the file in them.
func decodeError(err error) error {
	var at *mapstructure.DecodeError
	var e *keyError
	if !errors.As(err, &at) || !errors.As(at.Unwrap(), &e) {
		return errors.New("the configuration cannot be used")
	}
	if e.key == "" { // checkNames knows it
		e.key = element.ReplaceAllStringFunc(at.Name(), func(name string) string { return "." + showName(name[1:len(name)-1]) })
	}
	return e
}

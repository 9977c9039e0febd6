package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
)

// decodeHook makes the value of a field from that in the file, as YAML has it, or in
// the environment, which is text. Both spell everything in the same ways. The errors
// leave the key to decodeError.
func decodeHook(from, to reflect.Value) (any, error) {
	value := from.Interface()
	text := fmt.Sprint(value) // of a number or a boolean, too
	_, ok := value.(string)
	wants, got := "", showAny(value)
	switch to.Interface().(type) {
	case string:
		wants = "a text"
	case Secret: // a number may not be what was written: 0123 is 83
		wants, got = "a text, in quotes if it looks like something else", ""
	case HostPort: // a port alone is a number
		_, isNumber := value.(int)
		value, ok, wants = text, ok || isNumber, "host:port, in quotes if it begins with '['"
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
	case time.Duration:
		d, err := time.ParseDuration(text)
		if strings.Trim(text, "0123456789") != "" {
			text = "5"
		}
		value, ok, wants = d, err == nil, "a time with its unit, such as "+text+"s"
	case []string:
		value, ok = list(value)
		wants = "a list of domains"
	case []Secret:
		value, ok = list(value)
		wants, got = "a list of texts", ""
	case map[string]Secret:
		return mapping(value, headersKey, to.Type(), "header names to texts")
	case map[string]ContactsHost:
		return mapping(value, hostsKey, to.Type(), "domains to mappings with url and bulk_url")
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
	if m, ok := value.(map[string]any); ok {
		return m, nil
	}
	text, _ := value.(string)
	if json.Valid([]byte(text)) && strings.HasPrefix(strings.TrimSpace(text), "{") {
		return new(document).read([]byte(text), key, t)
	}
	return nil, problem("", "a mapping (in the environment: a JSON object) of "+wants, "")
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
	if e.key == "" { // which a JSON object knows
		e.key = element.ReplaceAllStringFunc(at.Name(), func(name string) string {
			if name = name[1 : len(name)-1]; strings.Trim(name, "0123456789") == "" {
				return "" // of a list
			}
			return "." + showDomain(name)
		})
	}
	return e
}

package config

import (
	"errors"
	"math"
	"strconv"
	"time"
)

func duration(field *time.Duration) func(string, any) error {
	return func(name string, v any) error {
		if v == 0 {
			v = "0" // which needs no unit
		}
		s, isText := v.(string)
		d, err := time.ParseDuration(s)
		if !isText || err != nil {
			wants := "a time with its unit, such as 5s"
			if n, ok := integer(v); ok && n > 0 {
				wants = "a time with its unit, such as " + strconv.FormatInt(n, 10) + "s"
			}
			return problem(name, wants, showAny(v))
		}
		*field = d
		return nil
	}
}

func number[T int | int64](field *T) func(string, any) error {
	return func(name string, v any) error {
		n, ok := integer(v)
		if !ok || int64(T(n)) != n {
			return problem(name, "a whole number", showAny(v))
		}
		*field = T(n)
		return nil
	}
}

// fraction accepts every number that is one.
func fraction(field *float64) func(string, any) error {
	return func(name string, v any) error {
		var f float64
		err := errNoNumber
		switch v := v.(type) {
		case int:
			f, err = float64(v), nil
		case float64:
			f, err = v, nil
		case string:
			f, err = strconv.ParseFloat(v, 64)
		}
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return problem(name, "a number", showAny(v))
		}
		*field = f
		return nil
	}
}

var errNoNumber = errors.New("no number")

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

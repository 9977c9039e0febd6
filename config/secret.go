package config

import (
	"fmt"
	"io"
)

// redacted is what stands in the place of every secret.
const redacted = "(secret)"

// Secret is a text that must not be seen: fmt, slog and encoding/json print
// "(secret)" for it, the empty one included. Only [Secret.Reveal] tells it.
type Secret string

// Reveal is the text itself, for the place that sends or compares it.
func (s Secret) Reveal() string { return string(s) }

// Format writes "(secret)" for every verb, also for %x and %d.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "(secret)".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

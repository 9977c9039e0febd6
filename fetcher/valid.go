package fetcher

// maxDepth is how deep arrays and objects may be in one another: as deep as
// encoding/json takes them.
const maxDepth = 10_000

// valid reports whether s is one value of JSON (RFC 8259), as [json.Valid] does,
// which takes four times as long: a call for each byte.
func valid(s string) bool {
	i := skipValue(s, 0, 0)
	return i >= 0 && skipSpace(s, i) == len(s)
}

// skipValue is where the value ends that begins at s[i] or behind space there;
// -1 if there is none, or one too deep.
func skipValue(s string, i, depth int) int {
	if i = skipSpace(s, i); i == len(s) {
		return -1
	}
	switch c := s[i]; c {
	case '"':
		return skipString(s, i)
	case '{', '[':
		if depth == maxDepth {
			return -1
		}
		if c == '{' {
			return skipMembers(s, i+1, depth+1, nil)
		}
		return skipElements(s, i+1, depth+1)
	case 't':
		return skipWord(s, i, "true")
	case 'f':
		return skipWord(s, i, "false")
	case 'n':
		return skipWord(s, i, "null")
	}
	return skipNumber(s, i)
}

// skipMembers goes from behind the bracket that opens an object to behind the one
// that closes it. found, unless nil, is called for each member.
func skipMembers(s string, i, depth int, found func(key, value string)) int {
	if i = skipSpace(s, i); i < len(s) && s[i] == '}' {
		return i + 1
	}
	for {
		key := skipSpace(s, i)
		if key == len(s) || s[key] != '"' {
			return -1
		}
		keyEnd := skipString(s, key)
		if keyEnd < 0 {
			return -1
		}
		if i = skipSpace(s, keyEnd); i == len(s) || s[i] != ':' {
			return -1
		}
		value := skipSpace(s, i+1)
		if i = skipValue(s, value, depth); i < 0 {
			return -1
		}
		if found != nil {
			found(s[key:keyEnd], s[value:i])
		}
		if i = skipSpace(s, i); i == len(s) {
			return -1
		}
		switch s[i] {
		case ',':
			i++
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

// skipElements goes from behind the bracket that opens an array to behind the one
// that closes it.
func skipElements(s string, i, depth int) int {
	if i = skipSpace(s, i); i < len(s) && s[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(s, i, depth); i < 0 {
			return -1
		}
		if i = skipSpace(s, i); i == len(s) {
			return -1
		}
		switch s[i] {
		case ',':
			i++
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}

// skipString goes from a string's first quote to behind its last.
func skipString(s string, i int) int {
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i == len(s) {
				return -1
			}
			switch s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s) < i+5 || !isHex(s[i+1]) || !isHex(s[i+2]) || !isHex(s[i+3]) || !isHex(s[i+4]) {
					return -1
				}
				i += 4
			default:
				return -1
			}
		}
	}
	return -1
}

func skipWord(s string, i int, word string) int {
	if len(s)-i < len(word) || s[i:i+len(word)] != word {
		return -1
	}
	return i + len(word)
}

func skipNumber(s string, i int) int {
	if s[i] == '-' {
		i++
	}
	first := i
	if i = skipDigits(s, i); i < 0 || s[first] == '0' && i > first+1 {
		return -1
	}
	if i < len(s) && s[i] == '.' {
		if i = skipDigits(s, i+1); i < 0 {
			return -1
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		i = skipDigits(s, i)
	}
	return i
}

// skipDigits goes behind the digits at s[i], one at least.
func skipDigits(s string, i int) int {
	first := i
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	if i == first {
		return -1
	}
	return i
}

func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

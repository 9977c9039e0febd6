package config

import "os"

// File is the name of the file that [Load] reads if it is given path; "" if
// there is none.
func File(path string) string {
	if path != "" {
		return path
	}
	for _, name := range []string{localFile, systemFile} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

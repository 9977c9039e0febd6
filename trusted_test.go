package main

import "testing"

// workingAPI says that it works, but for one host.
type workingAPI struct{}

func (workingAPI) State(host string) (works bool, why string) {
	if host == "example.net" {
		return false, "connection refused"
	}
	return true, ""
}

// An API that was found out not to do what it says is no way, whatever it says.
func TestTrustedAPI(t *testing.T) {
	api := trustedAPI{workingAPI{}, func(host string) string {
		return map[string]string{"example.com": "it lies", "example.net": "it lied"}[host]
	}}
	for host, want := range map[string]string{"example.org": "", "example.net": "connection refused", "example.com": "it lies"} {
		if works, why := api.State(host); works != (want == "") || why != want {
			t.Errorf("%s: %v, %q", host, works, why)
		}
	}
}

package deploy

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"rosterd/config"
)

// Where the schemas of others' files are: in Go modules, which no program here needs.
const (
	composeSchema    = "github.com/compose-spec/compose-go/v2@v2.16.2 schema/compose-spec.json"
	goreleaserSchema = "github.com/goreleaser/goreleaser/v2@v2.12.7 www/docs/static/schema.json"
)

// fromModule is the name of a file in a module.
func fromModule(t *testing.T, name string) string {
	t.Helper()
	module, file, _ := strings.Cut(name, " ")
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	download.Dir = t.TempDir() // not a part of this module
	out, err := download.Output()
	var got struct{ Dir, Error string }
	if json.Unmarshal(out, &got) != nil || err != nil || got.Error != "" {
		if os.Getenv("E2E") == "required" {
			t.Fatalf("%s: %v %s", module, err, got.Error)
		}
		t.Skipf("%s cannot be had: %v %s", module, err, got.Error)
	}
	return filepath.Join(got.Dir, file)
}

// wantSchema wants a file of YAML to be as a schema says.
func wantSchema(t *testing.T, file, schema string) {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(fromModule(t, schema))
	if err != nil {
		t.Fatal(err)
	}
	var value any
	decodeYAML(t, file, &value)
	if err := s.Validate(value); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// What compose.yaml names is there, and rosterd takes its configuration. That all of it works
// together is tried in e2e.
func TestCompose(t *testing.T) {
	wantSchema(t, "compose.yaml", composeSchema)
	var c struct {
		Services map[string]struct {
			Build struct {
				Context string
				Inline  string `yaml:"dockerfile_inline"`
			}
			Volumes   []string
			Ports     []string
			DependsOn []string `yaml:"depends_on"`
		}
		Volumes map[string]any
	}
	decodeYAML(t, "compose.yaml", &c)
	for name, s := range c.Services {
		if s.Build.Context != "" {
			if _, err := os.Stat(s.Build.Context); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Stat(filepath.Join(s.Build.Context, "Dockerfile")); err != nil && s.Build.Inline == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		for line := range strings.Lines(s.Build.Inline) {
			if words := strings.Fields(line); len(words) == 3 && words[0] == "COPY" {
				if _, err := os.Stat(filepath.Join(s.Build.Context, words[1])); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, named := c.Volumes[from]; named {
				continue
			}
			if _, err := os.Stat(from); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: %s is open to others, with secrets that everybody knows", name, port)
			}
		}
		for _, other := range s.DependsOn {
			if _, there := c.Services[other]; !there {
				t.Errorf("%s depends on %s", name, other)
			}
		}
	}
	if _, _, err := config.Load("compose/rosterd.yaml"); err != nil {
		t.Error(err)
	}
}

// The release is configured as goreleaser wants it, and every file that it packs is there.
func TestRelease(t *testing.T) {
	wantSchema(t, "../.goreleaser.yaml", goreleaserSchema)
	var c struct {
		Before struct{ Hooks []string }
		Builds []struct {
			Env    []string
			Goos   []string
			Goarch []string
		}
		Archives []struct{ Files []string }
	}
	decodeYAML(t, "../.goreleaser.yaml", &c)
	for _, archive := range c.Archives {
		for _, file := range []string{"LICENSE", "SECURITY.md", "deploy/kubernetes.yaml"} { // that of MIT comes with each copy
			if !slices.Contains(archive.Files, file) {
				t.Errorf("%s is left out", file)
			}
		}
		for _, pattern := range archive.Files {
			if strings.HasPrefix(pattern, "dist-extra/") {
				if !slices.ContainsFunc(c.Before.Hooks, func(hook string) bool { return strings.HasPrefix(hook, "deploy/extras.sh dist-extra") }) {
					t.Errorf("nobody makes %s", pattern)
				}
				continue
			}
			found, err := filepath.Glob(filepath.Join("..", strings.ReplaceAll(pattern, "/**/*", "/*")))
			if err != nil || len(found) == 0 {
				t.Errorf("%s: nothing, %v", pattern, err)
			}
		}
	}
	for _, build := range c.Builds {
		for _, system := range build.Goos {
			for _, arch := range build.Goarch {
				// Compiling for another processor takes longer than most tests. That all files are
				// there which it takes is known at once.
				list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Incomplete}}{{.ImportPath}} {{.Error}}{{end}}", ".")
				list.Dir, list.Env = "..", append(append(os.Environ(), "GOOS="+system, "GOARCH="+arch), build.Env...)
				if out, err := list.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "" {
					t.Errorf("%s/%s: %v\n%s", system, arch, err, out)
				}
			}
		}
	}
}

// The image says what it is, and whether it is well.
func TestDockerfile(t *testing.T) {
	text := read(t, "../Dockerfile")
	_, image, _ := strings.Cut(text, "FROM scratch")
	for _, label := range []string{"title", "description", "licenses", "version", "revision"} {
		if !strings.Contains(image, "org.opencontainers.image."+label+`="`) {
			t.Errorf("there is no label %s", label)
		}
	}
	if !strings.Contains(image, `CMD ["/rosterd", "health"]`) || !strings.Contains(image, "ARG VERSION") {
		t.Error("no HEALTHCHECK, or no version")
	}
}

// GitHub takes the forms: it shows nothing if it does not.
func TestIssueTemplates(t *testing.T) {
	forms, err := filepath.Glob("../.github/ISSUE_TEMPLATE/*.yml")
	if err != nil || len(forms) < 3 {
		t.Fatal(forms, err)
	}
	for _, form := range forms {
		if filepath.Base(form) == "config.yml" {
			continue
		}
		var f struct {
			Name, Description string
			Labels            []string
			Body              []struct {
				Type        string
				ID          string
				Attributes  struct{ Label, Value, Description, Placeholder, Render string }
				Validations struct{ Required bool }
			}
		}
		decoder := yaml.NewDecoder(strings.NewReader(read(t, form)))
		decoder.KnownFields(true)
		if err := decoder.Decode(&f); err != nil || f.Name == "" || f.Description == "" || len(f.Body) == 0 {
			t.Errorf("%s: %v", form, err)
		}
		ids := make(map[string]bool)
		for _, field := range f.Body {
			switch {
			case field.Type == "markdown" && field.Attributes.Value != "":
			case (field.Type == "textarea" || field.Type == "input") && field.Attributes.Label != "" && field.ID != "" && !ids[field.ID]:
				ids[field.ID] = true
			default:
				t.Errorf("%s: %+v", form, field)
			}
		}
	}
}

// Each pod takes the configuration, of whichever kind its address is.
func TestKubernetes(t *testing.T) {
	var text string
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Env []struct {
							Name, Value string
							ValueFrom   struct {
								FieldRef struct {
									FieldPath string `yaml:"fieldPath"`
								} `yaml:"fieldRef"`
							} `yaml:"valueFrom"`
						}
					}
				}
			}
		}
	}
	for documents := yaml.NewDecoder(strings.NewReader(read(t, "kubernetes.yaml"))); ; {
		var node yaml.Node
		if err := documents.Decode(&node); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var one struct {
			Kind string
			Data map[string]string
		}
		err := node.Decode(&one)
		switch one.Kind {
		case "ConfigMap":
			text = one.Data["config.yaml"]
		case "Deployment":
			err = node.Decode(&deployment)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for ip, want := range map[string]string{"10.1.2.3": "http://10.1.2.3:5290", "fd00::1": "http://[fd00::1]:5290"} {
		for _, env := range deployment.Spec.Template.Spec.Containers[0].Env {
			switch {
			case env.ValueFrom.FieldRef.FieldPath == "status.podIP":
				env.Value = ip
			case strings.HasSuffix(env.Name, "_FILE"):
				env.Value = file(filepath.Base(env.Value), "postgres://a@b/c")
			}
			t.Setenv(env.Name, env.Value)
		}
		if c, _, err := config.Load(file("config.yaml", text)); err != nil || c.Refresh.Advertise != want {
			t.Errorf("%s: %q, %v", ip, c.Refresh.Advertise, err)
		}
	}
}

// What docs/high-availability.md has an administrator write starts an instance as systemd runs it:
// who it runs as reads the secrets where systemd hands them over, and nowhere else. Others reach it.
func TestPairSetup(t *testing.T) {
	document := read(t, "../docs/high-availability.md")
	block := func(step, language string) string {
		_, rest, found := strings.Cut(document, step)
		_, rest, begun := strings.Cut(rest, "```"+language+"\n")
		code, _, ended := strings.Cut(rest, "```")
		if !found || !begun || !ended {
			t.Fatalf("there is no block of %s behind %q", language, step)
		}
		return code
	}
	unit := read(t, "rosterd.service") + block("3. **systemd**", "ini")
	credentials, secrets := t.TempDir(), map[string]string{"xmpp-secret": "s", "refresh-token": "t", "state-url": "postgres://rosterd:p@db.example.org/rosterd"}
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if credential, ok := strings.CutPrefix(line, "LoadCredential="); ok {
			name, _, _ := strings.Cut(credential, ":")
			if err := os.WriteFile(filepath.Join(credentials, name), []byte(secrets[name]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if variables, ok := strings.CutPrefix(line, "Environment="); ok {
			for _, variable := range strings.Fields(variables) {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, strings.ReplaceAll(value, "%d", credentials))
			}
		}
	}
	text := strings.Replace(strings.TrimRight(block("2. **The same configuration", "yaml"), " "), "   xmpp:\n", "   xmpp:\n     domain: contacts.example.org\n     hosts: [example.org]\n", 1) +
		"   contacts:\n     url: https://example.org/contacts/%s\n"
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Load(file)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%q, %v", warnings, err)
	}
	if c.Refresh.Listen != ":5290" || c.Metrics.Listen != ":9590" || c.Refresh.Token != "t" {
		t.Errorf("%+v, %+v", c.Refresh, c.Metrics)
	}
}

// Reads Containerfiles as Podman does, with the library that it does so with: on stdin a JSON string a line, on stdout
// a JSON object a line that says what the Containerfile does. Nothing is built.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	docker "github.com/fsouza/go-dockerclient"
	"github.com/openshift/imagebuilder"
	"github.com/openshift/imagebuilder/dockerfile/parser"
)

// An image with an environment of its own, so that a variable that is expanded shows.
func image(name string) *docker.Image {
	return &docker.Image{Config: &docker.Config{Image: name, Env: []string{"PATH=/base/bin", "HOME=/base/home"}}}
}

type run struct {
	Shell  bool     `json:"shell"`
	Args   []string `json:"args"`
	Mounts []string `json:"mounts"`
}

type copied struct {
	Sources []string `json:"sources"`
	To      string   `json:"to"`
	Owner   string   `json:"owner"`
}

// report is all that a Containerfile does; Error where it is none.
type report struct {
	Error      string            `json:"error"`
	Base       string            `json:"base"`
	Keywords   []string          `json:"keywords"`
	Runs       []run             `json:"runs"`
	Copies     []copied          `json:"copies"`
	Env        []string          `json:"environment"`
	Labels     map[string]string `json:"labels"`
	Ports      []string          `json:"ports"`
	Volumes    []string          `json:"volumes"`
	User       string            `json:"user"`
	WorkingDir string            `json:"workdir"`
	Entrypoint []string          `json:"entrypoint"`
	Command    []string          `json:"command"`
}

// recorder notes what the steps ask for, where a builder would do it.
type recorder struct{ to *report }

func (recorder) Preserve(string) error                                    { return nil }
func (recorder) EnsureContainerPath(string) error                         { return nil }
func (recorder) EnsureContainerPathAs(string, string, *os.FileMode) error { return nil }

func (r recorder) Copy(_ []string, copies ...imagebuilder.Copy) error {
	for _, each := range copies {
		r.to.Copies = append(r.to.Copies, copied{each.Src, each.Dest, each.Chown})
	}
	return nil
}

func (r recorder) Run(one imagebuilder.Run, _ docker.Config) error {
	r.to.Runs = append(r.to.Runs, run{one.Shell, one.Args, one.Mounts})
	return nil
}

func (recorder) UnrecognizedInstruction(step *imagebuilder.Step) error {
	return fmt.Errorf("unknown instruction %s", step.Command)
}

func read(text string) (*report, error) {
	found := &report{}
	node, err := imagebuilder.ParseDockerfile(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	for _, child := range node.Children {
		found.Keywords = append(found.Keywords, strings.ToUpper(child.Value))
	}
	builder := imagebuilder.NewBuilder(nil)
	if found.Base, err = builder.From(node); err != nil {
		return nil, err
	}
	if err := builder.FromImage(image(found.Base), node); err != nil {
		return nil, err
	}
	if err := follow(builder, node, found); err != nil {
		return nil, err
	}
	describe(builder.Config(), found)
	return found, nil
}

func follow(builder *imagebuilder.Builder, node *parser.Node, found *report) error {
	for _, child := range node.Children {
		step := builder.Step()
		if err := step.Resolve(child); err != nil {
			return err
		}
		if err := builder.Run(step, recorder{found}, false); err != nil {
			return err
		}
	}
	return nil
}

func describe(config *docker.Config, found *report) {
	found.Env, found.Labels, found.User = config.Env, config.Labels, config.User
	found.WorkingDir, found.Entrypoint, found.Command = config.WorkingDir, config.Entrypoint, config.Cmd
	for port := range config.ExposedPorts {
		found.Ports = append(found.Ports, string(port))
	}
	for volume := range config.Volumes {
		found.Volumes = append(found.Volumes, volume)
	}
	sort.Strings(found.Ports)
	sort.Strings(found.Volumes)
}

func answer(line []byte) *report {
	var text string
	if err := json.Unmarshal(line, &text); err != nil {
		return &report{Error: err.Error()}
	}
	found, err := read(text)
	if err != nil {
		return &report{Error: err.Error()}
	}
	return found
}

func main() {
	lines, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := out.Encode(answer(line)); err != nil {
			return
		}
	}
}

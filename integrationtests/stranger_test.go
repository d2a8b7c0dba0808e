package integrationtests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// published are the modules that a program can require, by folder. The root
// comes first: the others require a version of it.
var published = []string{".", "metrics", "vet", "cmd/quicwho"}

// strangers is a program that uses what is published.
const strangers = `package main

import (
	"context"
	"fmt"

	quic "github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/metrics"
)

func main() {
	ln, err := quic.ListenAddr("127.0.0.1:0", nil, nil)
	fmt.Println(ln == nil, err != nil, metrics.NewCollector(quic.DefaultGuard, "name") != nil, quic.DefaultGuard.Shutdown(context.Background()))
}
`

// tools are the programs that are published.
const tools = `
tool (
	github.com/quiclife/quiclife/cmd/quicwho
	github.com/quiclife/quiclife/vet/cmd/quiclifevet
)
`

// TestPublishedModulesBuildForAStranger: a program outside of this repository
// gets them as they would be tagged now, from a proxy, without go.work.
func TestPublishedModulesBuildForAStranger(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	proxy := t.TempDir()
	requires := make(map[string]string)
	for _, folder := range published {
		v := publish(t, proxy, filepath.Join(root, folder))
		requires[v.Path] = v.Version
	}
	program := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(program, "main.go"), []byte(strangers), 0o666))
	mod := "module stranger\n\ngo 1.26.0\n" + tools
	for path, version := range requires {
		mod += "\nrequire " + path + " " + version + "\n"
	}
	require.NoError(t, os.WriteFile(filepath.Join(program, "go.mod"), []byte(mod), 0o666))

	var env struct{ GOMODCACHE, GOPROXY string }
	out, err := exec.CommandContext(t.Context(), "go", "env", "-json", "GOMODCACHE", "GOPROXY").Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &env))
	cache := t.TempDir() // of its own: the version that it downloads is not the one that will be tagged
	for _, args := range [][]string{{"mod", "tidy"}, {"run", "."}, {"build", "-o", program, "tool"}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = program
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-modcacherw",
			"GOMODCACHE="+cache,
			"GOPROXY=file://"+filepath.ToSlash(proxy)+",file://"+filepath.ToSlash(env.GOMODCACHE)+"/cache/download,"+env.GOPROXY,
			"GOSUMDB=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %s:\n%s", strings.Join(args, " "), out)
		if args[0] == "run" {
			require.Contains(t, string(out), "true true true <nil>")
		}
	}
}

// publish puts the module in folder into a proxy, as the version that other
// modules of the repository require.
func publish(t *testing.T, proxy, folder string) module.Version {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	require.NoError(t, err)
	mod, err := modfile.Parse("go.mod", data, nil)
	require.NoError(t, err)
	require.Empty(t, mod.Replace, "go install refuses a module with a replace directive")
	v := module.Version{Path: mod.Module.Mod.Path, Version: nextVersion}
	dir := filepath.Join(proxy, filepath.FromSlash(v.Path), "@v")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "list"), []byte(v.Version+"\n"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, v.Version+".info"), []byte(`{"Version":"`+v.Version+`"}`), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, v.Version+".mod"), data, 0o666))
	file, err := os.Create(filepath.Join(dir, v.Version+".zip"))
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, zip.CreateFromDir(file, v, folder))
	return v
}

// nextVersion is what the modules of this repository require of each other.
const nextVersion = "v0.2.0"

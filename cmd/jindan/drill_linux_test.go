package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/drill"
	"jindan/fixtures/lab/testbed"
)

// TestIntegrationDrill drives a part of the lab live: incidents of each kind, and what must stay silent.
func TestIntegrationDrill(t *testing.T) {
	if err := testbed.Missing(); err != nil {
		t.Skip(err)
	}
	// The test program can be jindan, too.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(t.TempDir(), "jindan")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\nexec env "+asProgram+"=1 "+self+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := &app{App: cli.App{Log: cli.NewLog("text", false)}}
	err = drill.Command{App: &a.App}.Run(t.Context(), strings.Fields("five-short S7 S1 S1c ports leak loss5 S5b S6a N17 healthy N7"),
		drill.Options{Seed: 5, Runs: 1, Jobs: 6, Output: "text", Agent: agent})
	if err != nil {
		t.Error(err) // the log says of each what is not as expected
	}
}

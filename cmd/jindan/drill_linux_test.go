package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

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

// --agent makes this program the agent of a drill.
func TestAgentFlag(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{"--agent": self, "--agent=true": self, "--agent=false": ""} {
		var program string
		c := &cobra.Command{}
		agentFlag(c, &program, "")
		if err := c.ParseFlags([]string{arg}); err != nil || program != want {
			t.Errorf("%s: %q, want %q: %v", arg, program, want, err)
		}
	}
}

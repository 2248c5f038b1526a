//go:build !linux

package main

import "github.com/spf13/cobra"

func runProgram() {}

// keepCapabilities: only Linux divides the agent.
func keepCapabilities() bool { return false }

func newDrill(*app) *cobra.Command {
	return linuxOnly("drill list|SCENARIO…", "Rebuild an incident in network namespaces and show the diagnosis")
}

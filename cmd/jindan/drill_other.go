//go:build !linux

package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func runProgram() {}

func newDrill(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "drill list|SCENARIO…",
		Short:              "Rebuild an incident in network namespaces and show the diagnosis (Linux)",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("drill needs Linux: it builds network namespaces; on %s use 'jindan analyze' with a capture", runtime.GOOS)
		},
	}
}

//go:build !linux

package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newRun(*app) *cobra.Command {
	return linuxOnly("run", "Watch this host and diagnose it: the agent")
}
func newCheck(*app) *cobra.Command {
	return linuxOnly("check", "Look at this host for a while and say what is wrong")
}
func newRecord(*app) *cobra.Command {
	return linuxOnly("record DIR", "Keep what the agent would see, to diagnose it elsewhere")
}

func newIncidents(*app) *cobra.Command {
	return linuxOnly("incidents", "List the incidents of the agent")
}

func newAck(*app) *cobra.Command {
	return linuxOnly("ack ID…", "Tell the agent that an open finding is known")
}

func newHealth(*app) *cobra.Command {
	return linuxOnly("health", "Ask the agent whether its analysis keeps up")
}

// watchTop is `jindan top` on this host.
func (a *app) watchTop(context.Context, *topFlags, *topFeed) error {
	return fmt.Errorf("top needs Linux to watch a host; with --replay it shows a recording or capture here, too")
}

func (a *app) ackTop(context.Context, *topFlags, string) error {
	return fmt.Errorf("there is no agent on %s", runtime.GOOS)
}

func topAgentFlags(*cobra.Command, *topFlags) {}

type topAgent struct{}

func (*topAgent) rulesDir() string { return "" }

// linuxOnly is a command that says why it is not there.
func linuxOnly(use, short string) *cobra.Command {
	return &cobra.Command{
		Use:                use,
		Short:              short + " (Linux)",
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs Linux: it reads the kernel's sockets, counters and packets; on %s use 'jindan analyze' with a capture", c.Name(), runtime.GOOS)
		},
	}
}

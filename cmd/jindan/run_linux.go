package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/agent"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
)

type runFlags struct {
	config    string
	noCapture bool
	ifaces    []string
	filter    string
	local     []string
	netns     []string
	rules     string
	output    string
	record    string
}

// agentFlags are the flags that run, check and record share.
func agentFlags(c *cobra.Command, f *runFlags) {
	configFlag(c, &f.config)
	c.Flags().BoolVar(&f.noCapture, "no-capture", false, "do not capture packets: sockets and counters only")
	c.Flags().StringSliceVarP(&f.ifaces, "interface", "i", nil, "`interface` to capture on, several with commas (default any)")
	c.Flags().StringVar(&f.filter, "filter", "", "capture `filter` in tcpdump's syntax (default TCP, DNS and ICMP errors)")
	c.Flags().StringSliceVar(&f.local, "local", nil, "`address` or prefix of this host, repeatable (default: found from its sockets)")
	c.Flags().StringSliceVar(&f.netns, "netns", nil, "network `namespace` to watch: names, process ids, or all (default the agent's own)")
	c.Flags().StringVar(&f.rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
}

// configuration is that of the files, the environment and the flags.
func (f *runFlags) configuration() (*config.Config, error) {
	return loadConfigWith(f.config, false, func(o *config.Options) {
		if f.noCapture {
			o.Set("--no-capture", "capture.enabled", "false")
		}
		for _, s := range []struct {
			flag, key string
			value     string
		}{
			{"--interface", "capture.interfaces", strings.Join(f.ifaces, ",")}, {"--filter", "capture.filter", f.filter},
			{"--local", "local", strings.Join(f.local, ",")}, {"--netns", "netns", strings.Join(f.netns, ",")}, {"--rules", "rules", f.rules},
		} {
			if s.value != "" {
				o.Set(s.flag, s.key, s.value)
			}
		}
	})
}

func newRun(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Watch this host and diagnose it: the agent",
		Long: `Watches the packets, sockets and counters of this host, and tells what is wrong as it begins, changes and
ends. It reads only. Without root it says what it cannot see, and carries on with the rest.

SIGHUP reads the configuration again: sinks and rules are taken over, and what is open stays; if what is watched has changed, the
analysis begins anew. SIGUSR1 opens the files of sinks again (log rotation). SIGINT and SIGTERM end it with a diagnosis.`,
		Example: `  sudo jindan run
  sudo jindan run -i eth0 --filter 'port 443 or port 53'
  sudo jindan run -o ndjson | jq .summary.en
  jindan run --no-capture                    sockets and counters only, no root needed`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c.Context(), &f) },
	}
	agentFlags(c, &f)
	c.Flags().StringVarP(&f.output, "output", "o", "", "`format` of the findings on standard output: text, ndjson or ecs (default text on a terminal, otherwise the encoding of the stdout sink, native NDJSON)")
	c.Flags().StringVar(&f.record, "record", "", "also keep what is observed in `directory`, as 'jindan record' does")
	_ = c.MarkFlagDirname("record")
	fixed(c, "output", "text", "ndjson", "ecs")
	return c
}

func (a *app) run(ctx context.Context, f *runFlags) error {
	if f.output == "" && cli.IsTerminal(os.Stdout) {
		f.output = "text"
	}
	if f.output != "" { // else as the sink says
		if err := cli.OneOf("--output", f.output, "text", "ndjson", "ecs"); err != nil {
			return err
		}
	}
	return agent.Run(ctx, agent.Options{App: &a.App, Load: f.configuration, Output: f.output, Record: f.record, Divide: a.whole})
}

// Command jindan diagnoses network sessions: it tells what is wrong, where, since
// when, and what is the cause as opposed to its consequences.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jindan/capture/decode"
	"jindan/cmd/internal/cli"
)

func main() {
	decode.DropTables()
	if keepCapabilities() {
		return
	}
	runProgram()
	os.Exit(runAs(&app{App: cli.App{Log: cli.NewLog("text", false)}, whole: true}, os.Args[1:]))
}

func runAs(a *app, args []string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		code := int32(cli.ExitInterrupt)
		if <-signals == syscall.SIGTERM {
			code = cli.ExitTerminate
		}
		a.Interrupted.Store(code)
		cancel()
		signal.Stop(signals) // a second signal kills
	}()
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return cli.ExitDone
	}
	code := cli.ExitUnusable
	var s *cli.Status
	if errors.As(err, &s) {
		code, err = s.Code, s.Err
	}
	if err != nil {
		a.Log.Error().Msg(cli.OneLine(err))
	}
	return code
}

// app is a run of the program.
type app struct {
	cli.App
	whole bool // the process is the program's own, and may be begun anew; tests call run
}

func newRoot(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "jindan",
		Short: "Network session diagnostics: from a capture to the cause",
		Long: `jindan (진단, "diagnosis") reads packet captures and says what is wrong, where, since
when, and what is the cause as opposed to its consequences. Suspects that it cannot
confirm are ruled out in numbers, or named as not assessable from the input.

Findings and results go to standard output, everything else to standard error.`,
		Example: `  jindan analyze server.pcap           diagnose a capture
  jindan analyze --lang ko DIR         all captures of a directory, in Korean
  tcpdump -w - | jindan analyze -      from a pipe
  jindan flows --dns server.pcap       one row per connection and DNS query
  jindan explain close-wait            what a finding means, and what to do`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		PersistentPreRunE: func(_ *cobra.Command, _ []string) error {
			if err := cli.OneOf("--color", a.Color, "auto", "always", "never"); err != nil {
				return err
			}
			if err := cli.OneOf("--log-format", a.LogFormat, "text", "json"); err != nil {
				return err
			}
			if err := cli.OneOf("--lang", a.Lang, "en", "ko"); err != nil {
				return err
			}
			a.Log = cli.NewLog(a.LogFormat, a.WantColor(os.Stderr))
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&a.Lang, "lang", cli.LangFromEnv(os.Getenv), "`language` of texts for people: en or ko")
	c.PersistentFlags().StringVar(&a.Color, "color", "auto", "`when` to use colours: auto, always or never")
	c.PersistentFlags().StringVar(&a.LogFormat, "log-format", "text", "`format` of the program's own messages on standard error: text or json")
	c.Version = versionLine()
	c.SetVersionTemplate("{{.Version}}\n")
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if flag, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
			var names []string
			c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
			err = fmt.Errorf("%w%s", err, strings.Replace(cli.Near(flag, names), `"`, `"--`, 1))
		}
		return fmt.Errorf("%w (see '%s --help')", err, c.CommandPath())
	})
	c.AddCommand(newAnalyze(a), newFlows(a), newExplain(a), newRules(a), newRun(a), newCheck(a), newRecord(a), newTop(a), newIncidents(a), newAck(a), newHealth(a), newDrill(a), newConfig(), newSchema(), newVersion(), newMan())
	c.InitDefaultHelpCmd()
	c.SetHelpCommandGroupID("")
	return c
}

// noArgs refuses arguments; for a command with subcommands they are unknown commands.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasAvailableSubCommands() {
		return fmt.Errorf("%q is one argument too many: %s takes none (see '%s --help')", args[0], c.CommandPath(), c.CommandPath())
	}
	msg := fmt.Sprintf("there is no command %q", c.CommandPath()+" "+args[0])
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		msg += fmt.Sprintf(", did you mean %q?", near[0])
	}
	return fmt.Errorf("%s (see '%s --help')", msg, c.CommandPath())
}

// someArgs wants at least one argument.
func someArgs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("give %s (see '%s --help')", what, c.CommandPath())
		}
		return nil
	}
}

// pointArgs demands files, unless points are given in their place.
func pointArgs(given *[]string) cobra.PositionalArgs {
	some := someArgs("capture files, directories, or - for standard input")
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(*given) == 0:
			return some(c, args)
		case len(args) > 0:
			return fmt.Errorf("%q: with --point, each file belongs to a point: --point NAME=FILE", args[0])
		}
		return nil
	}
}

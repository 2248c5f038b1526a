// Command jindan diagnoses network sessions: it tells what is wrong, where, since
// when, and what is the cause as opposed to its consequences.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jindan/cmd/internal/config"
	"jindan/cmd/internal/report"
)

// Exit codes.
const (
	exitDone      = 0
	exitFailOn    = 1   // --fail-on reached
	exitUnusable  = 2   // arguments, input or output
	exitInterrupt = 130 // SIGINT
	exitTerminate = 143 // SIGTERM
)

// status ends the program with a code other than 0. err, if there is one, is told on
// standard error in one line.
type status struct {
	code int
	err  error
}

func (s *status) Error() string {
	if s.err == nil {
		return fmt.Sprintf("exit status %d", s.code)
	}
	return s.err.Error()
}

func (s *status) Unwrap() error { return s.err }

func main() {
	runProgram()
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	a := &app{log: newLog("text", false)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		code := int32(exitInterrupt)
		if <-signals == syscall.SIGTERM {
			code = exitTerminate
		}
		a.interrupted.Store(code)
		cancel()
		signal.Stop(signals) // a second signal kills
	}()
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var s *status
	if !errors.As(err, &s) {
		s = &status{exitUnusable, err}
	}
	if s.err != nil {
		a.log.Error().Msg(oneLine(s.err))
	}
	return s.code
}

// jsonLines makes the texts of JSON lines harmless.
type jsonLines struct{ w io.Writer }

func (j jsonLines) Write(p []byte) (int, error) {
	if _, err := j.w.Write(report.CleanJSON(slices.Clone(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// oneLine makes an error one line; errors.Join separates by line breaks.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// app is what the commands share.
type app struct {
	log zerolog.Logger
	// interrupted is the exit code for the signal that came; 0: none did.
	interrupted atomic.Int32
	// overLine: a line without an end stands on the terminal that the log goes to, too.
	overLine atomic.Bool
	// flags of all commands
	lang      string
	color     string
	logFormat string
}

// endWithin is how long a command may take to end after a signal, whatever it is at.
const endWithin = 4800 * time.Millisecond

// endWithin ends the process some time after a signal, unless what it returns is called before: what runs by then does not
// heed ctx, and a goroutine cannot be ended.
func (a *app) endWithin(ctx context.Context) (ended func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		select {
		case <-done:
		case <-time.After(endWithin):
			if code := a.interrupted.Load(); code != 0 {
				os.Exit(int(code))
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// logAside lets the log wait for nobody, until what it returns is called.
func (a *app) logAside() (back func()) {
	before, o := a.log, newOutlet(os.Stderr)
	a.log = newLogTo(overLine{o, &a.overLine}, a.logFormat, a.wantColor(os.Stderr))
	return func() {
		o.flush(flushLog)
		a.log = before
	}
}

// overLine writes in the place of the line that shows that the agent lives, while there is one.
type overLine struct {
	w     io.Writer
	there *atomic.Bool
}

func (o overLine) Write(p []byte) (int, error) {
	if o.there.Load() {
		_, err := o.w.Write(append([]byte("\r\x1b[K"), p...))
		return len(p), err
	}
	return o.w.Write(p)
}

// flushLog is how long the reader of the log has for the rest.
const flushLog = 200 * time.Millisecond

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
			if err := oneOf("--color", a.color, "auto", "always", "never"); err != nil {
				return err
			}
			if err := oneOf("--log-format", a.logFormat, "text", "json"); err != nil {
				return err
			}
			if err := oneOf("--lang", a.lang, "en", "ko"); err != nil {
				return err
			}
			a.log = newLog(a.logFormat, a.wantColor(os.Stderr))
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&a.lang, "lang", langFromEnv(os.Getenv), "`language` of texts for people: en or ko")
	c.PersistentFlags().StringVar(&a.color, "color", "auto", "`when` to use colours: auto, always or never")
	c.PersistentFlags().StringVar(&a.logFormat, "log-format", "text", "`format` of the program's own messages on standard error: text or json")
	c.Version = versionLine()
	c.SetVersionTemplate("{{.Version}}\n")
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if flag, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
			var names []string
			c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
			err = fmt.Errorf("%w%s", err, config.Near(flag, names))
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

// oneOf checks the value of a flag.
func oneOf(flag, value string, allowed ...string) error {
	for _, s := range allowed {
		if s == value {
			return nil
		}
	}
	return fmt.Errorf("%s %q: use %s or %s%s", flag, value, strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1],
		config.Near(value, allowed))
}

// newLog returns the program's own log on standard error: one line a message,
// "jindan: …" or JSON.
func newLog(format string, color bool) zerolog.Logger { return newLogTo(os.Stderr, format, color) }

func newLogTo(w io.Writer, format string, color bool) zerolog.Logger {
	if format == "json" {
		return zerolog.New(jsonLines{w}).With().Timestamp().Logger()
	}
	return zerolog.New(zerolog.ConsoleWriter{
		Out: w, NoColor: true, PartsOrder: []string{zerolog.LevelFieldName, zerolog.MessageFieldName},
		FormatLevel: func(l any) string {
			word, style := "", ""
			switch l {
			case zerolog.LevelErrorValue:
				style = "\x1b[1;31m"
			case zerolog.LevelWarnValue:
				word, style = " warning:", "\x1b[1;33m"
			}
			if !color || style == "" {
				return "jindan:" + word
			}
			return style + "jindan:" + word + "\x1b[0m"
		},
		FormatMessage:    func(m any) string { return report.Clean(fmt.Sprint(m)) },
		FormatFieldValue: func(v any) string { return report.Clean(fmt.Sprint(v)) },
	})
}
